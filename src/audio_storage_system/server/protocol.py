"""HTTP on a connection, with an end to everything that a client can make last.

uvicorn bounds how long a connection is idle between requests, and how much of a body or an answer it keeps in memory.
Bounded here: how long the head of a request takes and how large it is (slow loris), and how long a client reads nothing
of what it asked for. Bodies are bounded in `bodies`.
"""

from __future__ import annotations

import asyncio
from asyncio import TimerHandle
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

HEAD_SECONDS, MOST_HEAD_BYTES = 15.0, 1 << 16
UNREAD_SECONDS = 60.0


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with these limits; a connection that passes one is cut."""

    _head_timer: TimerHandle | None = None
    _unread_timer: TimerHandle | None = None
    _unused_bytes = 0  # since the last that were a head or of a body
    _running: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """As of `asyncio.Protocol`."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """As of `asyncio.Protocol`."""
        self._head_arrived()
        self._is_reading()
        if (running := self._running) is not None and not running.response_complete:
            # uvicorn tells the last request, which may be one that waits behind this one.
            running.disconnected = True
            running.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """As of `asyncio.Protocol`."""
        if self._head_timer is None and (self.cycle is None or self.cycle.response_complete):
            self._await_head()
        self._unused_bytes += len(data)
        super().data_received(data)
        if self._unused_bytes > MOST_HEAD_BYTES:  # a head without end, or trailers
            self.transport.abort()

    def on_headers_complete(self) -> None:
        """As the parser calls it."""
        self._head_arrived()
        self._unused_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """As the parser calls it."""
        self._unused_bytes = 0
        super().on_body(body)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def shutdown(self) -> None:
        """As uvicorn calls it when the server is to end: what tells of news as long as there are any ends now."""
        self.app_state.get("stop", lambda: None)()
        super().shutdown()

    def pause_writing(self) -> None:
        """As of `asyncio.Protocol`: the client reads more slowly than we write."""
        super().pause_writing()
        self._is_reading()
        self._unread_timer = self.loop.call_later(UNREAD_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """As of `asyncio.Protocol`."""
        self._is_reading()
        super().resume_writing()

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _head_arrived(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _is_reading(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None
