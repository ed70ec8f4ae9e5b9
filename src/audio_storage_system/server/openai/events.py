"""A transcription as it is made: server-sent events (`stream=true`)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias

from anyio import from_thread
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from audio_storage_system.errors import AudioStorageSystemError, Unexpected
from audio_storage_system.records import Segment
from audio_storage_system.server import problems
from audio_storage_system.server.openai.answers import Kept, Language, Said, Tokens, speaker_segment, tokens_of
from audio_storage_system.server.openai.faults import as_error
from audio_storage_system.server.openai.work import ClientGone, Work
from audio_storage_system.server.sending import EVENTS, GROWING

logger = logging.getLogger(__name__)

Item: TypeAlias = Sequence[Segment] | Said | Exception


class Delta(BaseModel):
    """More of the text. segment_id: of `diarized_json`."""

    type: Literal["transcript.text.delta"] = "transcript.text.delta"
    delta: str
    segment_id: str | None = None


class Done(Kept):
    """All of the text: the last event."""

    type: Literal["transcript.text.done"] = "transcript.text.done"
    text: str
    languages: list[Language]
    usage: Tokens


async def begun(request: Request, work: Work, *, speakers: bool) -> Response:
    """The events of this work, from its first result on: what fails before that is raised, and has a status of its own.
    speakers: with segments, as of `diarized_json`."""
    stream = EventStream(request, work, speakers=speakers)
    await stream.begin()
    return stream


class EventStream(Response):
    """The answer whose body grows as the work goes on. Nobody waits for who reads slowly: what was said is kept in
    memory for them."""

    media_type = EVENTS

    def __init__(self, request: Request, work: Work, *, speakers: bool) -> None:
        super().__init__(headers=GROWING)
        del self.headers["content-length"]
        self._items: asyncio.Queue[Item] = asyncio.Queue()
        self._speakers, self._count = speakers, 0
        self._work, self._working = work, asyncio.create_task(self._run(request, work))

    async def begin(self) -> None:
        """Wait for the first result. Raises what went wrong instead."""
        self._first = await self._items.get()
        if isinstance(self._first, Exception):
            await self._working
            raise self._first
        self.headers.update(self._work.headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI calls it."""
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            item = self._first
            while True:
                for text in self._events(item):
                    await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
                if not isinstance(item, Sequence):
                    break
                item = await self._items.get()
            await send({"type": "http.response.body", "body": b""})
        finally:
            await self._working

    async def _run(self, request: Request, work: Work) -> None:
        try:
            said = await work.done(request, lambda kept: from_thread.run_sync(self._items.put_nowait, kept))
            self._items.put_nowait(said)
        except Exception as error:
            self._items.put_nowait(error)

    def _events(self, item: Item) -> Iterator[str]:
        if isinstance(item, Said):
            yield _event(self._done(item))
        elif isinstance(item, Exception):
            yield from _failure(item)
        else:
            for segment in item:
                yield from self._of_segment(segment)

    def _of_segment(self, segment: Segment) -> Iterator[str]:
        text = segment.text.strip()
        delta = Delta(delta=f" {text}" if self._count else text)
        if self._speakers:
            whole = speaker_segment(self._count, segment)
            delta.segment_id = whole.id
            yield _event(delta)
            yield _event(whole)
        else:
            yield _event(delta)
        self._count += 1

    def _done(self, said: Said) -> Done:
        return Done(
            text=said.text,
            languages=[Language(code=said.language)] if said.language else [],
            usage=tokens_of(said),
            audio_id=said.audio_id,
            transcript_id=said.transcript_id,
        )


def _event(model: BaseModel) -> str:
    return f"data: {model.model_dump_json(exclude_none=isinstance(model, Delta))}\n\n"


def _failure(error: Exception) -> Iterator[str]:
    """What clients raise as their own error; the status was sent long ago."""
    if isinstance(error, ClientGone):
        return
    if isinstance(error, AudioStorageSystemError):
        told = as_error(problems.of_error(error), error)
    else:
        logger.error("A transcription: this should not have happened", exc_info=error)
        told = as_error(problems.of_error(Unexpected()), None)
    yield f"data: {bytes(told.body).decode()}\n\n"
