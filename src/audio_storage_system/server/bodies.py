"""The bodies of requests: how large each may be, and how slowly it may come."""

from __future__ import annotations

import asyncio
import re
import time

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from audio_storage_system import AudioStorageSystem
from audio_storage_system.errors import TooLarge, TooSlow
from audio_storage_system.server import problems

# JSON and small forms, which are read whole.
MOST_BYTES = 1 << 20
# Texts to embed: 300,000 tokens, in any script.
EMBEDDED, MOST_EMBEDDED_BYTES = "/v1/embeddings", 1 << 23
# What is read as it arrives: files, with the form around them.
STREAMED = re.compile(r"/api/v1/(recordings|uploads(/[^/]+)?)/?|/v1/audio/\w+", re.ASCII)
# Of these, files that are no recordings: examples, and transcripts.
SMALLER = {
    re.compile(r"/api/v1/search/audio/?"): 256 << 20,
    re.compile(r"/api/v1/recordings/\d+/transcripts/?", re.ASCII): 64 << 20,
}
FORM_BYTES = 1 << 21
# A body may take this long, and longer as it brings so much in each second more.
GRACE_SECONDS, LEAST_BYTES_PER_SECOND = 30.0, 1024


class Bodies:
    """Middleware: a body that is too large or too slow ends its request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI calls it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = _most_bytes(scope)
        if _declared(scope) > most:
            await problems.response_to(scope, _too_large(most))(scope, receive, send)
        else:
            await self._app(scope, _Bounded(receive, most), send)


class _Bounded:
    """The body of one request, message by message."""

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive, self._most = receive, most
        self._began, self._size, self._whole = time.monotonic(), 0, False

    async def __call__(self) -> Message:
        # The web framework reads bodies itself, and lets only its own exception through; `problems` finds ours in it.
        if self._whole:  # what comes now is that the client is gone, whenever that is
            return await self._receive()
        left = self._began + GRACE_SECONDS + self._size / LEAST_BYTES_PER_SECOND - time.monotonic()
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, left))
        except TimeoutError:
            raise HTTPException(TooSlow.http_status) from TooSlow()
        self._size += len(message.get("body", b""))
        self._whole = not message.get("more_body", False)
        if self._size > self._most:
            raise HTTPException(TooLarge.http_status) from _too_large(self._most)
        return message


def _too_large(most: int) -> TooLarge:
    return TooLarge(what="The request", limit=f"{most} bytes")


def _most_bytes(scope: Scope) -> int:
    if scope["path"] != EMBEDDED and _header(scope, b"content-type").startswith(b"application/json"):
        return MOST_BYTES  # also where files are sent: it is read whole
    for pattern, most in SMALLER.items():
        if pattern.fullmatch(scope["path"]):
            return most + FORM_BYTES
    if not STREAMED.fullmatch(scope["path"]):
        return MOST_EMBEDDED_BYTES if scope["path"] == EMBEDDED else MOST_BYTES
    storage: AudioStorageSystem = scope["app"].state.storage
    return storage.settings.max_file_bytes + FORM_BYTES


def _declared(scope: Scope) -> int:
    given = _header(scope, b"content-length")
    return int(given) if given.isdigit() else 0


def _header(scope: Scope, wanted: bytes) -> bytes:
    return next((value.lower().strip() for name, value in scope["headers"] if name == wanted), b"")
