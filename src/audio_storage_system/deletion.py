"""Deletion: the only code that removes anything. It removes all of it and says what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, insert, select, update

from audio_storage_system.audit import OFF, Audit
from audio_storage_system.blobs import BlobStore
from audio_storage_system.catalogue import changes, data_keys, fulltext, locks, recordings
from audio_storage_system.clock import utc_now
from audio_storage_system.database import Database, tables
from audio_storage_system.database.tables import (
    audio_files,
    embeddings,
    passages,
    segments,
    tombstones,
    transcription_windows,
    transcripts,
)
from audio_storage_system.records import Recording, jsonable


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a deletion removed: rows by table, and the keys of the files."""

    audio_id: int
    original_name: str
    file_hash: str
    deleted_at: datetime
    rows: dict[str, int]
    keys: list[str]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        data: dict[str, Any] = jsonable(asdict(self))
        return data


def delete_recording(
    database: Database, blobs: BlobStore, audio_id: int, derived_keys: Callable[[str], list[str]], audit: Audit = OFF
) -> Receipt:
    """Remove a recording with everything made from it, in every place; a receipt stays.

    The rows go first, in one transaction with a tombstone; then the files (`derived_keys` names those derived from a
    blob's key). What a crash leaves between the two, `complete_deletions` finishes. Raises `NotFound`.
    """
    with database.write(*locks.of_deletion(audio_id)) as connection:
        recording = recordings.get(connection, audio_id)
        keys = [recording.file_path, *derived_keys(recording.file_path)]
        rows = _delete_rows(connection, audio_id) | {"data_keys": data_keys.forget(connection, keys)}
        receipt = _receipt(recording, rows, keys)
        _bury(connection, recording, receipt)
        audit.note(connection, "recording.deleted", audio_id, rows=sum(receipt.rows.values()), files=len(keys))
    _delete_files(database, blobs, audio_id, keys)
    return receipt


def complete_deletions(database: Database, blobs: BlobStore) -> int:
    """Remove the files of deletions that a crash cut short; how many deletions there were."""
    with database.read() as connection:
        open_ones = connection.execute(
            select(tombstones.c.audio_id, tombstones.c.receipt).where(tombstones.c.completed.is_(False))
        ).all()
    for audio_id, receipt in open_ones:
        _delete_files(database, blobs, audio_id, receipt["keys"])
    return len(open_ones)


def _delete_files(database: Database, blobs: BlobStore, audio_id: int, keys: list[str]) -> None:
    """Remove the files and note that it is done, under the lock of each: a key that another recording was given since
    then is that recording's, and stays."""
    mine = tombstones.c.audio_id == audio_id
    with database.write(*map(locks.of_blob, keys)) as connection:
        if not connection.execute(select(tombstones.c.id).where(mine, tombstones.c.completed.is_(False))).first():
            return
        for key in keys:
            if recordings.find_by_path(connection, key) is None:
                blobs.delete(key)
        connection.execute(update(tombstones).where(mine).values(completed=True))


def _delete_rows(connection: Connection, audio_id: int) -> dict[str, int]:
    """Remove the rows, children first; how many of each table."""
    versions = select(transcripts.c.id).where(transcripts.c.audio_file_id == audio_id)
    ours = passages.c.audio_file_id == audio_id
    said = list(connection.execute(select(passages.c.id).where(ours)).scalars())
    vectors = connection.execute(select(embeddings.c.id).where(embeddings.c.audio_file_id == audio_id)).scalars().all()
    changes.log(connection, embeddings, vectors, "delete")
    changes.log(connection, audio_files, [audio_id], "delete")
    conditions: list[ColumnElement[bool]] = [
        tables.annotations.c.audio_file_id == audio_id,
        embeddings.c.audio_file_id == audio_id,
        ours,
        segments.c.transcript_id.in_(versions),
        transcription_windows.c.transcript_id.in_(versions),
        transcripts.c.audio_file_id == audio_id,
        tables.metadata.c.audio_file_id == audio_id,
        tables.metadata_history.c.audio_file_id == audio_id,
        tables.grants.c.audio_file_id == audio_id,
        tables.trash.c.audio_file_id == audio_id,
        tables.jobs.c.audio_file_id == audio_id,
        audio_files.c.id == audio_id,
    ]
    order = (
        tables.annotations,
        embeddings,
        passages,
        segments,
        transcription_windows,
        transcripts,
        tables.metadata,
        tables.metadata_history,
        tables.grants,
        tables.trash,
        tables.jobs,
        audio_files,
    )
    removed = {
        table.name: connection.execute(delete(table).where(condition)).rowcount
        for table, condition in zip(order, conditions, strict=True)
    }
    fulltext.remove(connection, said)
    return removed


def _receipt(recording: Recording, rows: dict[str, int], keys: list[str]) -> Receipt:
    return Receipt(recording.id, recording.original_name, recording.file_hash, utc_now(), rows, keys)


def _bury(connection: Connection, recording: Recording, receipt: Receipt) -> None:
    row = {
        "audio_id": recording.id,
        "file_hash": recording.file_hash,
        "file_path": recording.file_path,
        "deleted_at": receipt.deleted_at,
        "completed": False,
        "receipt": receipt.as_dict(),
    }
    connection.execute(insert(tombstones), row)
