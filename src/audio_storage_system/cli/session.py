"""Opening the archive for a command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import audio_storage_system

if TYPE_CHECKING:
    from audio_storage_system import AudioStorageSystem


# The command that this process runs, which the audit log names.
COMMAND = ""


def name_origin() -> None:
    """Let the audit log say which command does what is done from now on."""
    from audio_storage_system.audit import process_is

    process_is(f"cli:{COMMAND}")


@contextmanager
def opened(
    place: str | None, *, create: bool = False, as_user: str | None = None, **settings: Any
) -> Iterator[AudioStorageSystem]:
    """The archive at `place`; made when it does not exist and `create` is set, else `ArchiveNotFound`. as_user: the
    name of who is to see it.

    Settings that are `None` are left to environment and file.
    """
    name_origin()
    given = {name: value for name, value in settings.items() if value is not None}
    with audio_storage_system.AudioStorageSystem(place, create=create, **given) as storage:
        yield storage if as_user is None else storage.as_user(as_user)
