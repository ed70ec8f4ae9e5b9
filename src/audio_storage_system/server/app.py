"""The application: what answers at which address."""

from __future__ import annotations

import mimetypes
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from anyio import to_thread
from fastapi import Depends, FastAPI
from fastapi_offline import FastAPIOffline

from audio_storage_system import AudioStorageSystem, __version__
from audio_storage_system.server import description, health, openai, page, problems
from audio_storage_system.server.api import ROUTERS, webhooks
from audio_storage_system.server.bodies import Bodies
from audio_storage_system.server.cors import Cors
from audio_storage_system.server.gate import Gate
from audio_storage_system.server.live import ROUTERS as LIVE_ROUTERS
from audio_storage_system.server.live import Seats, sweeping
from audio_storage_system.server.long_tasks import LongTasks
from audio_storage_system.server.mcp.http import McpEndpoint
from audio_storage_system.server.news import News
from audio_storage_system.server.origins import Origins
from audio_storage_system.server.queries import check_query

# Where a process of the server finds the archive that it is to serve: its parent's word to it.
PLACE = "AUDIO_STORAGE_SERVED"
DESCRIPTION = """An archive for audio: store it, and find what was said, by whom and when.

What is no request with an answer is not listed here: sound while it is spoken goes over the WebSockets /api/v1/live
and /v1/realtime, and language models use /mcp."""
THREADS = 40  # that call the archive at once; more requests wait their turn


def create_app(open_archive: Callable[[], AudioStorageSystem]) -> FastAPI:
    """The application over the archive that this opens when the server starts; closed when it ends."""
    mimetypes.init()  # it reads files, which the event loop must not
    mcp = McpEndpoint()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        to_thread.current_default_thread_limiter().total_tokens = THREADS
        storage = await to_thread.run_sync(open_archive)
        await to_thread.run_sync(lambda: storage.temporary_file().close())  # which may have to make their folder
        app.state.storage, app.state.gate, app.state.news = storage, Gate(storage), News()
        app.state.seats, app.state.long_tasks = Seats(storage.settings.live_sessions), LongTasks()
        try:
            async with mcp.running(), sweeping(storage):
                yield {"stop": app.state.news.stop}
        finally:
            await to_thread.run_sync(app.state.long_tasks.close)
            await to_thread.run_sync(storage.close)

    app = FastAPIOffline(
        title="audio-storage-system",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_tags=description.TAGS,
        generate_unique_id_function=description.operation_id,
        static_url=page.ASSETS,
    )
    page.add(app)
    app.include_router(health.router)
    for router in ROUTERS:
        app.include_router(router, prefix="/api/v1", dependencies=[Depends(check_query)])
    for router in LIVE_ROUTERS:
        app.include_router(router)
    app.webhooks.include_router(webhooks.calls)
    app.include_router(openai.router, prefix="/v1")
    mcp.mount(app)
    problems.handle(app, {"/v1/": openai.as_error})
    description.describe(app)
    app.add_middleware(Bodies)
    app.add_middleware(Cors)
    app.add_middleware(Origins)
    return app


def from_environment() -> FastAPI:
    """The application of a process that the server started: it opens the archive that its parent names."""
    place = os.environ.get(PLACE) or None
    return create_app(partial(AudioStorageSystem, place, create=False))
