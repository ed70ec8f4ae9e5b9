"""Chains: each process has its own, and a transaction borrows one from its first entry until it ends.

So nobody waits for another's transaction. A chain's state moves on only when what was written is known to be in the
database: after a rollback the chain is where it was, and where a commit ended in an error nobody knows of, it is never
used again, so that entries have neither gaps nor twins.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, insert, select

from audio_storage_system.audit.entries import BEGUN, FIRST, Event, mac_of
from audio_storage_system.audit.origins import origin, process
from audio_storage_system.database import Ending, on_end
from audio_storage_system.database.tables import audit_log

_BORROWED = __name__
_ADD = insert(audit_log)
_LATEST = select(audit_log.c.chain, audit_log.c.sequence, audit_log.c.mac).order_by(audit_log.c.id.desc()).limit(1)


@dataclass(frozen=True, slots=True)
class Chain:
    """How far a chain has come: the number and the MAC of its last entry."""

    id: str
    sequence: int = FIRST - 1
    mac: str = ""


class Chains:
    """The chains of this process that nobody writes to now."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self.forget()

    def forget(self) -> None:
        """Begin anew: in a process that was forked, the chains are its parent's."""
        self._lock = threading.Lock()
        self._free: list[Chain] = []

    def write(self, connection: Connection, events: Iterable[Event]) -> None:
        """Enter these, in this order, in the transaction of the connection."""
        borrowed: _Borrowed | None = connection.info.get(_BORROWED)
        if borrowed is None or borrowed.ended or borrowed.chains is not self:
            borrowed = connection.info[_BORROWED] = _Borrowed(self, self._take())
            on_end(connection, borrowed.end)
        chain, rows = borrowed.now, []
        if not chain.mac:
            chain, row = self._next(chain, _beginning(connection))
            rows.append(row)
        for event in events:
            chain, row = self._next(chain, event)
            rows.append(row)
        connection.execute(_ADD, rows)
        borrowed.now = chain

    def _next(self, chain: Chain, event: Event) -> tuple[Chain, dict[str, Any]]:
        sequence = chain.sequence + 1
        mac = mac_of(self._key, chain.id, sequence, event, chain.mac)
        fields = {name: getattr(event, name) for name in Event.__slots__}
        return Chain(chain.id, sequence, mac), {**fields, "chain": chain.id, "sequence": sequence, "mac": mac}

    def _take(self) -> Chain:
        with self._lock:
            return self._free.pop() if self._free else Chain(str(uuid4()))

    def give_back(self, chain: Chain) -> None:
        """Let others write to this chain, which has come as far as it says."""
        with self._lock:
            self._free.append(chain)


@dataclass(slots=True)
class _Borrowed:
    """A chain in the hands of a transaction: as it was, and as it will be when that commits."""

    chains: Chains
    before: Chain
    now: Chain = Chain("")
    ended: bool = False

    def __post_init__(self) -> None:
        self.now = self.before

    def end(self, ending: Ending) -> None:
        self.ended = True
        if ending is Ending.COMMITTED:
            self.chains.give_back(self.now)
        elif ending is Ending.ROLLED_BACK:
            self.chains.give_back(self.before)


def _beginning(connection: Connection) -> Event:
    """The first entry of a chain names the process, and the latest entry there is: whoever removes a chain with that
    entry is found out by this one."""
    seen = connection.execute(_LATEST).first()
    details = {"process": process(), "seen": None if seen is None else dict(seen._mapping)}
    return Event(BEGUN, None, 0, "", origin(), details)
