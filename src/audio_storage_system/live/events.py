"""What a live session tells while it goes on, and the queue in which that waits for whoever reads it."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from audio_storage_system.errors import AudioStorageSystemError
from audio_storage_system.records import Segment, Span, jsonable

logger = logging.getLogger(__name__)

# Events that wait for a reader; of one who never reads, the oldest are forgotten. What was said is in the archive.
MOST_WAITING = 1_000


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a live session. All times are seconds of its recording."""

    type: ClassVar[str]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; `type` says which event it is."""
        return {"type": self.type, **jsonable(asdict(self))}


@dataclass(frozen=True, slots=True)
class SpeechStarted(Event):
    """Somebody began to speak. `item` names the piece of speech: the millisecond at which it begins."""

    type = "speech_started"

    item: int
    start: float


@dataclass(frozen=True, slots=True)
class Partial(Event):
    """What has been understood so far of a piece of speech that goes on: all of it, not only what is new."""

    type = "partial"

    item: int
    start: float
    end: float
    text: str


@dataclass(frozen=True, slots=True)
class Final(Event):
    """What was said in a piece of speech that is over, as it is stored: `text` is empty, with no `segments`, where it
    was no speech after all. searchable: search finds it by now, by its words and by what it means; false where the
    embedder is not to be had: by its words only."""

    type = "final"

    item: int
    start: float
    end: float
    text: str
    segments: tuple[Segment, ...]
    transcript_id: int
    searchable: bool


@dataclass(frozen=True, slots=True)
class Lag(Event):
    """Recognition is so many seconds behind the sound, which is stored all the same; 0 when it has caught up."""

    type = "lag"

    seconds: float


@dataclass(frozen=True, slots=True)
class Unheard(Event):
    """There will be no more text in this session, for this error. The sound is stored all the same."""

    type = "unheard"

    error: AudioStorageSystemError

    def as_dict(self) -> dict[str, Any]:
        """With code, message and retryable of the error."""
        return {"type": self.type, **self.error.as_dict()}


@dataclass(frozen=True, slots=True)
class LiveReport:
    """What became of a live session. `audio_id` is `None` where nothing was ever written to it.

    missing_seconds: how much of it is known to be lost; gaps: where, with the start in the recording as it is and the
    length that is missing. transcript_id: the version made while it was spoken, `None` where there is none. job_id: the
    job that makes the version of the whole model, `None` where none was wanted. duplicate: these bytes were stored
    before, under this id.
    """

    session: str
    audio_id: int | None
    seconds: float
    missing_seconds: float
    gaps: tuple[Span, ...]
    transcript_id: int | None
    job_id: int | None
    duplicate: bool = False

    def __str__(self) -> str:
        if self.audio_id is None:
            return "Nothing was recorded"
        told = f"{self.seconds:.2f} s recorded, {self.missing_seconds:.2f} s missing; stored as recording"
        return f"{told} {self.audio_id}"

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        data: dict[str, Any] = jsonable(asdict(self))
        return data


@dataclass(frozen=True, slots=True)
class Ended(Event):
    """The session is over and its recording complete. The last event."""

    type = "ended"

    report: LiveReport


@dataclass(frozen=True, slots=True)
class Suspended(Event):
    """The session was left at this second, for whoever resumes it. The last event here."""

    type = "suspended"

    position: float


class Events:
    """Hands events on: to `tell` at once, and to who reads them here. A reader who is slow gets of each piece of speech
    only the latest partial text."""

    def __init__(self, tell: Callable[[Event], None] | None = None) -> None:
        self._tell = tell
        self._waiting: deque[Event] = deque(maxlen=MOST_WAITING)
        self._changed = threading.Condition()
        self._over = False

    def put(self, event: Event) -> None:
        """Never waits for anybody who reads; what `tell` raises is logged. Nothing is told once the session is over:
        who listens may take a moment to notice."""
        with self._changed:
            if self._over:
                return
            if isinstance(event, Partial) and self._waiting and _is_older(self._waiting[-1], event):
                self._waiting.pop()
            self._waiting.append(event)
            self._over = isinstance(event, Ended | Suspended)
            self._changed.notify_all()
        if self._tell is not None:
            try:
                self._tell(event)
            except Exception:  # whose code this is nobody knows, and the recording goes on
                logger.exception("on_event failed")

    def read(self, timeout: float | None = None) -> Iterator[Event]:
        """Events as they come, until the session is over, or none has come for `timeout` seconds."""
        while (event := self._next(timeout)) is not None:
            yield event

    def _next(self, timeout: float | None) -> Event | None:
        until = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while not self._waiting:
                left = None if until is None else until - time.monotonic()
                if self._over or (left is not None and left <= 0):
                    return None
                self._changed.wait(left)
            return self._waiting.popleft()


def _is_older(waiting: Event, event: Partial) -> bool:
    return isinstance(waiting, Partial) and waiting.item == event.item
