"""The body of a request as it comes in, poured into an append."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from types import TracebackType
from typing import Any, Protocol

from anyio import CancelScope, to_thread
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

PIECE = 1 << 20
TICK_SECONDS = 0.5


class Append(Protocol):
    """What `Uploads.appending` gives."""

    def write(self, data: bytes) -> None:
        """Take more bytes; none where only time has passed."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Any:
        """Come to an end."""


async def pour(request: Request, begin: Callable[[], Append]) -> None:
    """Append the body of a request, as much of it as comes. Raises what the append raises, and `ClientDisconnect` for
    a sender that is gone; what came until then stays."""
    async with _held(await to_thread.run_sync(begin)) as append, aclosing(_pieces(request)) as pieces:
        async for piece in pieces:
            await to_thread.run_sync(append.write, piece)


@asynccontextmanager
async def _held(append: Append) -> AsyncIterator[Append]:
    """As the append's own block, off the event loop; it comes to its end also where the request is cancelled."""
    try:
        yield append
    except BaseException as error:
        with CancelScope(shield=True):
            await to_thread.run_sync(append.__exit__, type(error), error, None)
        raise
    with CancelScope(shield=True):
        await to_thread.run_sync(append.__exit__, None, None, None)


async def _pieces(request: Request) -> AsyncGenerator[bytes, None]:
    """The body in pieces of about 1 MiB at most; twice in a second what there is, maybe nothing."""
    waiting, given_at = bytearray(), time.monotonic()
    coming: asyncio.Task[Message] | None = None
    try:
        while True:
            coming = coming or asyncio.create_task(_next(request))
            await asyncio.wait({coming}, timeout=TICK_SECONDS)
            message: Message = {"type": "", "more_body": True}
            if coming.done():
                message, coming = coming.result(), None
                waiting += message.get("body", b"")
            more = message["type"] != "http.disconnect" and message.get("more_body", False)
            if len(waiting) >= PIECE or time.monotonic() - given_at >= TICK_SECONDS or not more:
                yield bytes(waiting)
                waiting.clear()
                given_at = time.monotonic()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            if not more:
                return
    finally:
        if coming is not None:
            coming.cancel()


async def _next(request: Request) -> Message:
    return await request.receive()
