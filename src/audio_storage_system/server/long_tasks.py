"""Tasks that take minutes, over HTTP: the answer is lines of JSON that tell how far it is, and at the end the result.

Such a task runs in a thread of its own, so that it takes none from those that answer requests, and at most a few run in
one process. A line comes at least every few seconds: nothing on the way takes the connection for dead. Whoever hangs up
stops the task at its next step, as Ctrl-C does; each of them can be run again.
"""

from __future__ import annotations

import contextvars
import io
import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, Generic, Literal, TypeVar

import anyio
from anyio import from_thread
from anyio.lowlevel import current_token
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from fastapi import Depends, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from audio_storage_system.errors import AudioStorageSystemError, Busy, Unexpected
from audio_storage_system.server import problems
from audio_storage_system.server.problems import Problem
from audio_storage_system.server.sending import GROWING

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/x-ndjson"
AT_ONCE = 4
# What fails so soon is answered with the status of its error; what fails later, with a line.
PATIENCE_SECONDS = 2.0
HEARTBEAT_SECONDS = 5.0
# A client that reads nothing for so long has hung up.
UNREAD_SECONDS = 60.0
STOP_SECONDS = 10.0
TOLD_EVERY_SECONDS = 0.2
CHUNK_CHARACTERS = 1 << 16
LINES_AHEAD = 16

Result = TypeVar("Result", bound=BaseModel)
Tell = Callable[[str, int, int | None], None]


class Progress(BaseModel):
    """How far a task is."""

    stage: str = Field(examples=["checking files"])
    done: int = Field(examples=[3])
    total: int | None = Field(default=None, description="Of how much, where that is known.", examples=[17])


class Line(BaseModel, Generic[Result]):
    """One line of the answer, with what its `event` names. The last one is a `result`, or an `error`; an answer that
    ends otherwise was cut off."""

    event: Literal["progress", "result", "error"]
    progress: Progress | None = None
    result: Result | None = None
    error: Problem | None = None


class NdJson(StreamingResponse):
    """Lines of JSON."""

    media_type = MEDIA_TYPE


class HungUp(BaseException):
    """Nobody reads the answer any more. No error, so that nothing on its way takes it for one."""


class LongTasks:
    """The long tasks of this process. Safe to share between threads."""

    def __init__(self) -> None:
        self._room = threading.BoundedSemaphore(AT_ONCE)
        self._closing = threading.Event()
        self._threads: set[threading.Thread] = set()

    def run(self, do: Callable[[Tell], BaseModel]) -> StreamingResponse:
        """Have `do` done, which gets a function to tell how far it is; the answer with its result as the last line. To
        be called in a thread that answers a request. Raises `Busy`, and what `do` raises at once."""

        def told(out: _Out) -> None:
            out.line("result", do(out.tell))

        return self._started(told, MEDIA_TYPE)

    def export(self, write: Callable[[io.TextIOBase], Any], media_type: str = MEDIA_TYPE) -> StreamingResponse:
        """Have `write` write the answer as it goes. Where it fails halfway, the connection is cut. Raises as `run`."""

        def told(out: _Out) -> None:
            text = _Text(out)
            write(text)
            text.send()

        return self._started(told, media_type, raw=True)

    def close(self) -> None:
        """Stop what is running, at its next step."""
        self._closing.set()
        for thread in list(self._threads):
            thread.join(STOP_SECONDS)

    def _started(self, do: Callable[[_Out], None], media_type: str, *, raw: bool = False) -> StreamingResponse:
        if not self._room.acquire(blocking=False):
            raise Busy(reason=f"{AT_ONCE} long tasks are running already; try again when one of them is done")
        try:
            send, receive = from_thread.run_sync(lambda: anyio.create_memory_object_stream[bytes](LINES_AHEAD))
            out = _Out(send, from_thread.run_sync(current_token), self._closing)
            task = _Task(do, out, raw=raw)
            context = contextvars.copy_context()  # it says where the request came from
            thread = threading.Thread(target=context.run, args=(self._finish, task), name="long task", daemon=True)
        except BaseException:
            self._room.release()
            raise
        self._threads.add(thread)
        thread.start()
        if (refused := task.refused()) is not None:
            receive.close()
            raise refused
        return StreamingResponse(_sent(receive, task), media_type=media_type, headers=GROWING)

    def _finish(self, task: _Task) -> None:
        try:
            task.work()
        finally:
            self._room.release()
            self._threads.discard(threading.current_thread())


