"""Parts of queries that every table needs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Column, ColumnElement, func, literal, select


def among(column: Column[Any], ids: Iterable[int | None]) -> ColumnElement[bool]:
    """`column` is one of `ids`, however many there are: they travel as one parameter."""
    given = func.json_each(literal(json.dumps([int(id_) for id_ in ids if id_ is not None]))).table_valued("value")
    return column.in_(select(given.c.value))
