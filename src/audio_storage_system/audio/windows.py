"""A recording as speech windows: pieces that a recogniser can take, cut where nobody speaks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from audio_storage_system.audio.activity import (
    FRAME,
    SAMPLE_RATE,
    STILL_SPEAKS,
    Samples,
    SpeechDetector,
    SpeechFinder,
)
from audio_storage_system.records import Span

_PADDING = 10  # frames kept on either side of speech
_LONG_PAUSE = 156  # frames, 5 s: a pause after which a new window begins
# Where a cut is sought: from which part of the window on, and how long the pause must be in frames. 0.2 s is no mere
# consonant; 64 ms are taken when there is nothing better.
_SEARCH = ((5 / 6, 6), (2 / 3, 6), (1 / 3, 6), (0.0, 6), (1 / 3, 2))
_AROUND = 3  # frames over which loudness is summed


@dataclass(frozen=True, slots=True)
class SpeechWindow:
    """One piece of a recording with speech in it: `start` in seconds, `samples` float32 mono at 16 kHz."""

    sequence: int
    start: float
    samples: Samples

    @property
    def end(self) -> float:
        return self.start + len(self.samples) / SAMPLE_RATE


def speech_windows(blocks: Iterable[Samples], *, max_seconds: float = 30.0, skip: int = 0) -> SpeechWindows:
    """Cut a 16 kHz mono stream into windows that hold all its speech.

    They are ordered, never overlap, never exceed `max_seconds`, and are the same for the same sound however it is cut
    into blocks. Where speech goes on longer than a window, the cut is at a pause in its later part if there is one. The
    first `skip` windows are passed over; numbering is not changed by that. Memory: about one window.
    """
    return SpeechWindows(blocks, max_seconds, skip)


class SpeechWindows(Iterator[SpeechWindow]):
    """The windows of a stream. `speech` and `duration` grow while it is read and are complete at its end."""

    def __init__(self, blocks: Iterable[Samples], max_seconds: float, skip: int) -> None:
        self._blocks, self._skip = blocks, skip
        self._detector = SpeechDetector()
        self._cutter = _Cutter(int(max_seconds * SAMPLE_RATE) // FRAME, self._loudness)
        self._held = np.zeros(0, np.float32)
        self._offset = 0  # of the first sample held
        self._windows = self._cut()

    def __next__(self) -> SpeechWindow:
        return next(self._windows)

    @property
    def duration(self) -> float:
        """Seconds read so far."""
        return self._detector.duration

    @property
    def speech(self) -> list[Span]:
        """Where somebody speaks, as far as it is read: finer than the windows, without their padding."""
        return self._cutter.finder.seconds(self.duration)

    def _cut(self) -> Iterator[SpeechWindow]:
        sequence = 0
        for begin, end in self._bounds():
            if sequence >= self._skip:
                yield SpeechWindow(sequence, begin * FRAME / SAMPLE_RATE, self._samples(begin, end))
            sequence += 1

    def _bounds(self) -> Iterator[tuple[int, int]]:
        """First frame and frame after the last of each window, while its samples are held."""
        for block in self._blocks:
            self._held = np.concatenate([self._held, block])
            yield from self._cutter.feed(self._detector.feed(block))
            self._forget(self._cutter.needed * FRAME)
        yield from self._cutter.feed(self._detector.finish())
        yield from self._cutter.finish()

    def _samples(self, begin: int, end: int) -> Samples:
        return self._held[begin * FRAME - self._offset : end * FRAME - self._offset].copy()

    def _loudness(self, begin: int, end: int) -> Samples:
        """The energy of each frame."""
        samples = self._samples(begin, end)
        frames: Samples = np.pad(samples, (0, -len(samples) % FRAME)).reshape(-1, FRAME)
        energies: Samples = np.square(frames).sum(axis=1)
        return energies

    def _forget(self, before: int) -> None:
        dropped = max(0, before - self._offset)
        self._held = self._held[dropped:]
        self._offset += dropped


class _Cutter:
    """Decides, frame by frame, where windows begin and end. `needed` is the earliest frame one to come may hold."""

    def __init__(self, longest: int, loudness: Callable[[int, int], Samples]) -> None:
        self.finder = SpeechFinder()
        self.needed = 0
        self._longest, self._loudness = longest, loudness
        self._free = 0  # the first frame that lies in no window yet
        self._done = 0  # how many of the finder's spans lie in windows
        self._probabilities: list[float] = []
        self._known_from = 0  # the frame of the first probability kept

    def feed(self, probabilities: Samples) -> Iterator[tuple[int, int]]:
        """The windows that end with these frames: first frame and frame after the last."""
        for probability in probabilities.tolist():
            self._probabilities.append(probability)
            self.finder.step(probability)
            yield from self._step(self.finder.frames)
        del self._probabilities[: self.needed - self._known_from]
        self._known_from = self.needed

    def finish(self) -> Iterator[tuple[int, int]]:
        """The window that was under way."""
        self.finder.finish()
        speech = self._first_speech()
        if speech is not None:
            yield self._close(self._begin(speech))

    def _step(self, now: int) -> Iterator[tuple[int, int]]:
        speech = self._first_speech()
        if speech is None:
            self.needed = max(self._free, now - _PADDING)
            return
        begin = self.needed = self._begin(speech)
        pausing = self.finder.start is None
        if now - begin >= self._longest and not pausing:
            yield self._split(begin, speech, now)
        elif pausing and (now - begin >= self._longest or now - self.finder.spans[-1][1] >= _LONG_PAUSE):
            yield self._close(begin)

    def _first_speech(self) -> int | None:
        """The first frame with speech that lies in no window yet."""
        while self._done < len(self.finder.spans) and self.finder.spans[self._done][1] <= self._free:
            self._done += 1
        if self._done < len(self.finder.spans):
            return max(self.finder.spans[self._done][0], self._free)
        if self.finder.start is not None and self.finder.last >= self._free:
            return max(self.finder.start, self._free)
        return None

    def _begin(self, speech: int) -> int:
        return max(self._free, speech - _PADDING)

    def _close(self, begin: int) -> tuple[int, int]:
        """End the window after its last speech."""
        self._free = min(self.finder.spans[-1][1] + _PADDING, begin + self._longest, self.finder.frames)
        return begin, self._free

    def _split(self, begin: int, speech: int, now: int) -> tuple[int, int]:
        """End the window in the best pause that it has; a long one is left out of both windows."""
        pause = self._best_pause(begin, speech)
        if pause is None:
            self._free = self._quietest(begin, now)
            return begin, self._free
        first, end = pause
        middle = (first + end) // 2
        self._free = max(middle, end - _PADDING)
        return begin, min(middle, first + _PADDING)

    def _best_pause(self, begin: int, speech: int) -> tuple[int, int] | None:
        """The longest pause, sought late in the window first: full windows are what a recogniser is quickest with."""
        quiet = np.array(self._probabilities[speech - self._known_from :]) < STILL_SPEAKS
        edges = np.flatnonzero(np.diff(np.concatenate([[False], quiet, [False]]).astype(np.int8))) + speech
        pauses = [(int(first), int(end)) for first, end in edges.reshape(-1, 2)]
        for part, shortest in _SEARCH:
            late = begin + part * self._longest
            fitting = [(end - first, first, end) for first, end in pauses if first >= late and end - first >= shortest]
            if fitting:
                return max(fitting)[1:]
        return None

    def _quietest(self, begin: int, now: int) -> int:
        """A frame of the last third around which it is quietest."""
        late = begin + 2 * self._longest // 3
        around = np.convolve(self._loudness(late, now), np.ones(_AROUND), mode="valid")
        return late + int(around.argmin()) + _AROUND // 2
