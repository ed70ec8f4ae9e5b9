"""Messages that wait for a client: not without end, should it never read."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from itertools import count
from typing import Any

from audio_storage_system.server.live.limits import MOST_WAITING

Message = dict[str, Any]


class Outbox:
    """In order; of messages of one `kind` only the latest waits. For the thread of the event loop alone."""

    def __init__(self, most: int = MOST_WAITING) -> None:
        self._most = most
        self._waiting: OrderedDict[object, Message] = OrderedDict()
        self._numbers = count()
        self._filled, self._drained = asyncio.Event(), asyncio.Event()
        self._drained.set()

    def put(self, message: Message, kind: str | None = None) -> None:
        """Add a message; where too many wait, the oldest is forgotten."""
        key = next(self._numbers) if kind is None else kind
        self._waiting.pop(key, None)
        self._waiting[key] = message
        if len(self._waiting) > self._most:
            self._waiting.popitem(last=False)
        self._drained.clear()
        self._filled.set()

    async def next(self) -> Message:
        """The next message, as soon as there is one. Call `sent` when it is on its way."""
        while not self._waiting:
            self._filled.clear()
            await self._filled.wait()
        return self._waiting.popitem(last=False)[1]

    def sent(self) -> None:
        """What `next` gave is on its way."""
        if not self._waiting:
            self._drained.set()

    async def drained(self, seconds: float) -> None:
        """Until all is on its way, or for so long."""
        try:
            await asyncio.wait_for(self._drained.wait(), seconds)
        except TimeoutError:
            return
