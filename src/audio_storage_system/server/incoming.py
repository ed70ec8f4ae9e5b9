"""Forms with files, as they arrive: each file goes to a temporary file of the archive, never whole into memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

from anyio import CancelScope, to_thread
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from audio_storage_system import AudioStorageSystem
from audio_storage_system.errors import Forbidden, InvalidInput

MOST_FILES, MOST_FIELDS, MOST_FIELD_BYTES = 8, 64, 1 << 20


Check = Callable[[FormData], None]


def must_write(storage: AudioStorageSystem, action: str) -> None:
    """Asked before a file is taken: raises `Forbidden` for a token that only reads."""
    if not storage.may_write:
        raise Forbidden(principal=storage.principal, action=f"{action} with this token")


class _Parser(MultiPartParser):
    """Starlette's parser, with the archive's temporary files, which nobody else can read."""

    def __init__(self, storage: AudioStorageSystem, request: Request, check: Check) -> None:
        limits = {"max_files": MOST_FILES, "max_fields": MOST_FIELDS, "max_part_size": MOST_FIELD_BYTES}
        super().__init__(request.headers, cast(Any, request.stream()), **limits)
        self._storage, self._check = storage, check

    def on_headers_finished(self) -> None:
        """As the parser calls it, after the headers of a part."""
        super().on_headers_finished()
        if (upload := self._current_part.file) is not None:
            self._files_to_close_on_error[-1].close()
            self._check(FormData(self.items))
            upload.file = self._storage.temporary_file()
            self._files_to_close_on_error[-1] = cast(Any, upload.file)

    def close(self) -> None:
        """Let go of every file, also of one whose part never came to its end."""
        for file in self._files_to_close_on_error:
            file.close()


@asynccontextmanager
async def form_of(
    request: Request, storage: AudioStorageSystem, check: Check = lambda fields: None
) -> AsyncIterator[FormData]:
    """The fields and files of a `multipart/form-data` request; its files are gone after the block. check: called with
    what came before a file, and may raise. Raises `InvalidInput` for anything else."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise InvalidInput(reason="The request is not multipart/form-data")
    parser = _Parser(storage, request, check)
    try:
        yield await parser.parse()
    except MultiPartException as error:
        raise InvalidInput(reason=f"The form cannot be read: {error.message}") from error
    finally:
        with CancelScope(shield=True):
            await to_thread.run_sync(parser.close)


def file_in(form: FormData, name: str = "file") -> UploadFile:
    """The one file of a form with this name. Raises `InvalidInput`."""
    found = [value for value in form.getlist(name) if isinstance(value, UploadFile)]
    if len(found) != 1:
        raise InvalidInput(reason=f'The form needs one file called "{name}"')
    return found[0]
