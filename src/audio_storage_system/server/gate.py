"""Who asks: the bearer token of a request, or nobody in particular on a machine of one's own.

An archive of which no token was ever made is one person's: who reaches the server (which then listens on this machine
only, see `serving`) may do everything. A web page that this person has open reaches it as well, so such a server
answers to its own names only, and not to pages of other origins (against DNS rebinding and cross-site requests). From
the first token on, every request needs one; browsers never send it by themselves.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import HTTPConnection

from audio_storage_system import AudioStorageSystem
from audio_storage_system.errors import Forbidden, Unauthorized

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
ASKED_AGAIN_SECONDS = 1.0
bearer = HTTPBearer(auto_error=False, description="A token of `audio-storage tokens create`.")


class Gate:
    """Decides who a request speaks for. Safe to share between threads."""

    def __init__(self, storage: AudioStorageSystem) -> None:
        self._storage = storage
        self._closed, self._asked_at = False, float("-inf")

    @property
    def closed(self) -> bool:
        """Whether every request needs a token."""
        now = time.monotonic()
        if not self._closed and now - self._asked_at > ASKED_AGAIN_SECONDS:
            self._closed, self._asked_at = self._storage.tokens.any(), now
        return self._closed

    def admit(self, token: str | None, headers: Mapping[str, str]) -> AudioStorageSystem:
        """The archive as whoever asks sees it. headers: of the request. Raises `Unauthorized`, `Forbidden`."""
        if token is not None:
            return self._storage.tokens.authenticate(token)
        if "authorization" in headers:
            raise Unauthorized(reason="it is no bearer token")
        if self.closed:
            raise Unauthorized(reason="none was given")
        if not (_is_own(headers.get("host", "")) and _is_same(headers.get("origin"), headers.get("host", ""))):
            raise Forbidden(principal="A page of another origin", action="use an archive without tokens")
        return self._storage


def _is_own(host: str) -> bool:
    return (urlsplit(f"//{host}").hostname or "") in LOOPBACK


def _is_same(origin: str | None, host: str) -> bool:
    return origin is None or origin.partition("://")[2] == host


def caller(
    connection: HTTPConnection,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)],
) -> AudioStorageSystem:
    """The archive as whoever sends this request sees it."""
    given = credentials.credentials if credentials else None
    gate: Gate = connection.app.state.gate
    return gate.admit(given, connection.headers)


Caller = Annotated[AudioStorageSystem, Depends(caller)]
