"""The WebSocket protocol on a connection, with an end to clients that read nothing."""

from __future__ import annotations

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from audio_storage_system.server.protocol import Held


class BoundedWebSocket(Held, WebSocketsSansIOProtocol):
    """uvicorn's protocol; a connection whose client reads nothing is cut."""

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
