"""Who asks, of clients that always send a key: one that is no token of ours means nothing while there are none."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Security
from fastapi.security import HTTPAuthorizationCredentials
from starlette.requests import HTTPConnection

from audio_storage_system import AudioStorageSystem
from audio_storage_system.server.gate import Gate, address_of, bearer


def client(
    connection: HTTPConnection,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)],
) -> AudioStorageSystem:
    """The archive as whoever sends this request sees it."""
    gate: Gate = connection.app.state.gate
    given = credentials.credentials if credentials else None
    return gate.admit(given, connection.headers, address_of(connection), any_key=True)


Client = Annotated[AudioStorageSystem, Depends(client)]
