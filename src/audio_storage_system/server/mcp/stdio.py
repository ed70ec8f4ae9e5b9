"""The server on standard input and output: one client, which started this process and speaks for its user."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.server.stdio import stdio_server

from audio_storage_system.server.mcp.caller import Caller
from audio_storage_system.server.mcp.protocol import make_server
from audio_storage_system.server.problems import of_error_here

logger = logging.getLogger(__name__)

STDIN = 0
MAX_MESSAGE_BYTES = 1024**2
CHUNK_BYTES = 64 * 1024


def serve(caller: Callable[[], Caller]) -> None:
    """Answer what comes on standard input, on standard output, until the input ends or Ctrl-C comes
    (`KeyboardInterrupt`). Nothing else is written there: what a part of this process prints goes to standard error.
    caller: asked with every request."""
    anyio.run(_serve, caller)


async def _serve(caller: Callable[[], Caller]) -> None:
    server = make_server(lambda context: caller(), of_error_here)
    with _taken(STDIN) as descriptor, _cancelled_first():
        async with stdio_server(stdin=cast(Any, Lines(descriptor))) as (incoming, outgoing):
            await server.run(incoming, outgoing, server.create_initialization_options())


@contextmanager
def _taken(descriptor: int) -> Iterator[int]:
    """The stream behind a descriptor, under another number; whoever reads the old one finds it empty."""
    taken, empty = os.dup(descriptor), os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, descriptor)
    os.close(empty)
    try:
        yield taken
    finally:
        os.dup2(taken, descriptor)  # the copy stays open: the thread may be reading it to the end of the process


@contextmanager
def _cancelled_first() -> Iterator[None]:
    """A task that was cancelled ends as one, whatever its parts tripped over on their way out: a relay of the SDK may
    fail to hand on what its reader, cancelled before it, no longer takes."""
    try:
        yield
    except Exception as error:
        task = asyncio.current_task()
        if task is None or not task.cancelling():
            raise
        raise asyncio.CancelledError from error


class Lines:
    """The lines that come from a descriptor, each of at most `MAX_MESSAGE_BYTES`; a longer one is left out.

    A thread that nobody waits for reads them: the program ends on Ctrl-C, though nothing can wake a read of a terminal.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._received: MemoryObjectReceiveStream[str] | None = None

    def __aiter__(self) -> Lines:
        send, self._received = anyio.create_memory_object_stream[str](0)
        arguments = (send, asyncio.get_running_loop())
        threading.Thread(target=self._read, args=arguments, name="standard input", daemon=True).start()
        return self

    async def __anext__(self) -> str:
        try:
            return await cast(MemoryObjectReceiveStream[str], self._received).receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    def _read(self, send: MemoryObjectSendStream[str], loop: asyncio.AbstractEventLoop) -> None:
        try:
            for line in lines_of(self._descriptor):
                asyncio.run_coroutine_threadsafe(send.send(line), loop).result()
            loop.call_soon_threadsafe(send.close)
        except (RuntimeError, anyio.BrokenResourceError):
            pass  # the server has ended


def lines_of(descriptor: int, max_bytes: int = MAX_MESSAGE_BYTES) -> Iterator[str]:
    """The lines read from a descriptor until it ends, without those longer than this."""
    begun, dropping = bytearray(), False
    while chunk := os.read(descriptor, CHUNK_BYTES):
        *ended, rest = chunk.split(b"\n")
        for piece in ended:
            if not dropping and len(begun) + len(piece) <= max_bytes:
                yield (bytes(begun) + piece).decode("utf-8", "replace")
            else:
                logger.warning("A message of more than %d bytes was left out", max_bytes)
            begun, dropping = bytearray(), False
        begun += rest
        if len(begun) > max_bytes:
            begun, dropping = bytearray(), True
    if begun and not dropping:
        yield begun.decode("utf-8", "replace")
