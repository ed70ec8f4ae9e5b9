"""Values and conditions as they are written on a command line.

A value that looks like a number, `true`, `false`, or an ISO 8601 date or time is one; everything else is text, and so
is what stands in double quotes. Numbers with leading zeros or a plus (codes, telephone numbers) are text. Times without
a zone are UTC.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from audio_storage_system.errors import InvalidFilter, InvalidInput, InvalidMetadata
from audio_storage_system.records import MetadataValue

_INTEGER = re.compile(r"-?(0|[1-9]\d*)")
_REAL = re.compile(r"-?(0|[1-9]\d*)\.\d+([eE][+-]?\d+)?")
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}.*)?")
_COMPARISON = re.compile(r"\s*([^=<>]*[^=<>\s])\s*(>=|<=|>|<|=)(.*)", re.DOTALL)
_CHOICE = re.compile(r"\s*([^=<>]*[^=<>\s])\s+in\s+(.+)", re.DOTALL)
_NAMES = {"=": "eq", ">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}
MAX_DIGITS = 4000  # Python itself reads no longer integers


def parse_value(text: str) -> MetadataValue:
    """The value that `text` stands for."""
    text = text.strip()
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return text[1:-1]
    if text in ("true", "false"):
        return text == "true"
    if _INTEGER.fullmatch(text) and len(text) < MAX_DIGITS:
        return int(text)
    if _REAL.fullmatch(text):
        return float(text)
    return parse_time(text) or text


def parse_time(text: str) -> datetime | date | None:
    """An ISO 8601 date or time; `None` for anything else."""
    if not _TIME.fullmatch(text):
        return None
    try:
        if len(text) == len("2026-11-22"):
            return date.fromisoformat(text)
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def parse_instant(name: str, text: str | None) -> datetime | None:
    """The moment an option names; a date means its midnight, UTC. Raises `InvalidInput`."""
    if text is None:
        return None
    moment = parse_time(text.strip())
    if moment is None:
        raise InvalidInput(reason=f"{name} is no ISO 8601 time (2026-11-22 or 2026-11-22T12:00:00+01:00): {text!r}")
    return moment if isinstance(moment, datetime) else datetime(moment.year, moment.month, moment.day, tzinfo=UTC)


def parse_metadata(pairs: Iterable[str] | None) -> dict[str, MetadataValue]:
    """`["user=john", "session=1"]` as a mapping. Raises `InvalidMetadata`."""
    found: dict[str, MetadataValue] = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise InvalidMetadata(key=repr(pair), reason="write it as KEY=VALUE")
        found[key.strip()] = parse_value(value)
    return found


def parse_where(conditions: Iterable[str] | None) -> dict[str, Any]:
    """Conditions as the mapping that `where` takes. Several on one key must all hold. Raises `InvalidFilter`."""
    found: dict[str, dict[str, Any]] = {}
    for condition in conditions or ():
        key, wanted = _parse_condition(condition)
        operators = found.setdefault(key, {})
        if operators.keys() & wanted.keys():
            raise InvalidFilter(key=key, reason="the same comparison is given twice; for several values: KEY in A,B")
        operators.update(wanted)
    return {key: _plain(wanted) for key, wanted in found.items()}


def _parse_condition(condition: str) -> tuple[str, Mapping[str, Any]]:
    if match := _COMPARISON.fullmatch(condition):
        return match[1], {_NAMES[match[2]]: parse_value(match[3])}
    if match := _CHOICE.fullmatch(condition):
        return match[1], {"in": [parse_value(item) for item in _items(condition, match[2])]}
    key = condition.strip()
    if not key.strip("! ") or re.search(r"[=<>]", key):
        raise InvalidFilter(key=repr(condition), reason="write KEY=VALUE, KEY>=5, KEY in A,B, KEY or !KEY")
    return key.lstrip("! "), {"exists": not key.startswith("!")}


def _items(condition: str, text: str) -> list[str]:
    try:
        (items,) = csv.reader([text], skipinitialspace=True)
    except (csv.Error, ValueError) as error:
        raise InvalidFilter(key=repr(condition[:40]), reason="write a list as A,B") from error
    return items


def _plain(wanted: Mapping[str, Any]) -> Any:
    return wanted["eq"] if wanted.keys() == {"eq"} else dict(wanted)


def read_json(path: Path, max_bytes: int = 1 << 20) -> Any:
    """What is in a JSON file. Raises `InvalidInput`."""
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
        if len(data) > max_bytes:
            raise InvalidInput(reason=f"{path} is larger than {max_bytes:,} bytes")
        return json.loads(data)
    except OSError as error:
        raise InvalidInput(reason=f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidInput(reason=f"{path} is not JSON: {error}") from error
