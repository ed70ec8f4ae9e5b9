"""Where speech begins and ends in a stream, told as soon as it can be known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from audio_storage_system.audio.activity import FRAME, SAMPLE_RATE, SPEAKS, STILL_SPEAKS, Samples, SpeechDetector

GROUP_FRAMES = 4  # 128 ms: how late speech is noticed
PADDING = 10  # frames kept before speech, and of the pause after it
PAUSE = 16  # frames, 0.5 s, without speech that end a piece
SHORTEST = 4  # frames; anything shorter is a click
# A piece that has become so long ends in the first small pause, and at the latest after this.
LONG, LONGEST = 20 * SAMPLE_RATE // FRAME, 28 * SAMPLE_RATE // FRAME


@dataclass(frozen=True, slots=True)
class Began:
    """Speech began at this second; sound follows."""

    start: float


@dataclass(frozen=True, slots=True)
class Spoken:
    """Sound of the piece that has begun."""

    samples: Samples


@dataclass(frozen=True, slots=True)
class Paused:
    """The piece ended at this second."""

    end: float


Change = Began | Spoken | Paused


class SpeechSegmenter:
    """Cuts a 16 kHz mono stream into pieces of speech, each at most 28 s long, while it comes in. `start`: the second
    at which the stream begins. Memory: less than a second."""

    def __init__(self, start: float = 0.0) -> None:
        self._detector = SpeechDetector(GROUP_FRAMES)
        self._start = start
        self._held = np.zeros(0, np.float32)  # frames that lie in no piece yet, the last of them not yet judged
        self._first = 0  # the number of the first of them
        self._now = 0  # frames judged
        self._begun: int | None = None  # the frame in which a piece began
        self._maybe: int | None = None  # or may have begun
        self._last = 0  # the last frame with speech

    def feed(self, samples: Samples) -> Iterator[Change]:
        """What is known with this sound, in order."""
        self._held = np.concatenate([self._held, samples])
        for probability in self._detector.feed(samples).tolist():
            yield from self._step(probability)
        yield from self._hand_over()

    def finish(self) -> Iterator[Change]:
        """The stream ends here."""
        for probability in self._detector.finish().tolist():
            yield from self._step(probability)
        yield from self._hand_over()
        if self._begun is not None:
            yield from self._end()

    def _step(self, probability: float) -> Iterator[Change]:
        speaking = self._begun is not None or self._maybe is not None
        if probability >= (STILL_SPEAKS if speaking else SPEAKS):
            self._last = self._now
            if self._begun is None:
                yield from self._speaks()
        elif self._begun is not None:
            yield from self._is_quiet()
        elif self._maybe is not None and self._now - self._last > PADDING:
            self._maybe = None
        self._now += 1
        if self._begun is not None and self._now - self._begun >= LONGEST:
            yield from self._end()

    def _speaks(self) -> Iterator[Change]:
        self._maybe = self._now if self._maybe is None else self._maybe
        if self._now - self._maybe + 1 >= SHORTEST:
            self._begun = max(self._first, self._maybe - PADDING)
            self._forget(self._begun)
            self._maybe = None
            yield Began(self._second(self._begun))

    def _is_quiet(self) -> Iterator[Change]:
        assert self._begun is not None  # noqa: S101 - asked before
        pause = self._now - self._last
        if pause > PAUSE or (self._now - self._begun >= LONG and pause > 1):
            yield from self._end()

    def _end(self) -> Iterator[Change]:
        """The piece ends before the frame that comes next; what was heard of the pause is part of it."""
        yield from self._hand_over()
        self._begun = None
        yield Paused(self._second(self._first))

    def _hand_over(self) -> Iterator[Change]:
        """What has been judged belongs to the piece that goes on, or is forgotten."""
        if self._begun is None:
            speech = self._now if self._maybe is None else self._maybe
            self._forget(max(self._first, speech - PADDING))
            return
        count = min((self._now - self._first) * FRAME, len(self._held))
        if count > 0:
            spoken, self._held = self._held[:count].copy(), self._held[count:]
            self._first = self._now
            yield Spoken(spoken)

    def _forget(self, before: int) -> None:
        self._held = self._held[max(0, before - self._first) * FRAME :]
        self._first = before

    def _second(self, frame: int) -> float:
        return round(self._start + frame * FRAME / SAMPLE_RATE, 3)
