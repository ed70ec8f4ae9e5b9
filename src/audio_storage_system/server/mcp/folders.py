"""The folders whose files a tool may read, and nothing outside of them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from audio_storage_system.errors import Forbidden, InvalidInput, NotFound, TooLarge

# A tool waits for what it transcribes; larger files are for `audio-storage add --background`.
MAX_FILE_BYTES = 1024**3


class Folders:
    """Files below these folders can be found, wherever links lead; nothing else can be told from the answers."""

    def __init__(self, folders: Sequence[Path], apart: Path | None = None) -> None:
        """apart: a folder that is no part of them, wherever it lies: the archive's own. Raises `InvalidInput`."""
        self._folders = [_folder(folder) for folder in folders]
        self._apart = None if apart is None else Path(os.path.realpath(apart))

    def __bool__(self) -> bool:
        return bool(self._folders)

    def find(self, path: str, max_bytes: int = MAX_FILE_BYTES) -> Path:
        """The file at `path` (absolute, or below one of the folders), with links resolved. Raises `Forbidden`,
        `NotFound`, `InvalidInput`, `TooLarge`."""
        within = [place for place in self._places(path) if self._holds(place)]
        if not within:
            raise Forbidden(principal="This server", action="read files outside of the folders named with --files")
        found = next((place for place in within if os.path.lexists(place)), None)
        if found is None:
            raise NotFound(f"There is no file {path}.")
        try:
            status = found.stat()
        except OSError as error:
            raise InvalidInput(reason=f"{path} cannot be read: {error.strerror}") from error
        if not stat.S_ISREG(status.st_mode):
            raise InvalidInput(reason=f"{path} is no file")
        if status.st_size > max_bytes:
            raise TooLarge(what=path, limit=f"{max_bytes:,} bytes")
        return found

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
