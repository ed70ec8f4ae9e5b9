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
from audio_storage_system.server.gate import Gate, is_same_origin, token_of
from audio_storage_system.server.mcp.caller import Caller
from audio_storage_system.server.mcp.protocol import Context, make_server
from audio_storage_system.server.origins import origin_of

PATH = "/mcp"
MAX_BODY_BYTES = 4 * 1024**2
_VIEW = "mcp_view"


class McpEndpoint:
    """What answers at `/mcp`. allow_write: offer the tools that change the archive to who may change it."""

    def __init__(self, *, allow_write: bool = False) -> None:
        self._allow_write = allow_write
        self._manager = StreamableHTTPSessionManager(
            make_server(self._caller_of), stateless=True, max_request_body_size=MAX_BODY_BYTES
        )

    def mount(self, app: FastAPI) -> None:
        """Answer at `/mcp` of this application."""
        app.router.routes.append(Route(PATH, self, methods=None, include_in_schema=False))

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
            refusal = problems.answer(problems.of_error(error), problems.headers_of(error))
            return await refusal(scope, receive, send)
        if scope["method"] != "POST":
            refused = problems.answer(problems.of_status(405), {"Allow": "POST"})
            return await refused(scope, receive, send)
        await self._manager.handle_request(scope, receive, send)

    def _caller_of(self, context: Context) -> Caller:
        scope: Scope = context.request.scope  # type: ignore[union-attr]
        return Caller(scope["state"][_VIEW], self._allow_write, origin=origin_of(scope))


def _admitted(scope: Scope) -> AudioStorageSystem:
    """The archive as the sender sees it. Raises `Unauthorized`, and `Forbidden` for pages of other origins, which the
    protocol keeps out whatever they bring."""
    headers = Headers(scope=scope)
    if not is_same_origin(headers.get("origin"), headers.get("host", "")):
        raise Forbidden(principal="A page of another origin", action="use this server")
    gate: Gate = scope["app"].state.gate
    return gate.admit(token_of(headers), headers)
