"""Where a request comes from, for the audit log."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from audio_storage_system.audit import came_from


class Origins:
    """Middleware: what is done while a request is answered came from its address, `http:10.0.0.7`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI calls it."""
        with came_from(origin_of(scope)):
            await self._app(scope, receive, send)


def origin_of(scope: Scope) -> str:
    """What the audit log names as where a request came from."""
    client = scope.get("client")
    return f"http:{client[0] if client else 'unknown'}"
