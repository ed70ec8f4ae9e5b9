"""Deleting recordings from an open archive: from the catalogue, the files, and then the vector index."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

from audio_storage_system import deletion
from audio_storage_system.archive import sidecars
from audio_storage_system.archive.opening import Archive
from audio_storage_system.catalogue import recordings
from audio_storage_system.clock import utc_now
from audio_storage_system.database.tables import audio_files
from audio_storage_system.deletion import Receipt
from audio_storage_system.errors import InvalidInput, NotFound


def remove(archive: Archive, audio_ids: Sequence[int]) -> list[Receipt]:
    """Remove these for good; what was removed. A vector database that cannot be reached forgets them when it follows
    again: until then the change log keeps what it has missed. Raises `NotFound`."""
    try:
        return [_remove_one(archive, int(audio_id)) for audio_id in audio_ids]
    finally:
        archive.follow()


def _remove_one(archive: Archive, audio_id: int) -> Receipt:
    return deletion.delete_recording(archive.database, archive.blobs, audio_id, sidecars.derived_keys, archive.audit)


def remove_older(archive: Archive, days_old: float) -> list[Receipt]:
    """Remove what was stored more than `days_old` days ago; what another process removes meanwhile is its own business.
    Raises `InvalidInput`."""
    try:
        before = utc_now() - timedelta(days=days_old)
    except (OverflowError, ValueError, TypeError) as error:
        raise InvalidInput(reason=f"{days_old!r} days ago is no time") from error
    if days_old < 0:
        raise InvalidInput(reason="days_old is not negative")
    with archive.database.read() as connection:
        old = recordings.select_where(connection, audio_files.c.created_at < before)
    receipts = []
    for recording in old:
        with suppress(NotFound):
            receipts.append(_remove_one(archive, recording.id))
    archive.follow()
    return receipts
