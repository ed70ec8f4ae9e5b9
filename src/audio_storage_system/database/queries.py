"""Parts of queries that every table needs, the same on every database."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    BindParameter,
    Column,
    ColumnElement,
    Connection,
    Select,
    Table,
    cast,
    column,
    insert,
    literal,
    select,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from audio_storage_system.database.types import Id


class json_items(FunctionElement[str]):
    """The items of a JSON list as rows of one column, `value`."""

    inherit_cache = True


@compiles(json_items, "sqlite")
def _on_sqlite(element: Any, compiler: Any, **options: Any) -> str:
    return f"json_each({compiler.process(element.clauses, **options)})"


@compiles(json_items, "postgresql")
def _on_postgresql(element: Any, compiler: Any, **options: Any) -> str:
    return f"json_array_elements_text(CAST({compiler.process(element.clauses, **options)} AS json))"


def listed(ids: BindParameter[str] | ColumnElement[str]) -> Select[int]:
    """The ids of a JSON list, one row each: however many there are, they travel as one parameter."""
    given = json_items(ids).table_valued(column("value", Id))
    return select(cast(given.c.value, Id))


def as_list(ids: Iterable[int | None]) -> str:
    """The parameter for `listed`."""
    return json.dumps([int(id_) for id_ in ids if id_ is not None])


def among(column: Column[Any], ids: Iterable[int | None]) -> ColumnElement[bool]:
    """`column` is one of `ids`, however many there are."""
    return column.in_(listed(literal(as_list(ids))))


def insert_all(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """Insert these rows, which have the same columns, in as few statements as the database takes; their new ids, in the
    order of the rows."""
    if not rows:
        return []
    statement = insert(table).returning(table.c.id, sort_by_parameter_order=True)
    return [int(id_) for id_ in connection.execute(statement, rows).scalars()]


def ids_in_order(connection: Connection) -> bool:
    """Whether rows become visible in the order of their ids: true where there is one writer at a time. On a server a
    lower id may be committed after a higher one."""
    return connection.dialect.name == "sqlite"
