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
from audio_storage_system.errors import Forbidden, TooManyRequests, Unauthorized
from audio_storage_system.permissions.tokens import PREFIX
from audio_storage_system.server.cors import origins_of
from audio_storage_system.server.rates import Rates

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
ASKED_AGAIN_SECONDS = 1.0
# What proxies add: whoever is behind one is not on this machine.
FORWARDED = ("forwarded", "x-forwarded-for")
FOREIGN = ("cross-site", "same-site")
# Wrong tokens from one address, each of which costs a look into the catalogue.
FAILURES_PER_MINUTE = 60
bearer = HTTPBearer(auto_error=False, description="A token of `audio-storage tokens create`.")


class Gate:
    """Decides who a request speaks for. Safe to share between threads."""

    def __init__(self, storage: AudioStorageSystem) -> None:
        self._storage = storage
        self._closed, self._asked_at = False, float("-inf")
        self._rates, self._failures = Rates(storage.settings.requests_per_minute), Rates(FAILURES_PER_MINUTE)
        self._origins = origins_of(storage.settings)

    @property
    def closed(self) -> bool:
        """Whether every request needs a token."""
        now = time.monotonic()
        if not self._closed and now - self._asked_at > ASKED_AGAIN_SECONDS:
            self._closed, self._asked_at = self._storage.tokens.any(), now
        return self._closed

    def admit(
        self, token: str | None, headers: Mapping[str, str], address: str, *, any_key: bool = False
    ) -> AudioStorageSystem:
        """The archive as whoever asks sees it. headers: of the request; address: where it comes from. any_key: for
        clients that insist on a key, one that is no token of ours means nothing as long as there are none. Raises
        `Unauthorized`, `Forbidden`, `TooManyRequests`."""
        means_nothing = any_key and token is not None and not token.startswith(PREFIX) and not self.closed
        if token is not None and not means_nothing:
            return self._authenticated(token, address)
        if "authorization" in headers and not means_nothing:
            raise Unauthorized(reason="it is no bearer token")
        if self.closed:
            raise Unauthorized(reason="none was given")
        if address not in LOOPBACK or any(name in headers for name in FORWARDED):
            raise Forbidden(principal="Another machine", action="use an archive without tokens")
        if not (_is_own(headers.get("host", "")) and self._is_own_page(headers)):
            raise Forbidden(principal="A page of another origin", action="use an archive without tokens")
        return self._storage

    def _is_own_page(self, headers: Mapping[str, str]) -> bool:
        """Browsers name the origin of a page where it reads the answer, and else at least that it is another's."""
        if "origin" not in headers and headers.get("sec-fetch-site") in FOREIGN:
            return False
        return self.welcomes(headers.get("origin"), headers.get("host", ""))

    def _authenticated(self, token: str, address: str) -> AudioStorageSystem:
        _wait_for(self._rates.take(hash(token)))
        _wait_for(self._failures.wait(address))
        try:
            return self._storage.tokens.authenticate(token)
        except Unauthorized:
            self._failures.take(address)
            if not self.closed:
                raise Unauthorized(reason="none was made for this archive yet; ask without one") from None
            raise

    def welcomes(self, origin: str | None, host: str) -> bool:
        """Whether a page of this origin may send requests to `host`; what is no page names no origin."""
        if origin is None or origin in self._origins or origin.partition("://")[2] == host:
            return True
        return "*" in self._origins and self.closed


def _wait_for(seconds: float) -> None:
    if seconds:
        raise TooManyRequests(seconds=seconds)


def _is_own(host: str) -> bool:
    return (urlsplit(f"//{host}").hostname or "") in LOOPBACK


def token_of(headers: Mapping[str, str]) -> str | None:
    """The bearer token among the headers of a request."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def caller(
    connection: HTTPConnection,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)],
) -> AudioStorageSystem:
    """The archive as whoever sends this request sees it."""
    given = credentials.credentials if credentials else None
    gate: Gate = connection.app.state.gate
    return gate.admit(given, connection.headers, address_of(connection))


def address_of(connection: HTTPConnection) -> str:
    """Where a request or socket comes from; empty where that is unknown."""
    return connection.client.host if connection.client else ""


Caller = Annotated[AudioStorageSystem, Depends(caller)]
