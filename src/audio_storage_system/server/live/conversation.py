"""A socket from its opening to its end: who asks, what comes in, what goes out, and what becomes of the session."""

from __future__ import annotations

import asyncio
import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from anyio import CancelScope, move_on_after, to_thread
from starlette.types import Message as Incoming
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from audio_storage_system import AudioStorageSystem
from audio_storage_system.errors import (
    AudioStorageSystemError,
    ClientSilent,
    Conflict,
    Forbidden,
    SessionHeld,
    Unauthorized,
    Unexpected,
)
from audio_storage_system.live import Event, LiveSession
from audio_storage_system.server import problems
from audio_storage_system.server.live import door
from audio_storage_system.server.live.feeding import Feed
from audio_storage_system.server.live.limits import DRAIN_SECONDS
from audio_storage_system.server.live.outbox import Message, Outbox
from audio_storage_system.server.live.seats import Seats
from audio_storage_system.server.problems import Problem

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Close codes: 4000 and the status that the same error has over HTTP; these from RFC 6455.
OVER, UNEXPECTED = 1000, 1011
PRIVATE_CODES = 4000
LONGEST_REASON_BYTES = 123
# Between two looks at whether who asks is still admitted.
ADMITTED_SECONDS = 60.0
# So much sound goes on at once: between two pieces the socket can be stopped.
PIECE_BYTES = 1 << 14


