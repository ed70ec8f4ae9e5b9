"""Reading the change log, and how far each index has read it.

A position in the log is a `Cursor`. On SQLite, where one transaction writes at a time, it is the id of the last change
read. On PostgreSQL ids are drawn before transactions commit, so a reader that only noted an id would lose whoever
commits late: there the log is ordered by (transaction, id), and read only up to the oldest transaction still running.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    cast,
    delete,
    func,
    insert,
    literal,
    select,
    text,
    tuple_,
    update,
)

from audio_storage_system.database.tables import change_log, embeddings, index_cursors
from audio_storage_system.database.types import Id, TransactionId
from audio_storage_system.records import Space

SQLITE_END = text("SELECT 0, coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'change_log'), 0)")
POSTGRESQL_END = text(
    "SELECT CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS bigint) - 1,"
    " coalesce(pg_sequence_last_value(pg_get_serial_sequence('change_log', 'id')::regclass), 0)"
)


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """A position in the log: everything up to and including it has been read."""

    xid: int
    id: int


class Changes(NamedTuple):
    """Which embeddings changed, of any space; `upto` is the position behind the last of them."""

    embedding_ids: list[int]
    upto: Cursor


class _Reading(NamedTuple):
    """How the log is read on one kind of database: the columns of its order, and the end of what can be read."""

    columns: tuple[Column[Any], ...]
    end: Cursor

    @property
    def gapless(self) -> bool:
        """Whether ids follow one another without gaps: then nothing else is needed to order them."""
        return len(self.columns) == 1

    def beyond(self, cursor: Cursor) -> ColumnElement[bool]:
        """The changes behind this position."""
        return tuple_(*self.columns) > tuple_(*self._place(cursor))

    def upto(self, cursor: Cursor) -> ColumnElement[bool]:
        """The changes before and at this position."""
        return tuple_(*self.columns) <= tuple_(*self._place(cursor))

    def cursor(self, row: Sequence[Any]) -> Cursor:
        """The position of a change, given the columns."""
        return Cursor(*([0, *row] if self.gapless else row))

    def _place(self, cursor: Cursor) -> list[ColumnElement[int]]:
        id_ = literal(cursor.id, Id)
        return [id_] if self.gapless else [cast(literal(cursor.xid, TransactionId), TransactionId), id_]


def _reading(connection: Connection) -> _Reading:
    """The one place where the databases differ."""
    if connection.dialect.name == "postgresql":
        return _Reading((change_log.c.xid, change_log.c.id), Cursor(*connection.execute(POSTGRESQL_END).one()))
    return _Reading((change_log.c.id,), Cursor(*connection.execute(SQLITE_END).one()))


def end(connection: Connection) -> Cursor:
    """The position behind everything that can be read now. Nothing will ever be logged at or before it."""
    return _reading(connection).end


def changed(connection: Connection, after: Cursor, limit: int) -> Changes:
    """The embeddings whose change was logged behind `after`, in order, `limit` changes at most."""
    reading = _reading(connection)
    rows = connection.execute(
        select(change_log.c.row_id, *reading.columns)
        .where(change_log.c.table_name == embeddings.name, reading.beyond(after), reading.upto(reading.end))
        .order_by(*reading.columns)
        .limit(limit)
    ).all()
    upto = reading.cursor(rows[-1][1:]) if len(rows) == limit else reading.end
    return Changes(list(dict.fromkeys(row.row_id for row in rows)), upto)


def added(connection: Connection, space: Space, after: Cursor) -> list[int]:
    """The embeddings of `space` that exist and were logged behind `after`, committed by anyone whom this connection
    sees, ascending."""
    query = (
        select(embeddings.c.id)
        .join(change_log, change_log.c.row_id == embeddings.c.id)
        .where(change_log.c.table_name == embeddings.name, _reading(connection).beyond(after))
        .where(embeddings.c.space_id == space.id)
        .distinct()
    )
    return sorted(connection.execute(query).scalars())


def reaches(connection: Connection, cursor: Cursor) -> bool:
    """Whether every change behind `cursor` is still in the log, and `cursor` is not beyond its end.

    It may say no where nothing is missing, never the other way round: the index is then made anew for nothing.
    """
    reading = _reading(connection)
    if cursor > reading.end:
        return False
    oldest = connection.execute(select(*reading.columns).order_by(*reading.columns).limit(1)).first()
    if oldest is None:
        return cursor.id == reading.end.id
    first = reading.cursor(oldest)
    return Cursor(first.xid, first.id - 1 if reading.gapless else first.id) <= cursor


def cursors(connection: Connection, space: Space, prefix: str) -> dict[str, Cursor]:
    """The cursors of this space whose index name begins with `prefix`, by the rest of their names."""
    rows = connection.execute(select(index_cursors).where(index_cursors.c.space_id == space.id)).mappings()
    return {
        row["index_name"].removeprefix(prefix): Cursor(row["xid"] or 0, row["position"])
        for row in rows
        if row["index_name"].startswith(prefix)
    }


def put(connection: Connection, space: Space, name: str, cursor: Cursor) -> None:
    """Set the cursor of an index, whether it has one or not."""
    connection.execute(delete(index_cursors).where(*_is(space, name)))
    connection.execute(insert(index_cursors).values(index_name=name, space_id=space.id, **_columns(cursor)))


def move(connection: Connection, space: Space, name: str, was: Cursor, now: Cursor) -> bool:
    """Move a cursor on, unless another process has; whether it did."""
    where = [index_cursors.c[key] == value for key, value in _columns(was).items()]
    moved = connection.execute(update(index_cursors).where(*_is(space, name), *where).values(**_columns(now)))
    return moved.rowcount == 1


def forget(connection: Connection, space: Space, names: Iterable[str]) -> None:
    """Remove these cursors."""
    for name in names:
        connection.execute(delete(index_cursors).where(*_is(space, name)))


def forgetting(connection: Connection) -> dict[str, bool]:
    """Each index that follows the log, by its address, and whether it still has to read of vectors deleted."""
    reading, found = _reading(connection), dict[str, bool]()
    followed = ~index_cursors.c.index_name.endswith("+")  # those say how far a first filling is, see `standing`
    for row in connection.execute(select(index_cursors).where(followed)).mappings():
        unread = reading.beyond(Cursor(row["xid"] or 0, row["position"]))
        gone = (change_log.c.table_name == embeddings.name, change_log.c.op == "delete", unread)
        behind = connection.execute(select(change_log.c.id).where(*gone).limit(1)).first() is not None
        address = row["index_name"].partition("#")[0]
        address = "sqlite" if address.startswith("codes/") else address
        found[address] = found.get(address, False) or behind
    return found


def prune(connection: Connection) -> int:
    """Delete what every index has read; how many rows. Nothing is deleted while no index follows the log."""
    reading = _reading(connection)
    slowest = _slowest(connection)
    if slowest is None:
        return 0
    read = reading.upto(slowest)
    if not reading.gapless:  # the newest change that all have read stays: `reaches` tells by it that none is missing
        newest = select(change_log.c.id).where(read).order_by(*(c.desc() for c in reading.columns)).limit(1)
        read = read & (change_log.c.id != func.coalesce(newest.scalar_subquery(), 0))
    pruned: int = connection.execute(delete(change_log).where(read)).rowcount
    return pruned


def _slowest(connection: Connection) -> Cursor | None:
    rows: Sequence[Any] = connection.execute(select(index_cursors)).mappings().all()
    return min((Cursor(row["xid"] or 0, row["position"]) for row in rows), default=None)


def _is(space: Space, name: str) -> tuple[ColumnElement[bool], ...]:
    return index_cursors.c.index_name == name, index_cursors.c.space_id == space.id


def _columns(cursor: Cursor) -> dict[str, int]:
    return {"position": cursor.id, "xid": cursor.xid}
