"""What a socket may cost. In the documentation: `docs/howto/live-sockets.md`."""

from __future__ import annotations

from typing import Any

MOST_MESSAGE_BYTES = 1 << 20
# A client that is gone without a word is noticed after these together.
PING_SECONDS, PONG_SECONDS = 5.0, 10.0
# Without any message a socket ends after so long; with no word on what it wants, after so long.
SILENT_SECONDS, START_SECONDS = 60.0, 10.0
# Sound may come this much faster than it was spoken; and so many seconds of it at once, as after a reconnection.
FASTEST, BURST_SECONDS = 32.0, 120.0
# For so long a socket waits for another one to let go of a session, which may take its recogniser 10 s to stop.
HELD_SECONDS, ASKED_AGAIN_SECONDS = 15.0, 0.2
POSITION_SECONDS = 0.5
# Events that wait for a client that does not read, and for how long its end waits for it.
MOST_WAITING, DRAIN_SECONDS = 1_000, 5.0

# For uvicorn. Sound does not get smaller by deflating it.
UVICORN: dict[str, Any] = {
    "ws": "audio_storage_system.server.live.protocol:BoundedWebSocket",
    "ws_max_size": MOST_MESSAGE_BYTES,
    "ws_ping_interval": PING_SECONDS,
    "ws_ping_timeout": PONG_SECONDS,
    "ws_per_message_deflate": False,
}
