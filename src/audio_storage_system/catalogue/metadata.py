"""Metadata: keys and values that users attach to a recording."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, insert, select

from audio_storage_system.catalogue import history
from audio_storage_system.catalogue.history import MetadataChange
from audio_storage_system.database import tables
from audio_storage_system.database.queries import among, given
from audio_storage_system.errors import InvalidMetadata
from audio_storage_system.records import Metadata

MAX_KEY_CHARACTERS = 255
MAX_VALUE_CHARACTERS = 1_000_000

_OF_RECORDINGS = (
    select(*(tables.metadata.c[name] for name in ("audio_file_id", "key", "value", "value_type")))
    .where(among(tables.metadata.c.audio_file_id))
    .order_by(tables.metadata.c.id)
)


class Encoded(NamedTuple):
    """A value as the table keeps it: plain text, its type, and a number where ranges make sense."""

    value: str | None
    value_type: str
    value_number: float | None


def encode(key: str, value: object) -> Encoded:
    """How `value` is kept. Raises `InvalidMetadata` for keys and values that have no plain form."""
    _check_key(key)
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()  # a numpy scalar
    encoded = _encode(key, value)
    _check_text(key, encoded.value or "")
    return encoded


def _encode(key: str, value: object) -> Encoded:
    if value is None:
        return Encoded(None, "null", None)
    if isinstance(value, bool):
        return Encoded(str(value).lower(), "boolean", None)
    if isinstance(value, int):
        return _encode_integer(key, value)
    if isinstance(value, float):
        return _encode_float(key, value)
    if isinstance(value, str):
        return Encoded(value, "text", None)
    if isinstance(value, datetime):
        return _encode_instant(key, value)
    if isinstance(value, date):
        midnight = datetime(value.year, value.month, value.day, tzinfo=UTC)
        return Encoded(value.isoformat(), "date", midnight.timestamp())
    if isinstance(value, list | tuple | dict):
        return _encode_json(key, value)
    raise InvalidMetadata(key=repr(key), reason=f"values of type {type(value).__name__} have no plain form")


def _encode_float(key: str, value: float) -> Encoded:
    if not math.isfinite(value):
        raise InvalidMetadata(key=repr(key), reason=f"{value} is not a number that can be compared")
    return Encoded(repr(value), "real", value)


def _encode_instant(key: str, value: datetime) -> Encoded:
    if value.tzinfo is None:
        raise InvalidMetadata(key=repr(key), reason=f"the time {value} has no time zone")
    return Encoded(value.isoformat(), "datetime", value.timestamp())


def _encode_json(key: str, value: object) -> Encoded:
    try:
        return Encoded(json.dumps(value, ensure_ascii=False, allow_nan=False), "json", None)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidMetadata(key=repr(key), reason=f"it is not JSON: {error}") from error


def _encode_integer(key: str, value: int) -> Encoded:
    try:
        return Encoded(str(value), "integer", float(value))
    except OverflowError:  # kept as text, found by equality only
        return Encoded(str(value), "integer", None)
    except ValueError as error:
        raise InvalidMetadata(key=repr(key), reason="it has too many digits") from error


def _check_key(key: object) -> None:
    if not isinstance(key, str) or not key.strip():
        raise InvalidMetadata(key=repr(key), reason="a key is text that is not empty")
    if len(key) > MAX_KEY_CHARACTERS:
        raise InvalidMetadata(key=repr(key[:40] + "…"), reason=f"a key has at most {MAX_KEY_CHARACTERS} characters")
    _check_text(key, key)


def _check_text(key: str, text: str) -> None:
    if len(text) > MAX_VALUE_CHARACTERS:
        raise InvalidMetadata(key=repr(key), reason=f"a value has at most {MAX_VALUE_CHARACTERS:,} characters")
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidMetadata(key=repr(key), reason="it has characters that are not text")


_DECODERS: dict[str, Callable[[str], Any]] = {
    "boolean": lambda text: text == "true",
    "integer": int,
    "real": float,
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "json": json.loads,
}


def decode(value: str | None, value_type: str) -> Any:
    """The value that was given; one that was damaged since as it reads, so that its recording can still be had."""
    decoder = _DECODERS.get(value_type)
    if decoder is None or value is None:
        return value
    try:
        return decoder(value)
    except (ValueError, RecursionError):
        return value


def validate(values: object) -> None:
    """Raise `InvalidMetadata` unless `put` would take these values."""
    if not isinstance(values, Mapping):
        raise InvalidMetadata(key="as a whole", reason=f"expected a mapping, got {type(values).__name__}")
    for key, value in values.items():
        encode(key, value)


def put(connection: Connection, audio_id: int, values: Metadata, by: int) -> list[str]:
    """Set these keys, replacing what they had; those that this changed, which the history tells from now on as done
    `by` this principal. Raises `InvalidMetadata`."""
    validate(values)
    new = {key: encode(key, value) for key, value in values.items()}
    present = _rows(connection, audio_id, new)
    changed = {key: present.get(key) for key, value in new.items() if present.get(key) != value[:2]}
    _delete(connection, audio_id, changed)
    add(connection, audio_id, {key: values[key] for key in changed})
    history.enter(connection, audio_id, changed, None, by)
    return list(changed)


def add(connection: Connection, audio_id: int, values: Metadata) -> None:
    """Set these keys, of which the recording has none yet. Raises `InvalidMetadata`."""
    validate(values)
    rows = [{"audio_file_id": audio_id, "key": k, **encode(k, v)._asdict()} for k, v in values.items()]
    if rows:
        connection.execute(insert(tables.metadata), rows)


def remove(connection: Connection, audio_id: int, keys: Iterable[str], by: int) -> list[str]:
    """Take these keys away; those that were there, see `put`. Absent ones are no error."""
    present = _rows(connection, audio_id, list(keys))
    _delete(connection, audio_id, present)
    history.enter(connection, audio_id, present, "remove", by)
    return list(present)


def changes(
    connection: Connection, audio_id: int, key: str | None = None, *, after: int = 0, limit: int | None = None
) -> list[MetadataChange]:
    """What was changed since the recording was stored, the oldest first: at most `limit`, behind the one `after`."""
    return [
        MetadataChange(
            row.id,
            row.key,
            row.op,
            None if row.old_type is None else decode(row.old_value, row.old_type),
            row.changed_at,
            row.principal_id,
            row.name,
        )
        for row in history.rows_of(connection, audio_id, key, after=after, limit=limit)
    ]


def _rows(connection: Connection, audio_id: int, keys: Iterable[str]) -> dict[str, tuple[str | None, str]]:
    """What these keys have, as it is kept."""
    table = tables.metadata
    query = select(table.c.key, table.c.value, table.c.value_type).where(
        table.c.audio_file_id == audio_id, table.c.key.in_(list(keys))
    )
    return {key: (value, value_type) for key, value, value_type in connection.execute(query.order_by(table.c.id))}


def _delete(connection: Connection, audio_id: int, keys: Iterable[str]) -> None:
    table = tables.metadata
    if wanted := list(keys):
        connection.execute(delete(table).where(table.c.audio_file_id == audio_id, table.c.key.in_(wanted)))


def get(connection: Connection, audio_id: int) -> dict[str, Any]:
    """The metadata of one recording."""
    return get_many(connection, [audio_id])[audio_id]


def get_many(connection: Connection, audio_ids: Sequence[int]) -> dict[int, dict[str, Any]]:
    """The metadata of these recordings, by id."""
    found: dict[int, dict[str, Any]] = {audio_id: {} for audio_id in audio_ids}
    for audio_id, key, value, value_type in connection.execute(_OF_RECORDINGS, given(audio_ids)):
        found[audio_id][key] = decode(value, value_type)
    return found
