"""The server at `/mcp` over HTTP: the streamable transport without sessions, so that any process can answer.

Each request brings its own bearer token, and works as whoever that is. Nothing is kept between two requests: there is
no stream to listen to, so only POST is answered.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio import to_thread
from fastapi import FastAPI
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.datastructures import Headers
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from audio_storage_system import AudioStorageSystem
from audio_storage_system.errors import AudioStorageSystemError, Forbidden
from audio_storage_system.server import problems
from audio_storage_system.server.gate import Gate, token_of
from audio_storage_system.server.mcp.caller import Caller
from audio_storage_system.server.mcp.protocol import Context, make_server
from audio_storage_system.server.origins import origin_of

PATH = "/mcp"
_VIEW = "mcp_view"


class McpEndpoint:
    """What answers at `/mcp` of the application."""

    def __init__(self) -> None:
        self._manager = StreamableHTTPSessionManager(make_server(_caller_of), stateless=True)

    def mount(self, app: FastAPI) -> None:
        """Answer at `/mcp` of this application."""
        app.router.routes.append(Route(PATH, self, methods=["POST"], include_in_schema=False))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Requests are answered during this block, which can be entered once."""
        async with self._manager.run():
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI calls it."""
        try:
            scope.setdefault("state", {})[_VIEW] = await to_thread.run_sync(_admitted, scope)
        except AudioStorageSystemError as error:
            await problems.response_to(scope, error)(scope, receive, send)
        else:
            await self._manager.handle_request(scope, receive, send)


def _admitted(scope: Scope) -> AudioStorageSystem:
    """The archive as the sender sees it. Raises `Unauthorized`, and `Forbidden` for pages of other origins, which the
    protocol keeps out whatever they bring."""
    headers, address = Headers(scope=scope), scope["client"][0] if scope.get("client") else ""
    gate: Gate = scope["app"].state.gate
    if not gate.welcomes(headers.get("origin"), headers.get("host", "")):
        raise Forbidden(principal="A page of another origin", action="use this server")
    return gate.admit(token_of(headers), headers, address)


def _caller_of(context: Context) -> Caller:
    scope: Scope = context.request.scope  # type: ignore[union-attr]
    storage: AudioStorageSystem = scope["app"].state.storage
    asked = scope["state"][_VIEW], storage.settings.mcp_writes
    return Caller(*asked, seconds=storage.settings.search_seconds, origin=origin_of(scope))
