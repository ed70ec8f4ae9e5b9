"""`/v1/realtime`: transcription sessions as OpenAI's clients speak of them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from typing import Any
from uuid import uuid4

from fastapi import APIRouter
from starlette.types import Message as Incoming
from starlette.websockets import WebSocket

from audio_storage_system.errors import InvalidInput
from audio_storage_system.live import Event, Final, LiveSession, Partial, SpeechStarted, Unheard
from audio_storage_system.server.live import realtime_items as items
from audio_storage_system.server.live.conversation import Conversation
from audio_storage_system.server.live.feeding import Samples
from audio_storage_system.server.live.g711 import TABLES, expanded
from audio_storage_system.server.live.messages import parsed
from audio_storage_system.server.live.outbox import Message
from audio_storage_system.server.live.realtime_items import Item, event
from audio_storage_system.server.live.realtime_session import Configuration
from audio_storage_system.server.offers import offered
from audio_storage_system.server.problems import Problem, of_error

router = APIRouter()
# Clients of OpenAI do not know that a socket must be kept alive.
SILENT_SECONDS = 900.0
LONGEST_EVENT_ID = 512


@router.websocket("/v1/realtime")
async def realtime(socket: WebSocket) -> None:
    """Transcribe as OpenAI's realtime API does, and archive: see `docs/howto/live-sockets.md`."""
    await RealtimeSocket(socket).run()