class _Out:
    """Where a task writes its lines, from its thread into the event loop."""

    def __init__(self, send: MemoryObjectSendStream[bytes], token: Any, closing: threading.Event) -> None:
        self._send, self._token, self._closing = send, token, closing
        self.begun = threading.Event()
        self._stage, self._told = "", float("-inf")
        self.last: bytes = _line("progress", Progress(stage="begun", done=0))

    def tell(self, stage: str, done: int, total: int | None = None) -> None:
        """How far it is; left out where that was told just now, or the reader is behind."""
        now = time.monotonic()
        if stage == self._stage and now - self._told < TOLD_EVERY_SECONDS:
            return
        self._stage, self._told = stage, now
        self.last = _line("progress", Progress(stage=stage, done=done, total=total))
        self.begun.set()
        try:
            self._call(self._send.send_nowait, self.last)
        except anyio.WouldBlock:
            pass

    def line(self, event: str, value: BaseModel) -> None:
        """A line that has to arrive."""
        self.put(_line(event, value))

    def put(self, data: bytes) -> None:
        """Bytes that have to arrive: waits for the reader. Raises `HungUp`."""
        self.begun.set()
        if self._closing.is_set():
            raise HungUp
        try:
            from_thread.run(self._send_within, data, token=self._token)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, TimeoutError, RuntimeError) as error:
            raise HungUp from error

    def close(self) -> None:
        """No more lines."""
        try:
            from_thread.run_sync(self._send.close, token=self._token)
        except RuntimeError:  # there is no event loop any more
            pass

    async def _send_within(self, data: bytes) -> None:
        with anyio.fail_after(UNREAD_SECONDS):
            await self._send.send(data)

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        if self._closing.is_set():
            raise HungUp
        try:
            from_thread.run_sync(function, *arguments, token=self._token)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, RuntimeError) as error:
            raise HungUp from error


class _Task:
    """One of them. raw: its answer is not made of lines; failed: so that it is to be cut off."""

    def __init__(self, do: Callable[[_Out], None], out: _Out, *, raw: bool) -> None:
        self._do, self.raw, self.out = do, raw, out
        self._lock = threading.Lock()  # held to decide whether an error comes before the answer or in it
        self._refused: Exception | None = None
        self.failed = False

    def refused(self) -> Exception | None:
        """Why it did not even begin; `None` as soon as it has, or takes its time."""
        self.out.begun.wait(PATIENCE_SECONDS)
        with self._lock:
            self.out.begun.set()
            return self._refused

    def work(self) -> None:
        """Do it, whatever comes of it."""
        try:
            self._do(self.out)
        except HungUp:
            logger.info("A long task was stopped: nobody reads its answer")
        except Exception as error:
            self._fail(error)
        finally:
            self.out.close()
            self.out.begun.set()

    def _fail(self, error: Exception) -> None:
        with self._lock:
            if not self.out.begun.is_set():
                self._refused = error
                return
        self.failed = True
        if not isinstance(error, AudioStorageSystemError):
            logger.error("A long task failed: this should not have happened", exc_info=error)
        if not self.raw:
            try:
                self.out.line("error", _problem_of(error))
            except HungUp:
                pass


def _problem_of(error: Exception) -> Problem:
    if isinstance(error, AudioStorageSystemError):
        return problems.of_error(error)
    return problems.of_error(Unexpected())


def _line(event: str, value: BaseModel) -> bytes:
    return json.dumps({"event": event, event: value.model_dump(mode="json")}, ensure_ascii=False).encode() + b"\n"


async def _sent(receive: MemoryObjectReceiveStream[bytes], task: _Task) -> AsyncIterator[bytes]:
    """What is written, and while nothing is, how far it is."""
    with receive:
        while True:
            data = b""
            with anyio.move_on_after(HEARTBEAT_SECONDS):
                try:
                    data = await receive.receive()
                except anyio.EndOfStream:
                    break
            if data or not task.raw:
                yield data or task.out.last
    if task.failed and task.raw:
        raise ConnectionError("A long answer was cut off")


class _Text(io.TextIOBase):
    """Text that goes out in pieces. Flushing does nothing: the garbage collector does that too, whenever it likes."""

    def __init__(self, out: _Out) -> None:
        self._out = out
        self._pieces: list[str] = []
        self._held = 0

    def write(self, text: str) -> int:
        """As of every text stream."""
        self._pieces.append(text)
        self._held += len(text)
        if self._held >= CHUNK_CHARACTERS:
            self.send()
        return len(text)

    def send(self) -> None:
        """Send what was held back."""
        if self._pieces:
            self._out.put("".join(self._pieces).encode())
            self._pieces, self._held = [], 0


def tasks_of(request: Request) -> LongTasks:
    """The long tasks of the process that answers."""
    tasks: LongTasks = request.app.state.long_tasks
    return tasks


Tasks = Annotated[LongTasks, Depends(tasks_of)]
