"""Anchors: how far every chain has come, told outside the database, where whoever changes the log cannot change it."""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, and_, func, select

from audio_storage_system.clock import utc_now
from audio_storage_system.database.tables import audit_log
from audio_storage_system.errors import InvalidInput
from audio_storage_system.keys import ArchiveKeys

FORMAT = "audio-storage audit anchor 1"
PURPOSE = "audit anchor"
MAX_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Head:
    """The last entry of a chain."""

    chain: str
    sequence: int
    mac: str


@dataclass(frozen=True, slots=True)
class Anchor:
    """The heads of all chains of an archive at a moment. `mac` is a keyed hash of all of it."""

    archive_id: str
    at: datetime
    heads: tuple[Head, ...]
    mac: str

    @classmethod
    def made(cls, keys: ArchiveKeys, at: datetime, heads: Sequence[Head]) -> Anchor:
        """The anchor of these heads."""
        return cls(keys.archive_id, at, tuple(heads), _mac(keys, at, heads))

    @classmethod
    def read(cls, data: object, keys: ArchiveKeys) -> Anchor:
        """What `as_dict` gave. Raises `InvalidInput` for what is no anchor of this archive, or was changed."""
        try:
            anchor = cls._parsed(data)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidInput(reason="This is no anchor of an audit log") from error
        if anchor.archive_id != keys.archive_id:
            raise InvalidInput(reason=f"This is an anchor of another archive, {anchor.archive_id[:40]}")
        if not hmac.compare_digest(anchor.mac.encode(), _mac(keys, anchor.at, anchor.heads).encode()):
            raise InvalidInput(reason="This anchor was changed since it was made, or made with another key")
        return anchor

    @classmethod
    def _parsed(cls, data: Any) -> Anchor:
        if data["format"] != FORMAT:
            raise ValueError
        heads = tuple(Head(str(chain), int(sequence), str(mac)) for chain, sequence, mac in data["heads"])
        at = datetime.fromisoformat(data["at"])
        return cls(str(data["archive_id"]), at, heads, str(data["mac"]))

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        heads = [[head.chain, head.sequence, head.mac] for head in self.heads]
        return {
            "format": FORMAT,
            "archive_id": self.archive_id,
            "at": _written(self.at),
            "heads": heads,
            "mac": self.mac,
        }


def heads(connection: Connection, keys: ArchiveKeys) -> Anchor:
    """How far every chain has come in the state that this connection sees."""
    last = select(audit_log.c.chain, func.max(audit_log.c.sequence).label("sequence")).group_by(audit_log.c.chain)
    tops = last.subquery()
    same = and_(audit_log.c.chain == tops.c.chain, audit_log.c.sequence == tops.c.sequence)
    query = select(audit_log.c.chain, audit_log.c.sequence, audit_log.c.mac).join(tops, same)
    found = sorted((Head(*row) for row in connection.execute(query)), key=lambda head: head.chain)
    return Anchor.made(keys, utc_now(), found)


def parse(text: str | bytes, keys: ArchiveKeys) -> Anchor:
    """The anchor in a file. Raises `InvalidInput`."""
    try:
        data: Mapping[str, Any] = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(reason="This is no anchor of an audit log: it is not JSON") from error
    return Anchor.read(data, keys)


def _written(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def _mac(keys: ArchiveKeys, at: datetime, heads: Sequence[Head]) -> str:
    fields = [FORMAT, keys.archive_id, _written(at), [[head.chain, head.sequence, head.mac] for head in heads]]
    text = json.dumps(fields, separators=(",", ":"), ensure_ascii=True)
    return hmac.new(keys.derive(PURPOSE), text.encode(), "sha256").hexdigest()