class RealtimeSocket(Conversation):
    """A client of OpenAI's realtime API. With turn detection each piece of speech is an item; without, what lies
    between two commits, which is a recording of its own then."""

    silent_seconds = SILENT_SECONDS

    def __init__(self, socket: WebSocket) -> None:
        super().__init__(socket)
        self._id = f"sess_{uuid4().hex}"
        self._beta = "realtime=v1" in socket.headers.get("openai-beta", "")
        self._beta = self._beta or any("openai-beta" in name for name in socket.scope["subprotocols"])
        self._configuration = Configuration()
        self._items: dict[int, Item] = {}
        self._previous: str | None = None
        self._said: list[Final] = []
        self._cleared = 0.0
        self._asking: str | None = None  # the id that the client gave the event in hand

    async def begin(self) -> None:
        """Greet; the session begins with the first sound, as it is configured by then."""
        kind = "transcription_session.created" if self._beta else "session.created"
        self._put([event(kind, session=self._shown())])

    async def take(self, message: Incoming) -> bool:
        """One event of the client; one that is wrong is answered and ends nothing."""
        try:
            if message.get("text") is None:
                raise InvalidInput(reason="Events are JSON texts; sound is in input_audio_buffer.append, in base64")
            said = parsed(message["text"])
            self._asking = _text(said.get("event_id"))
            await self._do(said)
        except InvalidInput as error:
            self.outbox.put(self.failed(of_error(error)))
        return True

    def told(self, happened: Event) -> None:
        """As the events of OpenAI's API."""
        if self._configuration.turn_detection is None:
            if isinstance(happened, Final):
                self._said.append(happened)
        elif isinstance(happened, SpeechStarted):
            self._start(happened.item, happened.start)
        elif isinstance(happened, Partial):
            self._put(self._start(happened.item, happened.start).delta(happened.text, happened.end))
        elif isinstance(happened, Final):
            self._complete(happened)
        if isinstance(happened, Unheard):
            problem = of_error(happened.error)
            self._put(items.failed(item, problem) for item in self._items.values())

    def failed(self, problem: Problem) -> Message:
        """OpenAI's `error` event, with the code of the error tree."""
        kind = "invalid_request_error" if problem.status < 500 else "server_error"
        about = {"type": kind, "code": problem.code, "message": problem.detail, "param": None}
        return event("error", error={**about, "event_id": self._asking})

    async def leave(self) -> None:
        """These clients do not come back to a session: complete the recording."""
        await self.work(self._complete_recording)

    # What the client asks

    async def _do(self, said: Mapping[str, Any]) -> None:
        kind = said.get("type")
        if kind == "input_audio_buffer.append":
            await self._append(said)
        elif kind == "input_audio_buffer.commit":
            await self._commit()
        elif kind == "input_audio_buffer.clear":
            self._clear()
        elif kind in ("session.update", "transcription_session.update"):
            self._update(said.get("session"))
        else:
            raise InvalidInput(reason="Transcription sessions know no such event")

    def _update(self, session: Any) -> None:
        if not isinstance(session, Mapping):
            raise InvalidInput(reason="session is an object")
        wanted = self._configuration.updated(session)
        offered(self.storage, wanted.model)
        if self.session is not None and wanted != self._configuration:
            raise InvalidInput(reason="The session cannot be changed while there is sound that was not committed")
        self._configuration = wanted
        kind = "transcription_session.updated" if self._beta else "session.updated"
        self._put([event(kind, session=self._shown())])

    async def _append(self, said: Mapping[str, Any]) -> None:
        try:
            sound = base64.b64decode(said["audio"], validate=True)
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            raise InvalidInput(reason="audio is sound in base64") from error
        if self.session is None:
            session = await self.work(self._open)
            self.entered(session)
            self.feed = Samples(session)
        table = TABLES.get(self._configuration.format)
        await self.hear(sound if table is None else expanded(sound, table))

    def _open(self) -> LiveSession:
        """In a thread."""
        wanted = self._configuration
        self.session = self.storage.live(
            sample_rate=wanted.rate,
            language=wanted.language,
            whisper_model=offered(self.storage, wanted.model),
            on_event=self.tell,
        )
        return self.session

    async def _commit(self) -> None:
        """All sound so far is a recording, and what was said in it is told; more sound begins another."""
        session = self.session
        if session is None or session.seconds == 0:
            raise InvalidInput(reason="The input audio buffer is empty")
        seconds, before = session.seconds - self._cleared, self._previous
        await self._end_recording()
        if self._previous == before:  # else it was told of piece by piece
            text = " ".join(one.text for one in self._said if one.end > self._cleared and one.text)
            self._commit_item(Item(f"item_{session.id}"), text, seconds, session.audio_id)
        self._items, self._said, self._cleared = {}, [], 0.0

    def _clear(self) -> None:
        """What was captured stays captured; it is not told of in the next item that is committed."""
        self._cleared = self.session.seconds if self.session else 0.0
        self._put([event("input_audio_buffer.cleared")])

    # The recording

    async def _end_recording(self) -> None:
        await self.work(self._complete_recording)
        self.left()

    def _complete_recording(self) -> None:
        """In a thread."""
        if self.feed is not None:
            self.feed.close()
        if self.session is not None and not self.session.ended:
            self.session.finish()

    # What the session tells

    def _start(self, number: int, start: float) -> Item:
        if number not in self._items:
            session = self.session.id if self.session else self._id
            self._items[number] = item = Item(f"item_{session}_{number}")
            began = {"audio_start_ms": round(start * 1000), "item_id": item.id}
            self._put([event("input_audio_buffer.speech_started", **began)])
        return self._items[number]

    def _complete(self, final: Final) -> None:
        item = self._start(final.item, final.start)
        del self._items[final.item]
        ended = {"audio_end_ms": round(final.end * 1000), "item_id": item.id}
        self._put([event("input_audio_buffer.speech_stopped", **ended)])
        audio_id = self.session.audio_id if self.session else None
        self._commit_item(item, final.text, final.end - final.start, audio_id, final.transcript_id)

    def _commit_item(
        self, item: Item, text: str, seconds: float, audio_id: int | None, transcript_id: int | None = None
    ) -> None:
        self._put(items.committed(item, self._previous, beta=self._beta))
        further = {"audio_id": audio_id, "transcript_id": transcript_id}
        self._put(items.completed(item, text, seconds, **further))
        self._previous = item.id

    def _put(self, messages: Iterable[Message]) -> None:
        for message in messages:
            self.outbox.put(message)

    def _shown(self) -> dict[str, Any]:
        wanted = self._configuration
        return wanted.as_beta(self._id) if self._beta else wanted.as_present(self._id)


def _text(value: Any) -> str | None:
    return value[:LONGEST_EVENT_ID] if isinstance(value, str) else None
