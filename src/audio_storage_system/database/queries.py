"""Parts of queries that every table needs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Column, ColumnElement, bindparam, func, select


def among(column: Column[Any]) -> ColumnElement[bool]:
    """`column` is one of the ids, however many, that `given` passes on execution as one parameter: so that statements
    are made once and used often, since making one takes longer than most answers."""
    ids = func.json_each(bindparam("given")).table_valued("value")
    return column.in_(select(ids.c.value))


def given(ids: Iterable[int | None]) -> dict[str, str]:
    """The parameters of a statement with `among`."""
    return {"given": json.dumps([int(id_) for id_ in ids if id_ is not None])}
