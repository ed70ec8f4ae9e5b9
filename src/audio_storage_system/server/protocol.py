"""HTTP on a connection, with an end to everything that a client can make last.

uvicorn bounds how long a connection is idle between requests, and how much of a body or an answer it keeps in memory.
Bounded here: how many connections one address has, how long the head of a request takes and how large it is (slow
loris), and how long a client reads nothing of what it asked for. Bodies are bounded in `bodies`.
"""

from __future__ import annotations

import asyncio
from asyncio import TimerHandle
from collections import Counter
from ipaddress import IPv6Network
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from audio_storage_system.errors import Busy
from audio_storage_system.server import problems

HEAD_SECONDS, MOST_HEAD_BYTES = 15.0, 1 << 16
UNREAD_SECONDS = 60.0
LOOKS = 6  # in that time, for whether anything was read
MOST_CONNECTIONS = 1000  # of each web process
MOST_OF_ONE = MOST_CONNECTIONS // 4  # from one address


class Held(asyncio.Protocol):
    """A connection that counts for who holds it, and is cut when its client takes nothing off the line for so long."""

    app_state: dict[str, Any]
    client: tuple[str, int] | None
    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    _unread_timer: TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As of `asyncio.Protocol`."""
        super().connection_made(transport)
        self._held[self._holder] += 1

    def connection_lost(self, exc: Exception | None) -> None:
        """As of `asyncio.Protocol`."""
        self.let_go()
        super().connection_lost(exc)

    def let_go(self) -> None:
        """It is over, or goes on as a connection of another kind."""
        self._end_timer()
        self._held[self._holder] -= 1
        if self._held[self._holder] <= 0:
            del self._held[self._holder]

    @property
    def is_one_too_many(self) -> bool:
        """Whether who holds it has more than anybody may."""
        return self._held[self._holder] > MOST_OF_ONE

    def pause_writing(self) -> None:
        """As of `asyncio.Protocol`: the client reads more slowly than we write."""
        super().pause_writing()
        self._end_timer()
        self._look_later(in_vain=0)

    def resume_writing(self) -> None:
        """As of `asyncio.Protocol`."""
        self._end_timer()
        super().resume_writing()

    @property
    def _held(self) -> Counter[str]:
        """How many each has, in this server."""
        held: Counter[str] = self.app_state.setdefault("held", Counter())
        return held

    @property
    def _holder(self) -> str:
        return holder_of(self.client[0]) if self.client else ""

    def _look_later(self, in_vain: int) -> None:
        unread = self.transport.get_write_buffer_size()
        self._unread_timer = self.loop.call_later(UNREAD_SECONDS / LOOKS, self._look, unread, in_vain)

    def _look(self, before: int, in_vain: int) -> None:
        """Cut it once its client has taken nothing for all that time; whoever takes a little at a time may take as long
        as a large answer lasts. before: how much there was to take at the last look."""
        in_vain = 0 if self.transport.get_write_buffer_size() < before else in_vain + 1
        if in_vain < LOOKS:
            self._look_later(in_vain)
        else:
            self.transport.abort()

    def _end_timer(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None


class BoundedProtocol(Held, HttpToolsProtocol):
    """uvicorn's protocol with these limits; a connection that passes one is cut."""

    _head_timer: TimerHandle | None = None
    _unused_bytes = 0  # since the last that were a head or of a body
    _running: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """As of `asyncio.Protocol`."""
        super().connection_made(transport)
        if self.is_one_too_many and not self._is_trusted_proxy:
            transport.write(_refusal())
            transport.close()
        else:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """As of `asyncio.Protocol`."""
        self._head_arrived()
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

    def handle_websocket_upgrade(self) -> None:
        """As uvicorn calls it: a socket takes the connection over."""
        self.let_go()
        super().handle_websocket_upgrade()

    @property
    def _is_trusted_proxy(self) -> bool:
        """Such a one has as many connections as it has clients."""
        return self.client is not None and self.client[0] in getattr(self.app, "trusted_hosts", ())

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _head_arrived(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def holder_of(host: str) -> str:
    """Who has an address: of IPv6, whoever has one has its network."""
    is_ipv4 = "." in host or ":" not in host
    return host if is_ipv4 else str(IPv6Network((host.partition("%")[0], 64), strict=False))


def _refusal() -> bytes:
    """The answer to whatever a connection will ask."""
    error = Busy(reason=f"Your address holds {MOST_OF_ONE} connections, which is all that one may")
    answer = problems.answer(problems.of_error(error), {**problems.headers_of(error), "Connection": "close"})
    head = b"".join(b"%b: %b\r\n" % header for header in answer.raw_headers)
    return STATUS_LINE[answer.status_code] + head + b"\r\n" + bytes(answer.body)
