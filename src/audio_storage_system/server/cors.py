"""Which web pages of other origins may use the server; none, unless the setting `cors_origins` names them."""

from __future__ import annotations

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from audio_storage_system.settings import Settings

EXPOSED = (
    "Accept-Ranges Content-Disposition Content-Range ETag Link Location Retry-After Tus-Checksum-Algorithm "
    "Tus-Extension Tus-Max-Size Tus-Resumable Tus-Version Upload-Expires Upload-Length Upload-Metadata Upload-Offset "
    "X-Audio-Id X-Job-Id X-Transcript-Id"
).split()
ALLOWED_METHODS = "GET HEAD POST PUT PATCH DELETE".split()
REMEMBERED_SECONDS = 600


def origins_of(settings: Settings) -> frozenset[str]:
    """The origins that the setting names."""
    return frozenset(name.strip().rstrip("/") for name in settings.cors_origins.split(",") if name.strip())


class Cors:
    """Middleware: Starlette's, once the archive is open and its settings are known."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._answering: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI calls it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if self._answering is None:
            self._answering = self._made(origins_of(scope["app"].state.storage.settings))
        await self._answering(scope, receive, send)

    def _made(self, origins: frozenset[str]) -> ASGIApp:
        if not origins:
            return self._app
        return CORSMiddleware(
            self._app,
            allow_origins=sorted(origins),
            allow_methods=ALLOWED_METHODS,
            allow_headers=["*"],  # tokens are sent in one, cookies are not used
            expose_headers=EXPOSED,
            max_age=REMEMBERED_SECONDS,
        )
