"""Deletion: the only code that removes anything. It removes all of it and says what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, delete, insert, or_, select, update

from audio_storage_system import outbox
from audio_storage_system.audit import OFF, Audit
from audio_storage_system.blobs import BlobStore, StagedBlob
from audio_storage_system.catalogue import changes, data_keys, fulltext, holds, locks, recordings
from audio_storage_system.clock import utc_now
from audio_storage_system.database import Database, tables
from audio_storage_system.database.queries import within
from audio_storage_system.database.tables import (
    audio_files,
    backup_sets,
    embeddings,
    passages,
    removals,
    segments,
    tombstones,
    transcription_windows,
    transcripts,
)
from audio_storage_system.errors import NotFound
from audio_storage_system.outbox import Event
from audio_storage_system.records import Recording, Stage, jsonable

Keys = Callable[[str], list[str]]
Rows = list[tuple[Table, ColumnElement[bool]]]


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a deletion removed.

    rows: how many of each table, of the full text too. keys: the files. stage: what of the recording; rule: which
    retention rule said so. indexes: whether each vector index has forgotten it, or will (`pending`) when it can be
    reached. scrubbed: whether nothing of it is left in the database's own files either; where not, upkeep goes on.
    backups: the sets that still hold it, each with the time until when (`None`: until it is removed).
    """

    audio_id: int
    original_name: str
    file_hash: str
    deleted_at: datetime
    rows: dict[str, int]
    keys: list[str]
    stage: Stage = Stage.RECORDING
    rule: str | None = None
    indexes: dict[str, str] = field(default_factory=dict)
    scrubbed: bool = False
    backups: list[dict[str, Any]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        data: dict[str, Any] = jsonable(asdict(self))
        return data


def delete_recording(
    database: Database,
    blobs: BlobStore,
    audio_id: int,
    derived_keys: Keys,
    audit: Audit = OFF,
    *,
    rule: str | None = None,
    unfinished: bool = False,
) -> Receipt:
    """Remove a recording with everything made from it, in every place; a tombstone stays.

    The rows go first, in one transaction with a tombstone; then the files (`derived_keys` names those derived from a
    blob's key). What a crash leaves between the two, `complete_deletions` finishes. `audit` is told in the
    transaction. Raises `NotFound`, `UnderLegalHold`, and `StillRecording` unless one that is `unfinished` may go.
    """
    with database.write(*locks.of_deletion(audio_id)) as connection:
        recording = _removable(connection, audio_id, unfinished=unfinished)
        keys = [recording.file_path, *derived_keys(recording.file_path)]
        # While it can be asked who may see it. What was never told of is not told to be gone.
        listening = [] if unfinished else outbox.listening(connection, Event.DELETED, audio_id)
        rows = _delete_all(connection, audio_id) | {"data_keys": data_keys.forget(connection, keys)}
        receipt = _receipt(connection, recording, Stage.RECORDING, rule, rows, keys)
        _bury(connection, recording, receipt)
        _enter(connection, receipt, completed=True)  # its files are the tombstone's
        _note(connection, audit, "recording.deleted", receipt)
        outbox.forget(connection, audio_id)
        outbox.enter(connection, listening, Event.DELETED, audio_id, {})
    return replace(receipt, keys=_delete_files(database, blobs, audio_id, keys))


def delete_stage(
    database: Database,
    blobs: BlobStore,
    audio_id: int,
    stage: Stage,
    keys_of: Keys,
    audit: Audit = OFF,
    *,
    rule: str | None = None,
    at: datetime | None = None,
) -> Receipt:
    """Remove a part of a recording: its sound, what was said in it with the vectors of that, or all its vectors.
    `keys_of` names the files of that part by the blob's key; `at` is when that is to have been, if not now. Else as
    `delete_recording`."""
    with database.write(*locks.of_deletion(audio_id)) as connection:
        recording = _removable(connection, audio_id)
        keys = keys_of(recording.file_path)
        rows = _PARTS[stage](connection, audio_id) | {"data_keys": data_keys.forget(connection, keys)}
        if at is None:
            recordings.touch(connection, audio_id)
        receipt = _receipt(connection, recording, stage, rule, rows, keys)
        receipt = replace(receipt, deleted_at=at or receipt.deleted_at)
        number = _enter(connection, receipt, completed=False)
        _note(connection, audit, f"recording.{stage}_deleted", receipt)
    return replace(receipt, keys=_delete_part(database, blobs, number, keys))


def is_buried(connection: Connection, file_hash: str) -> bool:
    """Whether a recording with this hash was deleted."""
    return connection.execute(select(tombstones.c.id).where(tombstones.c.file_hash == file_hash)).first() is not None


def complete_deletions(database: Database, blobs: BlobStore) -> int:
    """Remove the files of deletions that a crash cut short; how many deletions there were."""
    with database.read() as connection:
        graves = connection.execute(
            select(tombstones.c.audio_id, tombstones.c.receipt).where(tombstones.c.completed.is_(False))
        ).all()
        parts = connection.execute(select(removals.c.id, removals.c.files).where(removals.c.completed.is_(False))).all()
    for audio_id, receipt in graves:
        _delete_files(database, blobs, audio_id, receipt["keys"])
    for number, keys in parts:
        _delete_part(database, blobs, number, keys)
    return len(graves) + len(parts)


def _removable(connection: Connection, audio_id: int, *, unfinished: bool = False) -> Recording:
    recording = recordings.get(connection, audio_id, trashed=True)
    if not unfinished:
        recordings.refuse_living(connection, audio_id)
    holds.refuse(connection, audio_id)
    return recording


# Files


def _delete_files(database: Database, blobs: BlobStore, audio_id: int, keys: Sequence[str]) -> list[str]:
    """Remove the files and note that it is done, under the lock of each: a key that another recording was given since
    then is that recording's, and stays. Those that were there."""
    mine = tombstones.c.audio_id == audio_id
    with database.write(*map(locks.of_blob, keys)) as connection:
        if not connection.execute(select(tombstones.c.id).where(mine, tombstones.c.completed.is_(False))).first():
            return []
        free = [key for key in keys if recordings.find_by_path(connection, key) is None]
        removed = [key for key in free if blobs.delete(key)]
        connection.execute(update(tombstones).where(mine).values(completed=True))
    return removed


def _delete_part(database: Database, blobs: BlobStore, number: int, keys: Sequence[str]) -> list[str]:
    """The same for a part: a blob goes if no recording has it, or one whose sound was removed."""
    mine = removals.c.id == number
    with database.write(*map(locks.of_blob, keys)) as connection:
        if not connection.execute(select(removals.c.id).where(mine, removals.c.completed.is_(False))).first():
            return []
        owners = {key: recordings.find_by_path(connection, key) for key in keys}
        free = [key for key, owner in owners.items() if owner is None or not recordings.has_audio(connection, owner)]
        removed = [key for key in free if blobs.delete(key)]
        connection.execute(update(removals).where(mine).values(completed=True))
    return removed


def withdraw_orphan(database: Database, blobs: BlobStore, key: str) -> bool:
    """Remove a blob that was copied elsewhere and that no recording has: under its lock, so that this stays true;
    whether it is gone."""
    try:
        staged = blobs.describe(key)
    except NotFound:
        return True
    with database.write(locks.of_blob(key)) as connection:
        return _remove_orphan(connection, blobs, key, staged)


def purge_orphan(database: Database, blobs: BlobStore, key: str) -> bool:
    """Remove a blob for good that was moved aside; whether it is gone. It stays where a recording has it or lacks just
    these bytes, and while any legal hold stands: whose it was nobody knows any more. Raises `NotFound`, and
    `SealBroken` where its bytes cannot be known."""
    staged = blobs.describe(key)
    if _is_missed(database, blobs, staged):
        return False
    with database.write(*locks.of_purge(key)) as connection:
        return not holds.standing(connection) and _remove_orphan(connection, blobs, key, staged)


def _remove_orphan(connection: Connection, blobs: BlobStore, key: str, staged: StagedBlob) -> bool:
    """With its data key, so that nobody can read it wherever copies are."""
    if recordings.find_by_path(connection, key) is not None:
        return False
    blobs.delete(key)
    data_keys.forget(connection, [key])
    data_keys.forget_unbound(connection, staged.blob_id)
    return True


def _is_missed(database: Database, blobs: BlobStore, staged: StagedBlob) -> bool:
    """Whether there is a recording of these bytes whose own blob is gone or damaged."""
    mine = (audio_files.c.file_hash == blobs.fingerprint(staged.sha256), audio_files.c.status == recordings.STORED)
    with database.read() as connection:
        paths = list(connection.execute(select(audio_files.c.file_path).where(*mine)).scalars())
    return not all(blobs.has(path) and blobs.describe(path).sha256 == staged.sha256 for path in paths)


# Rows


def _delete_all(connection: Connection, audio_id: int) -> dict[str, int]:
    """Remove every row of a recording; how many of each table."""
    changes.log(connection, audio_files, [audio_id], "delete")
    others = (tables.metadata, tables.metadata_history, tables.grants, tables.trash, tables.jobs)
    return (
        _delete_said(connection, audio_id, embeddings.c.audio_file_id == audio_id)
        | _delete_rows(connection, [(tables.annotations, tables.annotations.c.audio_file_id == audio_id)])
        | _delete_rows(connection, [(table, table.c.audio_file_id == audio_id) for table in others])
        | _delete_rows(connection, [(audio_files, audio_files.c.id == audio_id)])
    )


def _delete_audio(connection: Connection, audio_id: int) -> dict[str, int]:
    """Its sound: the row says so, and stays."""
    gone = update(audio_files).where(audio_files.c.id == audio_id).values(status=recordings.AUDIO_REMOVED)
    connection.execute(gone)
    return {}


def _delete_transcripts(connection: Connection, audio_id: int) -> dict[str, int]:
    """What was said, with its vectors; jobs know what was asked about it, and would say it again."""
    mine = embeddings.c.transcript_id.in_(_versions(audio_id))
    jobs = _delete_rows(connection, [(tables.jobs, tables.jobs.c.audio_file_id == audio_id)])
    return _delete_said(connection, audio_id, mine) | jobs


def _delete_embeddings(connection: Connection, audio_id: int) -> dict[str, int]:
    """Its vectors."""
    mine = embeddings.c.audio_file_id == audio_id
    _log_vectors(connection, mine)
    return _delete_rows(connection, [(embeddings, mine)])


_PARTS: dict[Stage, Callable[[Connection, int], dict[str, int]]] = {
    Stage.AUDIO: _delete_audio,
    Stage.TRANSCRIPT: _delete_transcripts,
    Stage.EMBEDDINGS: _delete_embeddings,
}


def _delete_said(connection: Connection, audio_id: int, vectors: ColumnElement[bool]) -> dict[str, int]:
    """Remove every version of what was said, and these vectors."""
    versions, ours = _versions(audio_id), passages.c.audio_file_id == audio_id
    said = list(connection.execute(select(passages.c.id).where(ours)).scalars())
    pieces = select(segments.c.id).where(segments.c.transcript_id.in_(versions))
    labels = or_(tables.annotations.c.transcript_id.in_(versions), tables.annotations.c.segment_id.in_(pieces))
    _log_vectors(connection, vectors)
    removed = _delete_rows(
        connection,
        [
            (tables.annotations, labels),
            (embeddings, vectors),
            (passages, ours),
            (segments, segments.c.transcript_id.in_(versions)),
            (transcription_windows, transcription_windows.c.transcript_id.in_(versions)),
            (transcripts, transcripts.c.audio_file_id == audio_id),
        ],
    )
    fulltext.remove(connection, said)
    return removed | {"full_text": len(said)}


def _versions(audio_id: int) -> Any:
    return select(transcripts.c.id).where(transcripts.c.audio_file_id == audio_id)


def _log_vectors(connection: Connection, condition: ColumnElement[bool]) -> None:
    vectors = connection.execute(select(embeddings.c.id).where(condition)).scalars().all()
    changes.log(connection, embeddings, vectors, "delete")


def _delete_rows(connection: Connection, rows: Rows) -> dict[str, int]:
    """Remove rows, children first; how many of each table."""
    return {table.name: connection.execute(delete(table).where(condition)).rowcount for table, condition in rows}


# What stays


def _receipt(
    connection: Connection,
    recording: Recording,
    stage: Stage,
    rule: str | None,
    rows: dict[str, int],
    keys: list[str],
) -> Receipt:
    about = (recording.id, recording.original_name, recording.file_hash, utc_now())
    return Receipt(*about, rows, keys, stage, rule, backups=_backups(connection, recording.created_at))


def _note(connection: Connection, audit: Audit, action: str, receipt: Receipt) -> None:
    details: dict[str, Any] = {"rule": receipt.rule} if receipt.rule else {}
    rows, files = sum(receipt.rows.values()), len(receipt.keys)
    audit.note(connection, action, receipt.audio_id, rows=rows, files=files, **details)


def _backups(connection: Connection, since: datetime) -> list[dict[str, Any]]:
    """The backup sets that may hold what was stored then, as far as the archive knows of them."""
    columns = (backup_sets.c.destination, backup_sets.c.set_id, backup_sets.c.taken_at, backup_sets.c.expires_at)
    kept = (backup_sets.c.removed_at.is_(None), backup_sets.c.taken_at >= since)
    rows = connection.execute(select(*columns).where(*kept).order_by(backup_sets.c.taken_at)).mappings()
    return [jsonable(dict(row)) for row in rows]


def _bury(connection: Connection, recording: Recording, receipt: Receipt) -> None:
    """Keep what proves that it is gone, and keeps it away: id, hash and key, and not what it was called."""
    told = {name: value for name, value in receipt.as_dict().items() if name != "original_name"}
    row = {
        "audio_id": recording.id,
        "file_hash": recording.file_hash,
        "file_path": recording.file_path,
        "deleted_at": receipt.deleted_at,
        "completed": False,
        "receipt": told,
    }
    connection.execute(insert(tombstones), row)


def _enter(connection: Connection, receipt: Receipt, *, completed: bool) -> int:
    row = {
        "audio_id": receipt.audio_id,
        "stage": receipt.stage.value,
        "rule": receipt.rule,
        "removed_at": receipt.deleted_at,
        "files": [] if completed else receipt.keys,
        "completed": completed,
        "scrubbed": False,
    }
    return int(connection.execute(insert(removals).returning(removals.c.id), row).scalar_one())


# What the database's own files still hold


def unscrubbed(connection: Connection) -> int | None:
    """The last deletion of which something may be left in the database's files; `None` where there is none."""
    last = select(removals.c.id).where(removals.c.scrubbed.is_(False)).order_by(removals.c.id.desc()).limit(1)
    return connection.execute(last).scalar()


def note_scrubbed(connection: Connection, last: int) -> None:
    """Nothing is left of any deletion up to this one."""
    mine = (removals.c.scrubbed.is_(False), removals.c.id <= last)
    ids = select(removals.c.id).where(*mine)
    connection.execute(update(removals).where(removals.c.id.in_(ids)).values(scrubbed=True))


def is_scrubbed(connection: Connection, audio_ids: Sequence[int]) -> set[int]:
    """Those of these recordings of whose deletions nothing is left."""
    open_ones = select(removals.c.audio_id).where(
        removals.c.scrubbed.is_(False), within(removals.c.audio_id, audio_ids)
    )
    return set(audio_ids) - set(connection.execute(open_ones).scalars())
