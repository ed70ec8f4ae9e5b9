"""Recordings: the rows of `audio_files`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TypeAlias

from sqlalchemy import ColumnElement, Connection, RowMapping, and_, bindparam, insert, or_, select, update

from audio_storage_system.catalogue import changes, metadata, trash
from audio_storage_system.clock import utc_now
from audio_storage_system.database import tables
from audio_storage_system.database.queries import among, given
from audio_storage_system.database.tables import audio_files
from audio_storage_system.errors import InvalidInput, NotFound, StillRecording
from audio_storage_system.records import AudioInfo, Metadata, Recording

STORED = "stored"
RECORDING = "recording"  # its sound is still coming in: there is no blob yet, and the hash is `pending:…`
PENDING = "pending:"
# Whoever records gives a sign of life more often; without one the recording counts as given up.
SIGN_OF_LIFE = timedelta(seconds=60)
AUDIO_REMOVED = "audio_removed"  # its blob is gone, the rest is not
WARNING = "warning"
# Where a recording is in the order of listings: when it was recorded, and its id.
Place: TypeAlias = tuple[datetime, int]

_ADD = insert(audio_files).returning(audio_files.c.id)
_ONE = select(audio_files).where(audio_files.c.id == bindparam("one"))
_KEY = select(audio_files.c.file_path).where(audio_files.c.id == bindparam("one"))
_STATUS = select(audio_files.c.status).where(audio_files.c.id == bindparam("one"))
_NAMES = select(audio_files.c.original_name, audio_files.c.file_path).where(audio_files.c.id == bindparam("one"))
_DURATION = select(audio_files.c.duration).where(audio_files.c.id == bindparam("one"))
_BY_HASH = select(audio_files.c.id).where(
    audio_files.c.owner_id == bindparam("owner"), audio_files.c.file_hash == bindparam("hash")
)
_BY_PATH = select(audio_files.c.id).where(audio_files.c.file_path == bindparam("path"))
_BY_ID = select(audio_files).where(among(audio_files.c.id))
_WARNINGS = (
    select(tables.annotations.c.audio_file_id, tables.annotations.c.label)
    .where(among(tables.annotations.c.audio_file_id), tables.annotations.c.kind == WARNING)
    .order_by(tables.annotations.c.id)
)


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
    status: str = STORED,
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
        "status": status,
        "created_at": now,
        "updated_at": now,
    }
    audio_id = int(connection.execute(_ADD, row).scalar_one())
    metadata.add(connection, audio_id, values)
    warn(connection, audio_id, info.warnings)
    changes.log(connection, audio_files, [audio_id], "insert")
    return audio_id


def live_on(connection: Connection, audio_id: int, seconds: float) -> bool:
    """Note that so much of a recording is there by now, as a sign of life; false where it is no longer recorded."""
    values = {"duration": seconds, "updated_at": utc_now()}
    mine = (audio_files.c.id == audio_id, audio_files.c.status == RECORDING)
    return connection.execute(update(audio_files).where(*mine).values(values)).rowcount > 0


def complete(
    connection: Connection, audio_id: int, *, file_hash: str, file_path: str, file_size: int, info: AudioInfo
) -> None:
    """All of a recording is there, under this key. Raises `NotFound` where it is no longer recorded."""
    values = {
        "file_hash": file_hash,
        "file_path": file_path,
        "file_size": file_size,
        "duration": info.duration,
        "sample_rate": info.sample_rate,
        "channels": info.channels,
        "codec": info.codec,
        "media_type": info.media_type,
        "status": STORED,
    }
    mine = (audio_files.c.id == audio_id, audio_files.c.status == RECORDING)
    if not connection.execute(update(audio_files).where(*mine).values(values)).rowcount:
        raise NotFound(kind="recording in progress", id=audio_id)
    touch(connection, audio_id)


def refuse_unfinished(connection: Connection, audio_id: int) -> None:
    """Raise `StillRecording` for one whose sound is still coming in."""
    if connection.execute(_STATUS, {"one": audio_id}).scalar() == RECORDING:
        raise StillRecording(audio_id=audio_id)


def refuse_living(connection: Connection, audio_id: int) -> None:
    """Raise `StillRecording` for one whose sound is still coming in, unless whoever recorded it gives no sign of life:
    for what removes it."""
    living = (audio_files.c.status == RECORDING, audio_files.c.updated_at > utc_now() - SIGN_OF_LIFE)
    if connection.execute(select(audio_files.c.id).where(audio_files.c.id == audio_id, *living)).first() is not None:
        raise StillRecording(audio_id=audio_id)


def get(connection: Connection, audio_id: int, *, trashed: bool = False) -> Recording:
    """One recording; one in the trash only if it may be `trashed`. Raises `NotFound`, `InTrash`."""
    found = _recordings(connection, connection.execute(_ONE, {"one": audio_id}).mappings().all())
    if not found:
        raise NotFound(kind="recording", id=audio_id)
    if not trashed:
        trash.refuse(connection, audio_id)
    return found[0]


def key_of(connection: Connection, audio_id: int) -> str:
    """The key of a recording's blob. Raises `NotFound`."""
    key: str | None = connection.execute(_KEY, {"one": audio_id}).scalar()
    if key is None:
        raise NotFound(kind="recording", id=audio_id)
    return key


