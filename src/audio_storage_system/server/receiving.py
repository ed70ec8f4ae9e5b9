"""The body of a request as it comes in, poured into an append."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from http import HTTPStatus

from anyio import CancelScope, to_thread
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from audio_storage_system.uploads import Appending

PIECE = 1 << 20
TICK_SECONDS = 0.5
IDLE_SECONDS = 60.0


async def pour(request: Request, begin: Callable[[], Appending]) -> None:
    """Append the body of a request, as much of it as comes. Raises what the append raises, `ClientDisconnect` for a
    sender that is gone, and `HTTPException` (408) for one from whom nothing comes for a minute; what came stays."""
    async with _held(await to_thread.run_sync(begin)) as appending, aclosing(_pieces(request)) as pieces:
        async for piece in pieces:
            await to_thread.run_sync(appending.write, piece)


@asynccontextmanager
async def _held(appending: Appending) -> AsyncIterator[Appending]:
    """As the append's own block, off the event loop; it comes to its end also where the request is cancelled."""
    try:
        yield appending
    except BaseException as error:
        with CancelScope(shield=True):
            await to_thread.run_sync(appending.__exit__, type(error), error, None)
        raise
    await to_thread.run_sync(appending.__exit__, None, None, None)


async def _pieces(request: Request) -> AsyncGenerator[bytes, None]:
    """The body in pieces of about 1 MiB at most; what there is, maybe nothing, where no more comes for a moment."""
    waiting, heard_at, more = bytearray(), time.monotonic(), True
    coming: asyncio.Future[Message] | None = None
    try:
        while more:
            coming = coming or asyncio.ensure_future(request.receive())
            await asyncio.wait({coming}, timeout=TICK_SECONDS)
            if coming.done():
                message, coming, heard_at = coming.result(), None, time.monotonic()
                more = bool(message.get("more_body", False)) or message["type"] == "http.disconnect"
                waiting += message.get("body", b"")
                gone = message["type"] == "http.disconnect"
                if len(waiting) < PIECE and more and not gone:
                    continue
            else:
                gone = False
            yield bytes(waiting)
            waiting.clear()
            if gone:
                raise ClientDisconnect
            if time.monotonic() - heard_at > IDLE_SECONDS:
                raise HTTPException(HTTPStatus.REQUEST_TIMEOUT, "Nothing more came")
    finally:
        if coming is not None:
            coming.cancel()
