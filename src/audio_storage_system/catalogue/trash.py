"""The trash: recordings that nobody finds, and that can still be had back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Select, and_, bindparam, delete, exists, insert, or_, select

from audio_storage_system.database.tables import audio_files, passages, trash
from audio_storage_system.errors import InTrash
from audio_storage_system.records import jsonable

_ONE = select(trash.c.id).where(trash.c.audio_file_id == bindparam("one"))


@dataclass(frozen=True, slots=True)
class Trashed:
    """A recording in the trash, which goes for good after `purge_after`."""

    audio_id: int
    owner_id: int
    original_name: str
    duration: float | None
    trashed_by: int
    trashed_at: datetime
    purge_after: datetime

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {name: jsonable(getattr(self, name)) for name in self.__slots__}


def put(connection: Connection, audio_id: int, *, by: int, at: datetime, purge_after: datetime) -> None:
    """Throw a recording away that is not in the trash."""
    row = {"audio_file_id": audio_id, "trashed_by": by, "trashed_at": at, "purge_after": purge_after}
    connection.execute(insert(trash), row)


def take_out(connection: Connection, audio_id: int) -> bool:
    """Put a recording back; whether it was there."""
    return connection.execute(delete(trash).where(trash.c.audio_file_id == audio_id)).rowcount > 0


def has(connection: Connection, audio_id: int) -> bool:
    """Whether a recording is in the trash."""
    return connection.execute(_ONE, {"one": audio_id}).first() is not None


def refuse(connection: Connection, audio_id: int) -> None:
    """Raise `InTrash` for a recording that is there."""
    if has(connection, audio_id):
        raise InTrash(kind="recording", id=audio_id, audio_id=audio_id)


def ids() -> Select[Any]:
    """The recordings in the trash."""
    return select(trash.c.audio_file_id.label("id"))


def hiding(connection: Connection, audio_id: Column[int]) -> list[ColumnElement[bool]]:
    """What leaves out the recordings in the trash; nothing where it is empty, so that it costs nothing then."""
    return [outside(audio_id)] if connection.execute(ids().limit(1)).first() else []


def passage_ids() -> Select[Any]:
    """The passages of the recordings in the trash, of all their versions."""
    return select(passages.c.id).join(trash, trash.c.audio_file_id == passages.c.audio_file_id)


def outside(audio_id: Column[int]) -> ColumnElement[bool]:
    """The recording that a column names is not in the trash."""
    return ~exists().where(trash.c.audio_file_id == audio_id)


def behind(trashed_at: datetime, audio_id: int) -> ColumnElement[bool]:
    """What comes after this in the order of `entries`."""
    same = and_(trash.c.trashed_at == trashed_at, trash.c.audio_file_id < audio_id)
    return or_(trash.c.trashed_at < trashed_at, same)


def entries(connection: Connection, *conditions: ColumnElement[bool], limit: int | None = None) -> list[Trashed]:
    """What is in the trash, the latest first."""
    columns = (
        trash.c.audio_file_id.label("audio_id"),
        audio_files.c.owner_id,
        audio_files.c.original_name,
        audio_files.c.duration,
        trash.c.trashed_by,
        trash.c.trashed_at,
        trash.c.purge_after,
    )
    query = select(*columns).join_from(trash, audio_files).where(*conditions)
    query = query.order_by(trash.c.trashed_at.desc(), trash.c.audio_file_id.desc()).limit(limit)
    return [Trashed(**row) for row in connection.execute(query).mappings()]


def due(connection: Connection, now: datetime) -> Sequence[int]:
    """The recordings whose time in the trash is over, the oldest first."""
    query = select(trash.c.audio_file_id).where(trash.c.purge_after < now).order_by(trash.c.id)
    return list(connection.execute(query).scalars())
