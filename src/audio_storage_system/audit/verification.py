"""Verifying the log: every MAC computed again, every chain without gaps, and as long as the anchors say."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import Column, Select, func, select, tuple_

from audio_storage_system.audit.anchors import Anchor, Head
from audio_storage_system.audit.entries import BEGUN, FIRST, Entry, mac_of
from audio_storage_system.audit.log import PURPOSE
from audio_storage_system.database import Database
from audio_storage_system.database.tables import audit_log
from audio_storage_system.errors import StorageFailed
from audio_storage_system.keys import ArchiveKeys

AT_ONCE = 1_000
MOST_TOLD = 100
_COLUMNS = [audit_log.c[name] for name in Entry.__slots__]
_PLACE = (audit_log.c.chain, audit_log.c.sequence, audit_log.c.id)

_UNREADABLE = (ValueError, TypeError, ArithmeticError, StorageFailed)

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is not as it was written. what: `changed`, `missing`, `repeated`, `inserted`, or `anchor` for what
    an anchor saw and is gone or another; where: the place in its chain."""

    what: str
    chain: str
    sequence: int
    message: str

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What a verification found. `faults`: the first hundred of `fault_count`."""

    entries: int
    chains: int
    anchors: int
    fault_count: int
    faults: tuple[Fault, ...]

    @property
    def ok(self) -> bool:
        """Whether everything is as it was written, as far as can be known."""
        return self.fault_count == 0

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"ok": self.ok, **asdict(self), "faults": [fault.as_dict() for fault in self.faults]}


def verify(
    database: Database,
    keys: ArchiveKeys,
    anchors: Sequence[Anchor] = (),
    progress: Progress = lambda done, total: None,
) -> AuditReport:
    """Read the whole log, in bounded memory, and compare. Entries may be added meanwhile. `progress` is called with the
    entries read so far, and all there are."""
    run = _Run(keys.derive(PURPOSE))
    with database.read() as connection:
        total = int(connection.execute(select(func.count()).select_from(audit_log)).scalar_one())
    for batch in _batches(database):
        for entry in batch:
            run.take(entry)
        _check_seen(database, run, batch)
        progress(run.entries, max(run.entries, total))
    for anchor in anchors:
        _check_anchor(database, run, anchor)
    return AuditReport(run.entries, run.chains, len(anchors), run.fault_count, tuple(run.faults))


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A row that is no entry, whatever it is."""

    chain: Any
    sequence: Any
    id: Any


@dataclass
class _Run:
    """A verification under way: the entry before, and what was found."""

    key: bytes
    entries: int = 0
    chains: int = 0
    fault_count: int = 0
    before: Entry | None = None
    faults: list[Fault] = field(default_factory=list)

    def blame(self, what: str, chain: str, sequence: int, message: str) -> None:
        self.fault_count += 1
        if len(self.faults) < MOST_TOLD:
            self.faults.append(Fault(what, chain, sequence, message))

    def take(self, entry: Entry | Unreadable) -> None:
        """Check an entry against the one before it in the order of chain and sequence."""
        if isinstance(entry, Unreadable):
            self.entries += 1
            return self.blame("changed", str(entry.chain), FIRST - 1, f"Entry {entry.id} cannot even be read")
        before = self.before if self.before is not None and self.before.chain == entry.chain else None
        self.before = entry
        self.entries += 1
        self.chains += before is None
        expected = FIRST if before is None else before.sequence + 1
        if entry.sequence < expected:
            return self.blame("repeated", entry.chain, entry.sequence, f"Entry {entry.id} stands where another does")
        if entry.sequence > expected:
            lost = f"{expected}" if entry.sequence == expected + 1 else f"{expected} to {entry.sequence - 1}"
            return self.blame("missing", entry.chain, expected, f"Of chain {entry.chain}, {lost} is missing")
        return self._check(entry, before)

    def _check(self, entry: Entry, before: Entry | None) -> None:
        if not _same(entry.mac, mac_of(self.key, entry.chain, entry.sequence, entry, before.mac if before else "")):
            self.blame("changed", entry.chain, entry.sequence, f"Entry {entry.id} is not as it was written")
        elif (entry.action == BEGUN) != (entry.sequence == FIRST):
            self.blame(
                "inserted", entry.chain, entry.sequence, f"Entry {entry.id} begins no chain, or a chain lacks it"
            )
        elif before is not None and entry.id <= before.id:
            self.blame("changed", entry.chain, entry.sequence, f"Entry {entry.id} has another id than it was given")


def _batches(database: Database) -> Iterator[list[Entry | Unreadable]]:
    """The log by chain and sequence, each batch in a transaction of its own."""
    after: Sequence[Any] | None = None
    while batch := _read(database, after):
        yield batch
        after = [getattr(batch[-1], column.name) for column in _PLACE]


def _read(database: Database, after: Sequence[Any] | None) -> list[Entry | Unreadable]:
    try:
        with database.read() as connection:
            return [Entry.of(row) for row in connection.execute(_page(_COLUMNS, after, AT_ONCE))]
    except _UNREADABLE:
        with database.read() as connection:
            places = connection.execute(_page(_PLACE, after, AT_ONCE)).all()
        return [_read_one(database, place) for place in places]


def _read_one(database: Database, place: Sequence[Any]) -> Entry | Unreadable:
    one = select(*_COLUMNS).where(tuple_(*_PLACE) == tuple_(*place))
    try:
        with database.read() as connection:
            return Entry.of(connection.execute(one).one())
    except _UNREADABLE:
        return Unreadable(*place)


def _page(columns: Sequence[Column[Any]], after: Sequence[Any] | None, limit: int) -> Select[Any]:
    query = select(*columns).order_by(*_PLACE).limit(limit)
    return query if after is None else query.where(tuple_(*_PLACE) > tuple_(*after))


def _check_seen(database: Database, run: _Run, batch: Sequence[Entry | Unreadable]) -> None:
    """Whether what the first entries of chains saw of others is still there."""
    for entry in batch:
        if not (isinstance(entry, Entry) and entry.sequence == FIRST):
            continue
        seen = entry.details.get("seen")
        if isinstance(seen, dict) and isinstance(seen.get("sequence"), int):  # else it was changed, and that is told
            head = Head(str(seen.get("chain")), seen["sequence"], str(seen.get("mac")))
            _check_head(database, run, [head], "missing", f"which chain {entry.chain} saw when it began")


def _check_anchor(database: Database, run: _Run, anchor: Anchor) -> None:
    for start in range(0, len(anchor.heads), AT_ONCE):
        part = anchor.heads[start : start + AT_ONCE]
        _check_head(database, run, part, "anchor", f"which the anchor of {anchor.at:%Y-%m-%d %H:%M:%S} UTC saw")


def _check_head(database: Database, run: _Run, heads: Sequence[Head], what: str, seen_by: str) -> None:
    place = tuple_(audit_log.c.chain, audit_log.c.sequence)
    query = select(audit_log.c.chain, audit_log.c.sequence, audit_log.c.mac).where(
        place.in_([(head.chain, head.sequence) for head in heads])
    )
    with database.read() as connection:
        there = {(row.chain, row.sequence): row.mac for row in connection.execute(query)}
    for head in heads:
        mac = there.get((head.chain, head.sequence))
        if mac is None or not _same(mac, head.mac):
            gone = "is missing" if mac is None else "is another"
            run.blame(what, head.chain, head.sequence, f"Entry {head.sequence} of chain {head.chain} {gone}, {seen_by}")


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode("utf-8", "replace"))
