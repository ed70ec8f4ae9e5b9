"""`/api/v1/live`: sound in, JSON back. The protocol is described in `docs/howto/live-sockets.md`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from anyio import sleep
from fastapi import APIRouter
from starlette.types import Message as Incoming
from starlette.websockets import WebSocket

from audio_storage_system.audio.streaming import Form
from audio_storage_system.errors import InvalidInput, SessionHeld
from audio_storage_system.live import Ended, Event, LiveReport, LiveSession, Suspended, Unheard, Wanted
from audio_storage_system.live.session import DEFAULT_RATE
from audio_storage_system.server.live.conversation import Conversation
from audio_storage_system.server.live.feeding import Coded, Samples
from audio_storage_system.server.live.limits import (
    ASKED_AGAIN_SECONDS,
    HELD_SECONDS,
    POSITION_SECONDS,
    SILENT_SECONDS,
    START_SECONDS,
)
from audio_storage_system.server.live.messages import DECODED, PCM, Finish, Lost, Start, parsed, said_in, start_of
from audio_storage_system.server.live.outbox import Message
from audio_storage_system.server.offers import offered
from audio_storage_system.server.problems import Problem, of_error

router = APIRouter()
NOTHING = LiveReport("", None, 0.0, 0.0, (), None, None)


@router.websocket("/api/v1/live")
async def live(socket: WebSocket) -> None:
    """Record live: see `docs/howto/live-sockets.md`."""
    await LiveSocket(socket).run()


class LiveSocket(Conversation):
    """A client that sends sound as bytes and hears JSON."""

    silent_seconds = SILENT_SECONDS
    _start: Start
    _started = False
    _early: tuple[Event, ...] = ()
    _position = -1.0
    _positions: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Open the session that the address or the first message names."""
        self._start = start_of(self.socket.query_params) if self.socket.query_params else await self._first()
        self._positions = asyncio.create_task(self._tell_positions())
        if self._start.session is not None:
            await self._go_on(self._start.session)
        elif self._start.encoding == PCM:
            session = await self.work(self._open, self._start.form(Form(DEFAULT_RATE, 1)))
            self.feed = Samples(session)
        else:
            wanted = self._start.form(DECODED) if self._start.names_form else None
            if wanted is not None:
                Wanted(wanted.sample_rate, wanted.channels).check()
            self.feed = self._coded(lambda form: Samples(self._open(form)), wanted)

    async def take(self, message: Incoming) -> bool:
        """Sound, or a word about it. What is not understood ends nothing."""
        if message.get("bytes") is not None:
            await self.hear(message["bytes"])
            return True
        try:
            said = said_in(message["text"])
        except InvalidInput as error:
            self.outbox.put(self.failed(of_error(error)), "error")
            return True
        if isinstance(said, Finish):
            await self.work(self._finish)
            return False
        if isinstance(said, Lost):
            await self._lose(said.seconds)
        else:
            self.outbox.put({"type": "pong"}, "pong")
        return True

    def told(self, event: Event) -> None:
        """Everything but that the session was suspended: by then nobody listens."""
        if not self._started:
            self._early += (event,)
        elif isinstance(event, Ended):
            self.outbox.put({"type": "ended", **event.report.as_dict()})
        elif isinstance(event, Unheard):
            self.outbox.put({"type": event.type, **of_error(event.error).brief()})
        elif not isinstance(event, Suspended):
            latest_only = event.type in ("partial", "lag")
            self.outbox.put(event.as_dict(), event.type if latest_only else None)

    def failed(self, problem: Problem) -> Message:
        """Code, message and whether it can help to try again."""
        return {"type": "error", **problem.brief()}

    async def leave(self) -> None:
        """Leave the session to whoever resumes it."""
        if self._positions is not None:
            self._positions.cancel()
        await super().leave()

    # Opening

    async def _first(self) -> Start:
        message = await self.receive(START_SECONDS)
        if message.get("text") is None:
            raise InvalidInput(reason='The first message is "start", unless the address says what is sent')
        return start_of(parsed(message["text"]))

    def _open(self, form: Form) -> LiveSession:
        """In a thread."""
        start = self._start
        return self._enter(
            sample_rate=form.sample_rate,
            channels=form.channels,
            metadata=start.metadata,
            language=start.language,
            whisper_model=offered(self.storage, start.whisper_model),
            transcriber=offered(self.storage, start.transcriber),
            resume_seconds=self.storage.settings.live_resume_seconds,
        )

    def _enter(self, **wanted: Any) -> LiveSession:
        self.session = session = self.storage.live(**wanted, on_event=self.tell)
        self.call(self._begun, session)
        return session

    def _coded(self, enter: Callable[[Form], Samples], wanted: Form | None) -> Coded:
        return Coded(self._start.encoding, enter, partial(self.call, self.stop), wanted)

    async def _go_on(self, name: str) -> None:
        session = await self._resumed(name)
        if self._start.names_form and self._start.encoding == PCM:
            form = Form(session.sample_rate, session.channels)
            if self._start.form(form) != form:
                raise InvalidInput(reason=f"the session has {form.sample_rate} Hz and {form.channels} channels")
        samples = Samples(session, self._start.begins)
        if self._start.encoding == PCM:
            self.feed = samples
        else:
            self.feed = self._coded(lambda form: samples, Form(session.sample_rate, session.channels))

    async def _resumed(self, name: str) -> LiveSession:
        """The session, as soon as whoever has it lets go of it. Raises `SessionHeld`, `NotFound`."""
        until = asyncio.get_running_loop().time() + HELD_SECONDS
        while True:
            try:
                return await self.work(lambda: self._enter(resume=name))
            except SessionHeld:
                if asyncio.get_running_loop().time() > until:
                    raise
            await self.claim(name)
            await sleep(ASKED_AGAIN_SECONDS)

    def _begun(self, session: LiveSession) -> None:
        self.entered(session)
        form = {"sample_rate": session.sample_rate, "channels": session.channels}
        self._started, self._position = True, session.position
        known = {"session_id": session.id, "audio_id": session.audio_id, "position": self._position}
        self.outbox.put({"type": "started", **known, **form, "resume_seconds": session.resume_seconds})
        for event in self._early:
            self.told(event)

    # Going on

    async def _lose(self, seconds: float) -> None:
        if self.session is None:
            error = InvalidInput(reason="Nothing can be lost before there is sound")
            self.outbox.put(self.failed(of_error(error)), "error")
        else:
            await self.work(self.session.skip, seconds)

    def _finish(self) -> None:
        """In a thread."""
        if self.feed is not None:
            self.feed.close()
        if self.session is not None:
            self.session.finish()
        else:
            self.call(self.outbox.put, {"type": "ended", **NOTHING.as_dict()})

    async def _tell_positions(self) -> None:
        while True:
            await sleep(POSITION_SECONDS)
            if self.session is not None and self._started and self.session.position != self._position:
                self._position = self.session.position
                self.outbox.put({"type": "position", "position": self._position}, "position")
