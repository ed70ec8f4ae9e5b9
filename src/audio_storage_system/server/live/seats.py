"""The live sessions of this process: how many each caller has, and which socket has which."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from anyio import CapacityLimiter

from audio_storage_system.errors import TooManySessions

# Calls of sockets wait for each other, not for those of requests, and these not for them.
THREADS = 128


class Holder(Protocol):
    """A socket that has a session."""

    who: str

    async def give_up(self) -> None:
        """Let go of the session; it can be resumed when this returns."""


@dataclass(slots=True)
class Seats:
    """For the event loop's thread. most: open sessions of each caller, 0 for any number."""

    most: int
    threads: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(THREADS))
    _taken: Counter[str] = field(default_factory=Counter)
    _holders: dict[str, Holder] = field(default_factory=dict)

    @contextmanager
    def taken(self, who: str) -> Iterator[None]:
        """A place for one session of a caller. Raises `TooManySessions`."""
        if self.most and self._taken[who] >= self.most:
            raise TooManySessions(limit=self.most)
        self._taken[who] += 1
        try:
            yield
        finally:
            self._taken[who] -= 1

    def hold(self, session: str, holder: Holder) -> None:
        """Note which socket has a session."""
        self._holders[session] = holder

    def let_go(self, session: str, holder: Holder) -> None:
        """Note that it has it no more."""
        if self._holders.get(session) is holder:
            del self._holders[session]

    async def claim(self, session: str, who: str) -> None:
        """Have the socket of the same caller that has this session, if one here does, let go of it."""
        holder = self._holders.get(session)
        if holder is not None and holder.who == who:
            await holder.give_up()
        else:
            await asyncio.sleep(0)
