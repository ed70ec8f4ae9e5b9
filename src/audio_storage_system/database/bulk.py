"""Many rows at once. PostgreSQL takes them as one stream in its binary format, several times as fast as statements,
which it and the driver read word by word; SQLite takes one statement with many values as fast as anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Column, Connection, Table, insert, text
from sqlalchemy.exc import DBAPIError

from audio_storage_system.errors import StorageFailed

# Fewer rows are written faster by a statement: a stream takes two more round trips.
LEAST_STREAMED = 8

_IDS = text(
    "SELECT array_agg(nextval(sequence.name)) FROM generate_series(1, :count),"
    " (SELECT CAST(pg_get_serial_sequence(:table, 'id') AS regclass) AS name OFFSET 0) sequence"
)
# The driver's names of types, where they are not SQLAlchemy's.
_NAMES = {"float": "float8"}


def insert_all(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """Insert these rows, which have the same columns and no ids; their new ids, in the order of the rows."""
    if not rows:
        return []
    if _streams(connection, rows):
        ids: list[int] = sorted(connection.execute(_IDS, {"table": table.name, "count": len(rows)}).scalar_one())
        _stream(connection, table, [{"id": id_, **row} for id_, row in zip(ids, rows, strict=True)])
        return ids
    statement = insert(table).returning(table.c.id, sort_by_parameter_order=True)
    return [int(id_) for id_ in connection.execute(statement, rows).scalars()]


def write(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert these rows, which have the same columns, ids among them or not."""
    if _streams(connection, rows):
        _stream(connection, table, rows)
    elif rows:
        connection.execute(insert(table), rows)


@contextmanager
def stream(connection: Connection, statement: str) -> Iterator[Any]:
    """The driver's own object for a `COPY … FROM STDIN`; it ends with the block. Its errors are SQLAlchemy's."""
    driver = connection.connection.driver_connection
    if driver is None:
        raise StorageFailed(reason="the connection was lost")
    try:
        with driver.cursor().copy(statement) as copy:
            yield copy
    except connection.dialect.loaded_dbapi.Error as error:  # what goes past SQLAlchemy, as it would hand it on
        raise DBAPIError(statement, None, error) from error


def _streams(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> bool:
    return connection.dialect.name == "postgresql" and len(rows) >= LEAST_STREAMED


def _stream(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    columns = [table.c[name] for name in rows[0]]
    quoted = connection.dialect.identifier_preparer.quote
    names, converters = ", ".join(quoted(column.name) for column in columns), _converters(connection, columns)
    with stream(connection, f"COPY {quoted(table.name)} ({names}) FROM STDIN (FORMAT BINARY)") as copy:
        copy.set_types([_type(connection, column) for column in columns])
        for row in rows:
            copy.write_row([convert(row[name]) if convert else row[name] for name, convert in converters])


def _converters(
    connection: Connection, columns: Sequence[Column[Any]]
) -> list[tuple[str, Callable[[Any], Any] | None]]:
    """What SQLAlchemy does to the values of each column before the driver gets them."""
    dialect = connection.dialect
    return [(column.name, column.type.dialect_impl(dialect).bind_processor(dialect)) for column in columns]


def _type(connection: Connection, column: Column[Any]) -> str:
    name = column.type.compile(connection.dialect).lower().partition("(")[0]
    return _NAMES.get(name, name)
