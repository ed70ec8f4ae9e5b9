"""Calls that end when nobody waits for their answer any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from anyio import CapacityLimiter, fail_after, to_thread
from fastapi import Request
from starlette.exceptions import HTTPException

from audio_storage_system import Cancellation
from audio_storage_system.clock import Deadline
from audio_storage_system.errors import AudioStorageSystemError

T = TypeVar("T")
# Of what takes seconds, or waits for others, and of searches: so many at once in each process. The rest waits without a
# thread, each in its turn: of searches that share a processor none is done before nearly all are.
SLOW_AT_ONCE = SEARCHES_AT_ONCE = 4


class Patience:
    """How long a request may take, from when this is made: also while it waits for a thread. most: seconds; wanted: the
    same as the client says it, which counts where it is less. Made for one call, which `cancellation` ends early."""

    def __init__(self, most: float, wanted: float | None = None) -> None:
        self.cancellation = Cancellation()
        self._deadline = Deadline.after(most if wanted is None else min(most, wanted), self.cancellation)

    @property
    def left(self) -> float:
        """Seconds, for the `deadline` of a call."""
        return self._deadline.left

    @property
    def error(self) -> AudioStorageSystemError:
        """What ends a call that this ran out for."""
        return self._deadline.error


@asynccontextmanager
async def noticing_when_gone(request: Request, tell: Callable[[], object]) -> AsyncIterator[None]:
    """In this block, `tell` is called once the client has gone away, in a thread. The request's body was read."""
    watch = asyncio.create_task(_tell_when_gone(request, tell))
    try:
        yield
    finally:
        watch.cancel()


async def while_wanted(request: Request, patience: Patience, call: Callable[[], T], turn: str = "searches") -> T:
    """What `call` answers in a thread, in its turn among those of this name. It is cancelled when the client goes away.
    The request's body was read. Raises `DeadlineExceeded` also where its turn does not come in time."""
    limiter, borrower = turns(request, turn, SEARCHES_AT_ONCE), object()
    async with noticing_when_gone(request, patience.cancellation.cancel):
        try:
            with fail_after(patience.left):
                await limiter.acquire_on_behalf_of(borrower)
        except TimeoutError:
            raise patience.error from None
        try:
            return await to_thread.run_sync(call)
        finally:
            limiter.release_on_behalf_of(borrower)


async def in_turn(request: Request, call: Callable[[], T]) -> T:
    """What `call` answers in a thread, when it is its turn: slow calls leave threads to the others."""
    return await to_thread.run_sync(call, limiter=turns(request, "slow", SLOW_AT_ONCE))


def turns(request: Request, name: str, most: int) -> CapacityLimiter:
    """For so many calls of this name at once, in each process."""
    state = request.app.state
    if not hasattr(state, name):
        setattr(state, name, CapacityLimiter(most))
    limiter: CapacityLimiter = getattr(state, name)
    return limiter


async def _tell_when_gone(request: Request, tell: Callable[[], object]) -> None:
    try:
        while (await request.receive())["type"] != "http.disconnect":
            pass  # a body where none belongs
    except HTTPException:
        pass  # more of that than is bearable
    # The threads may all be busy, with nothing but what is to be ended here.
    await to_thread.run_sync(tell, limiter=CapacityLimiter(1))
