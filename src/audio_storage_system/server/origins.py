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
        client = scope.get("client")
        with came_from(f"http:{client[0] if client else 'unknown'}"):
            await self._app(scope, receive, send)
