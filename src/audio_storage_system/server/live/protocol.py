"""The WebSocket protocol on a connection, with an end to clients that read nothing."""

from __future__ import annotations

from asyncio import TimerHandle

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

UNREAD_SECONDS = 60.0


class BoundedWebSocket(WebSocketsSansIOProtocol):
    """uvicorn's protocol; a connection whose client takes nothing off the line for so long is cut."""

    _unread_timer: TimerHandle | None = None
    _heard_at = 0.0

    def data_received(self, data: bytes) -> None:
        """As of `asyncio.Protocol`."""
        self._heard_at = self.loop.time()
        super().data_received(data)

    def keepalive_timeout(self) -> None:
        """As uvicorn calls it: a ping was not answered. Whoever speaks on and does not read yet, as simple programs do,
        is there all the same."""
        if self._heard_at <= self.ping_sent_at:
            super().keepalive_timeout()
        elif not self.transport.is_closing():
            self.pong_timer = self.pending_ping_payload = None
            self.schedule_ping()

    def pause_writing(self) -> None:
        """As of `asyncio.Protocol`: the client reads more slowly than we write."""
        super().pause_writing()
        self._unread_timer = self.loop.call_later(UNREAD_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """As of `asyncio.Protocol`."""
        self._end_timer()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """As of `asyncio.Protocol`."""
        self._end_timer()
        super().connection_lost(exc)

    def _end_timer(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None