def has_audio(connection: Connection, audio_id: int) -> bool:
    """Whether a recording has its sound: it was not removed, and is not still coming in."""
    return connection.execute(_STATUS, {"one": audio_id}).scalar() == STORED


def names_of(connection: Connection, audio_id: int) -> tuple[str, str] | None:
    """The original name of a recording and the key of its blob; `None` where there is no such recording."""
    row = connection.execute(_NAMES, {"one": audio_id}).first()
    return None if row is None else (row.original_name, row.file_path)


def duration_of(connection: Connection, audio_id: int) -> float:
    """The length of a recording in seconds; 0 where it is not known."""
    return connection.execute(_DURATION, {"one": audio_id}).scalar() or 0.0


def exists(connection: Connection, audio_id: int) -> bool:
    """Whether there is such a recording."""
    return connection.execute(select(audio_files.c.id).where(audio_files.c.id == audio_id)).first() is not None


def must_exist(connection: Connection, audio_id: int) -> None:
    """Raise `NotFound` unless it is there: under its lock, before anything is written that belongs to it."""
    if not exists(connection, audio_id):
        raise NotFound(kind="recording", id=audio_id)


def find_by_hash(connection: Connection, owner_id: int, file_hash: str) -> int | None:
    """The id of the owner's recording with these bytes."""
    return connection.execute(_BY_HASH, {"owner": owner_id, "hash": file_hash}).scalar()


def find_by_path(connection: Connection, file_path: str) -> int | None:
    """The id of the recording whose blob has this key."""
    return connection.execute(_BY_PATH, {"path": file_path}).scalar()


def paths(connection: Connection) -> set[str]:
    """The key of every recording's blob."""
    return set(connection.execute(select(audio_files.c.file_path)).scalars())


def select_where(
    connection: Connection,
    *conditions: ColumnElement[bool],
    limit: int | None = None,
    offset: int = 0,
    after: Place | None = None,
) -> list[Recording]:
    """Recordings that meet the conditions, the latest recorded first, with their metadata; none from the trash. after:
    only those behind this place of the order. Raises `InvalidInput`."""
    if offset < 0 or (limit is not None and limit < 0):
        raise InvalidInput(reason="limit and offset are not negative")
    query = (
        select(audio_files)
        .where(*conditions, *([_behind(*after)] if after else []), trash.outside(audio_files.c.id))
        .order_by(audio_files.c.recorded_at.desc(), audio_files.c.id.desc())
        .limit(limit)
        .offset(offset)
    )
    return _recordings(connection, connection.execute(query).mappings().all())


def _behind(recorded_at: datetime, audio_id: int) -> ColumnElement[bool]:
    same = and_(audio_files.c.recorded_at == recorded_at, audio_files.c.id < audio_id)
    return or_(audio_files.c.recorded_at < recorded_at, same)


def _recordings(connection: Connection, rows: Sequence[RowMapping]) -> list[Recording]:
    ids = [row["id"] for row in rows]
    values, warnings = metadata.get_many(connection, ids), _warnings(connection, ids)
    return [Recording(**row, metadata=values[row["id"]], warnings=warnings.get(row["id"], ())) for row in rows]


def rename(connection: Connection, audio_id: int, original_name: str) -> None:
    """Give a recording another original name."""
    changed = {"original_name": original_name}
    connection.execute(update(audio_files).where(audio_files.c.id == audio_id).values(changed))
    touch(connection, audio_id)


def touch(connection: Connection, audio_id: int) -> None:
    """Note that something about the recording changed."""
    connection.execute(update(audio_files).where(audio_files.c.id == audio_id).values(updated_at=utc_now()))
    changes.log(connection, audio_files, [audio_id], "update")


def get_many(connection: Connection, audio_ids: Sequence[int]) -> Mapping[int, Recording]:
    """The recordings with these ids, by id."""
    rows = connection.execute(_BY_ID, given(audio_ids)).mappings().all()
    return {recording.id: recording for recording in _recordings(connection, rows)}


def warn(connection: Connection, audio_id: int, warnings: Sequence[str]) -> None:
    """Note what is wrong with a recording's file, each once."""
    if not warnings:
        return
    known = _warnings(connection, [audio_id]).get(audio_id, ())
    rows = [{"audio_file_id": audio_id, "kind": WARNING, "label": text} for text in warnings if text not in known]
    if rows:
        connection.execute(insert(tables.annotations), rows)


def _warnings(connection: Connection, audio_ids: Sequence[int]) -> dict[int, tuple[str, ...]]:
    found: dict[int, tuple[str, ...]] = {}
    for audio_id, text in connection.execute(_WARNINGS, given(audio_ids)):
        found[audio_id] = (*found.get(audio_id, ()), text)
    return found
