"""Recordings: the rows of `audio_files`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, insert, select, update

from audio_storage_system.catalogue import changes, metadata
from audio_storage_system.clock import utc_now
from audio_storage_system.database import tables
from audio_storage_system.database.queries import among
from audio_storage_system.database.tables import audio_files
from audio_storage_system.errors import NotFound
from audio_storage_system.records import AudioInfo, Metadata, Recording

STORED = "stored"
WARNING = "warning"


def add(
    connection: Connection,
    *,
    owner_id: int,
    file_hash: str,
    file_path: str,
    file_size: int,
    original_name: str,
    info: AudioInfo,
    recorded_at: datetime,
    offset_minutes: int | None,
    values: Metadata,
) -> int:
    """A new recording with its metadata; its id."""
    now = utc_now()
    row = {
        "owner_id": owner_id,
        "file_hash": file_hash,
        "file_path": file_path,
        "file_size": file_size,
        "original_name": original_name,
        "duration": info.duration,
        "sample_rate": info.sample_rate,
        "channels": info.channels,
        "codec": info.codec,
        "media_type": info.media_type,
        "recorded_at": recorded_at,
        "recorded_offset_minutes": offset_minutes,
        "status": STORED,
        "created_at": now,
        "updated_at": now,
    }
    audio_id = int(connection.execute(insert(audio_files).returning(audio_files.c.id), row).scalar_one())
    metadata.put(connection, audio_id, values)
    warn(connection, audio_id, info.warnings)
    changes.log(connection, audio_files, [audio_id], "insert")
    return audio_id


def get(connection: Connection, audio_id: int) -> Recording:
    """One recording. Raises `NotFound`."""
    found = select_where(connection, audio_files.c.id == audio_id)
    if not found:
        raise NotFound(kind="recording", id=audio_id)
    return found[0]


def exists(connection: Connection, audio_id: int) -> bool:
    """Whether there is such a recording."""
    return connection.execute(select(audio_files.c.id).where(audio_files.c.id == audio_id)).first() is not None


def must_exist(connection: Connection, audio_id: int) -> None:
    """Raise `NotFound` unless it is there: under its lock, before anything is written that belongs to it."""
    if not exists(connection, audio_id):
        raise NotFound(kind="recording", id=audio_id)


def find_by_hash(connection: Connection, owner_id: int, file_hash: str) -> int | None:
    """The id of the owner's recording with these bytes."""
    query = select(audio_files.c.id).where(audio_files.c.owner_id == owner_id, audio_files.c.file_hash == file_hash)
    return connection.execute(query).scalar()


def find_by_path(connection: Connection, file_path: str) -> int | None:
    """The id of the recording whose blob has this key."""
    return connection.execute(select(audio_files.c.id).where(audio_files.c.file_path == file_path)).scalar()


def paths(connection: Connection) -> set[str]:
    """The key of every recording's blob."""
    return set(connection.execute(select(audio_files.c.file_path)).scalars())


def select_where(
    connection: Connection, *conditions: ColumnElement[bool], limit: int | None = None, offset: int = 0
) -> list[Recording]:
    """Recordings that meet the conditions, the latest recorded first, with their metadata."""
    query = (
        select(audio_files)
        .where(*conditions)
        .order_by(audio_files.c.recorded_at.desc(), audio_files.c.id.desc())
        .limit(limit)
        .offset(offset)
    )
    rows = connection.execute(query).mappings().all()
    ids = [row["id"] for row in rows]
    values, warnings = metadata.get_many(connection, ids), _warnings(connection, ids)
    return [Recording(**row, metadata=values[row["id"]], warnings=warnings.get(row["id"], ())) for row in rows]


def touch(connection: Connection, audio_id: int) -> None:
    """Note that something about the recording changed."""
    connection.execute(update(audio_files).where(audio_files.c.id == audio_id).values(updated_at=utc_now()))
    changes.log(connection, audio_files, [audio_id], "update")


def get_many(connection: Connection, audio_ids: Sequence[int]) -> Mapping[int, Recording]:
    """The recordings with these ids, by id."""
    return {recording.id: recording for recording in select_where(connection, among(audio_files.c.id, audio_ids))}


def warn(connection: Connection, audio_id: int, warnings: Sequence[str]) -> None:
    """Note what is wrong with a recording's file, each once."""
    if not warnings:
        return
    known = _warnings(connection, [audio_id]).get(audio_id, ())
    rows = [{"audio_file_id": audio_id, "kind": WARNING, "label": text} for text in warnings if text not in known]
    if rows:
        connection.execute(insert(tables.annotations), rows)


def _warnings(connection: Connection, audio_ids: Sequence[int]) -> dict[int, tuple[str, ...]]:
    table = tables.annotations
    query = (
        select(table.c.audio_file_id, table.c.label)
        .where(among(table.c.audio_file_id, audio_ids), table.c.kind == WARNING)
        .order_by(table.c.id)
    )
    found: dict[int, tuple[str, ...]] = {}
    for audio_id, text in connection.execute(query):
        found[audio_id] = (*found.get(audio_id, ()), text)
    return found
