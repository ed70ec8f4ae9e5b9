"""An entry of the log, and the MAC that binds it to the one before it."""

from __future__ import annotations

import hmac
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row

from audio_storage_system.clock import utc_now
from audio_storage_system.records import jsonable

# The first entry of a chain, whose number is 0: it tells which process writes the chain.
BEGUN = "chain.begun"
FIRST = 0
FORMAT = "audio-storage audit 1"
MAX_TEXT = 200
MAX_ITEMS = 100


@dataclass(frozen=True, slots=True)
class Event:
    """What was done, by whom and from where, before it is an entry."""

    action: str
    audio_id: int | None
    principal_id: int
    principal: str
    origin: str
    details: Mapping[str, Any]
    at: datetime = field(default_factory=utc_now)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry. `audio_id`: the recording concerned, which may be gone by now. `chain`, `sequence`: its place. `mac`:
    hexadecimal HMAC-SHA256."""

    id: int
    at: datetime
    principal_id: int
    principal: str
    action: str
    audio_id: int | None
    origin: str
    details: Mapping[str, Any]
    chain: str
    sequence: int
    mac: str

    @classmethod
    def of(cls, row: Row[Any]) -> Entry:
        """An entry as it lies in the table. Raises `TypeError` for what can only have been put there by others."""
        entry = cls(**row._mapping)
        kinds = ((entry.sequence, int), (entry.principal_id, int), (entry.details, Mapping), (entry.at, datetime))
        if not all(isinstance(value, kind) for value, kind in kinds) or not isinstance(entry.audio_id, int | None):
            raise TypeError
        return entry

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        data: dict[str, Any] = jsonable(asdict(self))
        return data


def mac_of(key: bytes, chain: str, sequence: int, event: Event | Entry, before: str) -> str:
    """HMAC-SHA256 over every field of an entry and the MAC `before` it (empty for the first of a chain).

    The fields are encoded as a JSON array, whose strings and numbers cannot run into each other.
    """
    fields = [
        FORMAT,
        chain,
        sequence,
        event.at.astimezone(UTC).isoformat(timespec="microseconds"),
        event.principal_id,
        event.principal,
        event.action,
        event.audio_id,
        event.origin,
        event.details,
        before,
    ]
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hmac.new(key, text.encode(), "sha256").hexdigest()


def plain(value: Any) -> Any:
    """A detail as JSON that every database gives back as it was, cut to a size that cannot fill the log."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if abs(value) < 1 << 63 else str(value)[:MAX_TEXT]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {text(key): plain(item) for key, item in list(value.items())[:MAX_ITEMS]}
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value, key=str) if isinstance(value, set | frozenset) else value
        return [plain(item) for item in list(items)[:MAX_ITEMS]]
    return text(value)


def text(value: object) -> str:
    """Text that every database takes: no NUL, no half of a character, not long."""
    return str(value)[:MAX_TEXT].encode("utf-8", "replace").decode().replace("\0", "")
