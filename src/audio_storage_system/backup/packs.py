"""Rows as text and back, exact to the last bit: one line of JSON for each, after one that names table and columns."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias

from sqlalchemy import Column, Float, LargeBinary, Table

from audio_storage_system.database.types import UtcDateTime

Row: TypeAlias = dict[str, Any]
Convert: TypeAlias = Callable[[Any], Any]

_dump = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def write_rows(table: Table, rows: Iterable[Sequence[Any]]) -> bytes:
    """Rows of a table, each with all of its columns in their order."""
    converts = [(number, _encoder(column)) for number, column in enumerate(table.columns)]
    some = [(number, convert) for number, convert in converts if convert is not None]

    def line(row: Sequence[Any]) -> str:
        values = list(row)
        for number, convert in some:
            if values[number] is not None:
                values[number] = convert(values[number])
        return _dump(values)

    return _joined(table.name, [column.name for column in table.columns], map(line, rows))


def write_plain(name: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """Rows of numbers and texts, of what is no table of the schema."""
    return _joined(name, columns, map(_dump, map(list, rows)))


def read_plain(payload: bytes, name: str, columns: Sequence[str]) -> list[Row]:
    """The reverse. Raises `ValueError` for anything else."""
    found, rows = _split(payload, name)
    if missing := set(columns) - set(found):
        raise ValueError(f"it lacks the columns {', '.join(sorted(missing))}")
    return [dict(zip(found, row, strict=True)) for row in rows]


def read_rows(payload: bytes, table: Table) -> list[Row]:
    """The rows of a pack. Raises `ValueError` for what is none of this table."""
    names, rows = _split(payload, table.name)
    if unknown := set(names) - set(table.c.keys()):
        raise ValueError(f"{table.name} has no column {', '.join(sorted(unknown))}")
    converts = [(name, _decoder(table.c[name])) for name in names]
    return [
        {name: _converted(convert, value) for (name, convert), value in zip(converts, row, strict=True)} for row in rows
    ]


def row_as_json(table: Table, row: Row) -> Row:
    """One row on its own, JSON-able."""
    converts = {column.name: _encoder(column) for column in table.columns}
    return {name: _converted(converts[name], value) for name, value in row.items()}


def row_of_json(table: Table, data: Row) -> Row:
    """The reverse. Raises `ValueError`, `KeyError`."""
    return {name: _converted(_decoder(table.c[name]), value) for name, value in data.items()}


def _converted(convert: Convert | None, value: Any) -> Any:
    return value if convert is None or value is None else convert(value)


def _joined(name: str, columns: Sequence[str], lines: Iterable[str]) -> bytes:
    head = _dump({"table": name, "columns": list(columns)})
    return "\n".join([head, *lines, ""]).encode("utf-8", "surrogatepass")


def _split(payload: bytes, name: str) -> tuple[list[str], list[list[Any]]]:
    head, *lines = payload.decode("utf-8", "surrogatepass").split("\n")
    described = json.loads(head)
    if described["table"] != name:
        raise ValueError(f"it holds rows of {described['table']}, not of {name}")
    return [str(column) for column in described["columns"]], [json.loads(line) for line in lines if line]


def _encoder(column: Column[Any]) -> Convert | None:
    if isinstance(column.type, UtcDateTime):
        return _moment
    if isinstance(column.type, LargeBinary):
        return lambda value: base64.b64encode(value).decode()
    if isinstance(column.type, Float):
        return lambda value: value if math.isfinite(value) else str(value)  # JSON has no word for these
    return None


def _decoder(column: Column[Any]) -> Convert | None:
    if isinstance(column.type, UtcDateTime):
        return datetime.fromisoformat
    if isinstance(column.type, LargeBinary):
        return lambda value: base64.b64decode(value, validate=True)
    if isinstance(column.type, Float):
        return float
    return None


def _moment(value: datetime) -> str:
    return value.astimezone(UTC).isoformat()
