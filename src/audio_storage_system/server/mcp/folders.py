"""The folders whose files a tool may read, and nothing outside of them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from audio_storage_system.errors import Forbidden, InvalidInput, NotFound, TooLarge

# A tool waits for what it transcribes; larger files are for `audio-storage add --background`.
MAX_FILE_BYTES = 1024**3
# A link that took the place of the file since it was looked at is not followed, and a pipe is not waited for.
_READ = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))


class Folders:
    """Files below these folders, once links are followed, can be read. Of others nothing is told, nor if they exist."""

    def __init__(self, folders: Sequence[Path], apart: Path | None = None) -> None:
        """apart: a folder that is no part of them, wherever it lies: the archive's own. Raises `InvalidInput`."""
        self._folders = [_folder(folder) for folder in folders]
        self._apart = None if apart is None else Path(os.path.realpath(apart))

    def __bool__(self) -> bool:
        return bool(self._folders)

    def open(self, path: str, max_bytes: int = MAX_FILE_BYTES) -> BinaryIO:
        """The file at `path` (absolute, or below one of the folders), opened. Raises `Forbidden`, `NotFound`,
        `InvalidInput`, `TooLarge`."""
        within = [place for place in self._places(path) if self._holds(place)]
        if not within:
            raise Forbidden(principal="This server", action="read files outside of the folders named with --files")
        place = next((place for place in within if os.path.lexists(place)), within[0])
        try:
            file = os.fdopen(os.open(place, _READ), "rb")
        except FileNotFoundError as error:
            raise NotFound(f"There is no file {path}.") from error
        except OSError as error:
            raise InvalidInput(reason=f"{path} cannot be read: {error.strerror}") from error
        try:
            _check(file, path, max_bytes)
        except BaseException:
            file.close()
            raise
        return file

    def _places(self, path: str) -> Iterator[Path]:
        for folder in self._folders:
            yield Path(os.path.realpath(folder / path))  # an absolute path stays as it is

    def _holds(self, place: Path) -> bool:
        if self._apart is not None and place.is_relative_to(self._apart):
            return False
        return any(place.is_relative_to(folder) for folder in self._folders)


def _folder(folder: Path) -> Path:
    place = Path(os.path.realpath(folder.expanduser()))
    if not place.is_dir():
        raise InvalidInput(reason=f"There is no folder {folder}")
    return place


def _check(file: BinaryIO, path: str, max_bytes: int) -> None:
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode):
        raise InvalidInput(reason=f"{path} is no file")
    if status.st_size > max_bytes:
        raise TooLarge(what=path, limit=f"{max_bytes:,} bytes")
