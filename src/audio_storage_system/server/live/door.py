"""Who opens a socket. A browser cannot set headers for one: there a token comes among the subprotocols, which, unlike
the address, no log shows."""

from __future__ import annotations

from starlette.websockets import WebSocket

from audio_storage_system import AudioStorageSystem
from audio_storage_system.server.gate import Gate, address_of, token_of

# Ours, and as OpenAI's clients in browsers send them.
OURS, REALTIME = "audio-storage", "realtime"
TOKENS = ("bearer.", "openai-insecure-api-key.")
OPENAI = "/v1/"


def admitted(socket: WebSocket) -> AudioStorageSystem:
    """The archive as whoever opened this socket sees it. Raises `Unauthorized`, `Forbidden`,
    `TooManyRequests`."""
    gate: Gate = socket.app.state.gate
    address, of_openai = address_of(socket), socket.url.path.startswith(OPENAI)
    return gate.admit(_token(socket), socket.headers, address, any_key=of_openai)


def subprotocol(socket: WebSocket) -> str | None:
    """The one to speak of those that the client offers; never the one that is its token."""
    offered: list[str] = socket.scope["subprotocols"]
    return next((name for name in offered if name in (OURS, REALTIME)), None)


def _token(socket: WebSocket) -> str | None:
    if "authorization" in socket.headers:
        return token_of(socket.headers)
    for name in socket.scope["subprotocols"]:
        for start in TOKENS:
            if name.startswith(start):
                return str(name[len(start) :])
    return None
