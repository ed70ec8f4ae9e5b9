"""Recognition beside the recording, in a thread of its own: it may be late, fail, or not be there at all."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import TypeVar

from audio_storage_system.archive import Archive
from audio_storage_system.errors import AudioStorageSystemError, StorageFailed, TranscriptionFailed
from audio_storage_system.live.ear import Ear, ToModelRate
from audio_storage_system.live.events import Event, Final, Lag, Partial, SpeechStarted, Unheard
from audio_storage_system.live.speech import Began, Change, Paused, SpeechSegmenter, Spoken
from audio_storage_system.live.tail import Tail
from audio_storage_system.live.version import LiveVersion, Spent
from audio_storage_system.records import Recording, Segment, Span
from audio_storage_system.transcribers import TranscribeOptions

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.2
STOP_SECONDS = 10.0  # it is left behind after that, and can store nothing any more
# It is told of being behind by so much, again when it is so much more, and when it is hardly behind any more.
LAG_SECONDS, CAUGHT_UP_SECONDS = 3.0, 1.0
RETRY_SECONDS = 1.0  # while the catalogue cannot be written

T = TypeVar("T")


class _Stopped(Exception):
    """The session does not wait any longer."""


class Recognition:
    """Makes text of the sound that comes through a `Tail`. asked: the engine, by its spec; fallback: the one that may
    stand in; tell: takes events."""

    def __init__(
        self,
        archive: Archive,
        recording: Recording,
        tail: Tail,
        *,
        asked: str,
        fallback: str | None,
        language: str | None,
        tell: Callable[[Event], None],
    ) -> None:
        self._archive, self._recording, self._tail, self._tell = archive, recording, tail, tell
        self._asked, self._fallback = asked, fallback
        self._options = TranscribeOptions(language=language)
        self._stopping = threading.Event()
        self._heard_all = False
        self._told = 0.0
        self._thread = threading.Thread(target=self._run, name="recognition", daemon=True)
        self._thread.start()

    def finish(self, seconds: float) -> bool:
        """Hear the rest, if that can be done in so many seconds; whether all was heard. Nothing is put any more."""
        self._tail.close()
        self._join(seconds)
        self.stop()
        return self._heard_all

    def stop(self) -> None:
        """Leave everything as it is."""
        self._stopping.set()
        self._tail.close()
        self._join(STOP_SECONDS)

    def _join(self, seconds: float) -> None:
        if threading.current_thread() is not self._thread:  # a caller who is told something may end the session
            self._thread.join(seconds)

    def _run(self) -> None:
        try:
            self._listen()
            self._heard_all = True
        except _Stopped:
            pass
        except AudioStorageSystemError as error:
            logger.warning("There is no live text of recording %d any more: %s", self._recording.id, error)
            self._tell(Unheard(error))
        except Exception as error:
            logger.exception("There is no live text of recording %d any more", self._recording.id)
            failure = TranscriptionFailed(audio_id=self._recording.id, reason=f"{type(error).__name__}: {error}")
            failure.__cause__ = error
            self._tell(Unheard(failure))

    def _listen(self) -> None:
        """Hear everything from where the version is, to the end of the session."""
        engines, language = self._archive.engines, self._options.language
        with engines.borrow(self._asked, language=language, fallback=self._fallback) as choice:
            opening = partial(LiveVersion.open, self._archive, self._recording, self._asked, choice, self._options)
            version = self._patiently(opening)
            options = replace(self._options, language=version.language)
            with closing(Ear(choice.transcriber, options)) as ear:
                self._tail.read = round(version.heard_until * self._tail.sample_rate)
                segmenter = SpeechSegmenter(self._tail.read / self._tail.sample_rate)
                convert = ToModelRate(self._tail.sample_rate, self._tail.channels)
                while not self._tail.drained:
                    pcm = self._tail.take(POLL_SECONDS)
                    self._tell_lag()
                    self._go_on(version, ear, segmenter.feed(convert(pcm)))
                self._go_on(version, ear, segmenter.feed(convert(b"", last=True)))
                self._go_on(version, ear, segmenter.finish())

    def _go_on(self, version: LiveVersion, ear: Ear, changes: Iterable[Change]) -> None:
        for change in changes:
            if self._stopping.is_set():
                raise _Stopped
            match change:
                case Began(start):
                    ear.begin(start)
                    self._tell(SpeechStarted(ear.item, start))
                case Spoken(samples):
                    if ear.hear(samples):
                        self._tell(Partial(ear.item, ear.start, ear.until, ear.text))
                case Paused(end):
                    self._keep(version, ear, end)

    def _keep(self, version: LiveVersion, ear: Ear, end: float) -> None:
        """A piece of speech is over: store what was said in it."""
        result, kept, searchable = ear.end(), list[Segment](), False
        if self._stopping.is_set():  # somebody else may be going on with it
            raise _Stopped
        if result.segments:
            spoken = Spent(ear.spent_seconds, self._tail.written / self._tail.sample_rate)
            kept = self._patiently(partial(version.keep, Span(ear.start, end), result, spoken))
            searchable = version.embed(ear.start, ear.samples)
        text = " ".join(segment.text for segment in kept)
        self._tell(Final(ear.item, ear.start, end, text, tuple(kept), version.id, searchable))

    def _patiently(self, work: Callable[[], T]) -> T:
        """The result of `work`, done again while the catalogue cannot be written: nothing heard is lost for that."""
        while True:
            try:
                return work()
            except StorageFailed as error:
                logger.warning("What is heard of recording %d waits: %s", self._recording.id, error)
                if self._stopping.wait(RETRY_SECONDS):
                    raise _Stopped from error

    def _tell_lag(self) -> None:
        behind = self._tail.behind_seconds
        if (self._told and behind < CAUGHT_UP_SECONDS) or behind - self._told >= LAG_SECONDS:
            self._told = 0.0 if behind < CAUGHT_UP_SECONDS else round(behind, 1)
            self._tell(Lag(self._told))