class Conversation(ABC):
    """What every live socket does; what it speaks is its subclass's. All of it is for the event loop's thread, which
    nothing here keeps waiting, unless a method says otherwise."""

    def __init__(self, socket: WebSocket) -> None:
        self.socket = socket
        self.outbox = Outbox()
        self.storage: AudioStorageSystem
        self.who = ""
        self.session: LiveSession | None = None
        self.feed: Feed | None = None
        self._seats: Seats = socket.app.state.seats
        self._loop = asyncio.get_running_loop()
        self._scope = CancelScope()
        self._why: Exception | None = None
        self._gone = asyncio.Event()

    @property
    @abstractmethod
    def silent_seconds(self) -> float:
        """How long a client may send nothing."""

    @abstractmethod
    async def begin(self) -> None:
        """What there is to do before messages are taken."""

    @abstractmethod
    async def take(self, message: Incoming) -> bool:
        """Do what a message asks; whether there may be more of them."""

    @abstractmethod
    def told(self, event: Event) -> None:
        """Put what a session tells into the outbox."""

    @abstractmethod
    def failed(self, problem: Problem) -> Message:
        """The message that tells of an error."""

    async def leave(self) -> None:
        """The client is gone, or is to go: let go of what it has. Default: others may go on with the session."""
        await self.work(self.let_go)

    async def run(self) -> None:
        """All of it; returns when the socket is closed."""
        await self.socket.accept(door.subprotocol(self.socket))
        sender = asyncio.create_task(self._send())
        code, reason = UNEXPECTED, ""
        try:
            await self._serve()
            code = OVER
        except WebSocketDisconnect:
            return
        except AudioStorageSystemError as error:
            problem = problems.of_error(error)
            code, reason = close_code(problem), problem.detail
            self.outbox.put(self.failed(problem))
        except Exception:
            logger.exception("A live socket: this should not have happened")
            self.outbox.put(self.failed(problems.of_error(Unexpected())))
        finally:
            await self._end(sender, code, reason)

    # For subclasses

    async def work(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call what may wait, in a thread."""
        return await to_thread.run_sync(function, *arguments, limiter=self._seats.threads)

    def call(self, function: Callable[..., None], *arguments: Any) -> None:
        """From any thread: have the event loop call this soon."""
        with suppress(RuntimeError):  # it has ended, and with it whoever would be told
            self._loop.call_soon_threadsafe(function, *arguments)

    def tell(self, event: Event) -> None:
        """From any thread: what the session tells."""
        self.call(self.told, event)

    def entered(self, session: LiveSession) -> None:
        """Note that this is the session of this socket from now on."""
        self.session = session
        self._seats.hold(session.id, self)

    async def claim(self, session: str) -> None:
        """Have another socket of the same caller let go of this session."""
        await self._seats.claim(session, self.who)

    async def hear(self, data: bytes) -> None:
        """Take sound; a client that is too fast waits."""
        if self.feed is None:
            raise Conflict(reason="No session has begun yet")
        for start in range(0, len(data), PIECE_BYTES):
            if pause := await self.work(self.feed.write, data[start : start + PIECE_BYTES]):
                await asyncio.sleep(pause)

    def stop(self, why: Exception) -> None:
        """End the socket as if what it does now had raised this."""
        self._why = why
        self._scope.cancel()
        if self.feed is not None:  # a thread may wait in it
            self._loop.run_in_executor(None, self.feed.cut)

    async def give_up(self) -> None:
        """Another socket goes on with the session: let go of it and end."""
        self.stop(SessionHeld(session=self.session.id if self.session else ""))
        await self._gone.wait()

    def let_go(self) -> None:
        """In a thread: store what came in, and leave the session to whoever resumes it."""
        try:
            if self.feed is not None:
                self.feed.close()
        except AudioStorageSystemError as error:
            logger.info("A live socket: %s", error)
        if self.session is not None and not self.session.ended:
            with suppress(Conflict):  # it ended in this moment
                self.session.suspend()

    # Inside

    async def _serve(self) -> None:
        self.storage = await self.work(door.admitted, self.socket)
        self.who = self.storage.principal
        with self._seats.taken(self.who):
            admission = asyncio.create_task(self._stay_admitted())
            try:
                with self._scope:
                    await self.begin()
                    while await self.take(await self.receive(self.silent_seconds)):
                        continue
            finally:
                admission.cancel()
                with CancelScope(shield=True):
                    await self._leave()
        if self._why is not None:
            raise self._why

    async def _stay_admitted(self) -> None:
        while True:
            await asyncio.sleep(ADMITTED_SECONDS)
            try:
                await self.work(door.admitted, self.socket)
            except (Unauthorized, Forbidden) as error:
                self.stop(error)
            except AudioStorageSystemError as error:  # of the catalogue: asked again later
                logger.info("A live socket: %s", error)

    async def receive(self, seconds: float) -> Incoming:
        """The next message. Raises `ClientSilent`, `WebSocketDisconnect`."""
        try:
            async with asyncio.timeout(seconds):
                message = await self.socket.receive()
        except TimeoutError:
            raise ClientSilent(seconds=seconds) from None
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code") or 1006)
        return message

    async def _leave(self) -> None:
        try:
            await self.leave()
        finally:
            if self.session is not None:
                self._seats.let_go(self.session.id, self)
            self._gone.set()

    def left(self) -> None:
        """Note that this socket has no session now, and may get another."""
        if self.session is not None:
            self._seats.let_go(self.session.id, self)
        self.session = self.feed = None

    async def _send(self) -> None:
        with suppress(WebSocketDisconnect):
            while True:
                message = await self.outbox.next()
                await self.socket.send_text(json.dumps(message, ensure_ascii=False))
                self.outbox.sent()

    async def _end(self, sender: asyncio.Task[None], code: int, reason: str) -> None:
        here = self.socket.client_state is WebSocketState.CONNECTED
        with CancelScope(shield=True):
            if here and not sender.done():
                await self.outbox.drained(DRAIN_SECONDS)
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
            if here:
                with suppress(WebSocketDisconnect, RuntimeError), move_on_after(DRAIN_SECONDS):
                    await self.socket.close(code, _shortened(reason))


def close_code(problem: Problem) -> int:
    """The code with which a socket closes for an error."""
    return PRIVATE_CODES + problem.status if problem.status != 500 else UNEXPECTED


def _shortened(reason: str) -> str:
    return reason.encode()[:LONGEST_REASON_BYTES].decode(errors="ignore")
