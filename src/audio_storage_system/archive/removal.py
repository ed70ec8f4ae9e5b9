"""Deleting recordings from an open archive: from the catalogue, the files, and then the vector index."""

from __future__ import annotations

from collections.abc import Sequence

from audio_storage_system import deletion
from audio_storage_system.archive import sidecars
from audio_storage_system.archive.opening import Archive
from audio_storage_system.deletion import Receipt


def remove(archive: Archive, audio_ids: Sequence[int]) -> list[Receipt]:
    """Remove these for good; what was removed. A vector database that cannot be reached forgets them when it follows
    again: until then the change log keeps what it has missed. Raises `NotFound`."""
    try:
        return [
            deletion.delete_recording(archive.database, archive.blobs, int(audio_id), sidecars.derived_keys)
            for audio_id in audio_ids
        ]
    finally:
        archive.follow()
