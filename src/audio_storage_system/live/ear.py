"""From sound in pieces of speech to words, whatever the engine does."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from audio_storage_system.pipeline.sources import MODEL_RATE, Samples
from audio_storage_system.transcribers import Listener, TranscribeOptions, Transcriber, WindowResult

logger = logging.getLogger(__name__)

# Pieces of speech in a row that cannot be understood before the engine is given up; each is tried twice.
MOST_FAILURES = 3
FULL_SCALE = np.float32(32768)

T = TypeVar("T")


class ToModelRate:
    """Converts a stream of interleaved 16-bit samples to what models want: float32 mono at 16 kHz."""

    def __init__(self, sample_rate: int, channels: int) -> None:
        self._channels = channels
        self._resampler: Any = None
        if sample_rate != MODEL_RATE:
            import soxr  # only wanted here

            self._resampler = soxr.ResampleStream(sample_rate, MODEL_RATE, 1, dtype="float32")

    def __call__(self, pcm: bytes, *, last: bool = False) -> Samples:
        """What can be given of it by now; with the `last`, all of it."""
        frames = np.frombuffer(pcm, "<i2").reshape(-1, self._channels)
        samples = np.asarray(frames.mean(axis=1, dtype=np.float32) / FULL_SCALE, np.float32)
        if self._resampler is None:
            return samples
        converted: Samples = self._resampler.resample_chunk(samples, last=last)
        return converted


class Ear:
    """Listens to one piece of speech after the other, with one listener of an engine. A piece in which that fails is
    heard once more by a new one; several of them in a row raise what it says."""

    def __init__(self, transcriber: Transcriber, options: TranscribeOptions) -> None:
        self._transcriber, self._options = transcriber, options
        self._listener: Listener | None = None
        self._heard: list[Samples] = []
        self._lost = False
        self._failures = 0
        self.spent_seconds = 0.0  # on the piece, by the engine
        self.start = 0.0
        self.text = ""

    @property
    def item(self) -> int:
        """Names the piece: the millisecond at which it begins."""
        return round(self.start * 1000)

    @property
    def samples(self) -> Samples:
        """All sound of the piece so far."""
        return np.concatenate([np.zeros(0, np.float32), *self._heard])

    @property
    def until(self) -> float:
        """Up to which second it was heard."""
        return round(self.start + sum(map(len, self._heard)) / MODEL_RATE, 3)

    def begin(self, start: float) -> None:
        """A piece begins at this second."""
        self.start, self.text, self._heard, self._lost, self.spent_seconds = start, "", [], False, 0.0
        self._ask(lambda listener: listener.begin(start))

    def hear(self, samples: Samples) -> bool:
        """More of it; whether `text`, what has been understood of it, is another now."""
        before = self.text
        understood = self._ask(lambda listener: listener.hear(samples))
        self._heard.append(samples)
        self.text = understood or before
        return self.text != before

    def end(self) -> WindowResult:
        """It is over; what was said in it."""
        result = self._ask(lambda listener: listener.end())
        self._failures = self._failures if self._lost else 0
        return result or WindowResult(())

    def close(self) -> None:
        """Let go of the listener."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()

    def _ask(self, question: Callable[[Listener], T]) -> T | None:
        since = time.monotonic()
        try:
            return None if self._lost else self._answered(question)
        finally:
            self.spent_seconds += time.monotonic() - since

    def _answered(self, question: Callable[[Listener], T]) -> T | None:
        """The answer, if need be of a new listener that is told everything again; `None` where this fails too."""
        try:
            return question(self._present())
        except Exception as error:  # whose code this is nobody knows
            logger.warning("A piece of speech is heard once more: %s", error)
        try:
            self.close()
            listener = self._present()
            listener.begin(self.start)
            for samples in self._heard:
                listener.hear(samples)
            return question(listener)
        except Exception as error:
            self._lost = True
            self._failures += 1
            if self._failures >= MOST_FAILURES:
                raise
            logger.warning("A piece of speech is left to the whole model: %s", error)
            self.close()
            return None

    def _present(self) -> Listener:
        if self._listener is None:
            self._listener = self._transcriber.listen(self._options)
        return self._listener
