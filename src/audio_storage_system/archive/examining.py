"""What adding a file would do, without doing it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audio_storage_system.archive.opening import Archive
from audio_storage_system.audio import probe
from audio_storage_system.catalogue import recordings
from audio_storage_system.pipeline import opened_file, sha256_of


@dataclass(frozen=True, slots=True)
class Examined:
    """A file that could be added. `seconds` is `None` where only decoding can tell; `audio_id` is the recording that
    has its bytes already."""

    path: Path
    size: int
    file_hash: str
    seconds: float | None
    media_type: str
    audio_id: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {name: getattr(self, name) for name in self.__slots__} | {"path": str(self.path)}


def examine(archive: Archive | None, path: Path, max_bytes: int) -> Examined:
    """Read a file and look for its bytes in the archive, where there is one. Raises what storing it would raise:
    `NotAudio`, `TooLarge`, `InvalidInput`."""
    with opened_file(path, max_bytes) as file:
        info = probe(file, name=path.name)
        size, file_hash = path.stat().st_size, sha256_of(file)
    if archive:
        file_hash = archive.blobs.fingerprint(file_hash)
    known = _known(archive, file_hash) if archive else None
    return Examined(path, size, file_hash, info.duration, info.media_type, known)


def _known(archive: Archive, file_hash: str) -> int | None:
    with archive.database.read() as connection:
        return recordings.find_by_hash(connection, archive.owner_id, file_hash)
