"""Parts of queries that every table needs, the same on every database."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import (
    BindParameter,
    Column,
    ColumnElement,
    Connection,
    String,
    bindparam,
    cast,
    column,
    literal,
    select,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from audio_storage_system.database.types import Id

# From so many values on they travel as one parameter.
FEW = 100


class json_items(FunctionElement[str]):
    """The items of a JSON list as rows of one column, `value`."""

    inherit_cache = True


@compiles(json_items, "sqlite")
def _on_sqlite(element: Any, compiler: Any, **options: Any) -> str:
    return f"json_each({compiler.process(element.clauses, **options)})"


@compiles(json_items, "postgresql")
def _on_postgresql(element: Any, compiler: Any, **options: Any) -> str:
    return f"json_array_elements_text(CAST({compiler.process(element.clauses, **options)} AS json))"


def among(wanted: Column[Any]) -> ColumnElement[bool]:
    """`wanted` is one of the ids, however many, that `given` passes on execution as one parameter: so that statements
    are made once and used often, since making one takes longer than most answers."""
    return _in_list(wanted, bindparam("given", type_=String))


def within(wanted: Column[Any], ids: Iterable[int | None]) -> ColumnElement[bool]:
    """The same with the ids at hand, for statements that are made for one use."""
    return _in_list(wanted, literal(given(ids)["given"]))


def one_of(wanted: Column[Any], values: Sequence[str] | Sequence[float]) -> ColumnElement[bool]:
    """`wanted` is one of these texts or numbers: one of few as an index likes it best, of many as one parameter."""
    if len(values) <= FEW:
        return wanted.in_(values)
    items = json_items(literal(json.dumps(list(values)))).table_valued(column("value", String))
    return wanted.in_(select(cast(items.c.value, wanted.type)))


def _in_list(wanted: Column[Any], ids: BindParameter[str]) -> ColumnElement[bool]:
    return wanted.in_(select(_listed(ids)))


def _listed(ids: BindParameter[str]) -> ColumnElement[int]:
    items = json_items(ids).table_valued(column("value", Id))
    return cast(items.c.value, Id)


def each() -> ColumnElement[int]:
    """Every id that `given` passes on execution, one row each, in that order: to insert a row for each."""
    return _listed(bindparam("given", type_=String))


def given(ids: Iterable[int | None]) -> dict[str, str]:
    """The parameters of a statement with `among`."""
    return {"given": json.dumps([int(id_) for id_ in ids if id_ is not None])}


def ids_in_order(connection: Connection) -> bool:
    """Whether rows become visible in the order of their ids: true where there is one writer at a time. On a server a
    lower id may be committed after a higher one."""
    return connection.dialect.name == "sqlite"
