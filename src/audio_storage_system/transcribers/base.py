"""What a speech recogniser must do.

The pipeline cuts a recording into speech windows and hands them over in batches, so an engine sees nothing but short
pieces of 16 kHz mono sound, and a long recording never has to fit into memory.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from audio_storage_system.records import Segment

SAMPLE_RATE = 16_000


@dataclass(frozen=True, slots=True)
class Window:
    """One piece of a recording, cut at silence, at most 30 s long.

    `samples` is float32 mono at 16 kHz; `start` is where it begins in the recording, in seconds.
    """

    start: float
    samples: npt.NDArray[np.float32]

    @property
    def end(self) -> float:
        return self.start + len(self.samples) / SAMPLE_RATE


@dataclass(frozen=True, slots=True)
class TranscribeOptions:
    """What a caller may ask of any engine. `language` is an ISO 639-1 code; `None` lets the engine decide."""

    language: str | None = None
    prompt: str | None = None


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can do, as data. `languages` is `None` for an engine that knows (nearly) all. partials: whether it
    tells what it understands while it listens."""

    batch_size: int = 1
    word_times: bool = True
    detects_language: bool = False
    languages: frozenset[str] | None = None
    partials: bool = False


@dataclass(frozen=True, slots=True)
class WindowResult:
    """What was said in one window; times count from the start of the recording. No segments: nothing was said."""

    segments: tuple[Segment, ...]
    language: str | None = None


class Listener(ABC):
    """Recognises speech while it is spoken, piece after piece: `begin`, `hear` as often as sound comes, `end`. Not for
    several threads at once. After an error a piece may begin anew. To be closed before its transcriber is."""

    @abstractmethod
    def begin(self, start: float) -> None:
        """A piece of speech begins, at this second of the recording; one that was under way is forgotten."""

    @abstractmethod
    def hear(self, samples: npt.NDArray[np.float32]) -> str:
        """More of it, float32 mono at 16 kHz; what has been understood so far of the whole piece, which may still
        change, or nothing. A piece is at most 30 s long. Raises as `Transcriber.transcribe`."""

    @abstractmethod
    def end(self) -> WindowResult:
        """The piece is over: what was said in it. Raises as `Transcriber.transcribe`."""

    def close(self) -> None:
        """Give back what it holds; calling it again does nothing."""


class Transcriber(ABC):
    """One loaded engine with one model. Safe to call from several threads; a context manager that frees the model.

    `at_once` is how many threads will call it at the same time; it may be set before `load`.
    """

    engine: str
    model: str
    capabilities: Capabilities
    remote: ClassVar[bool] = False  # whether a service over the network does the work
    at_once: int = 1

    @property
    def spec(self) -> str:
        return f"{self.engine}:{self.model}" if self.model else self.engine

    @abstractmethod
    def load(self) -> None:
        """Make the model ready; calling it again does nothing.

        Raises `EngineUnavailable` when weights, device or service are not to be had: decided here, within seconds,
        before any window is tried.
        """

    @abstractmethod
    def transcribe(self, windows: Sequence[Window], options: TranscribeOptions) -> list[WindowResult]:
        """One result per window, in order; at most `capabilities.batch_size` windows at a time.

        Windows are independent: the same window with the same options gives the same result in any batch. Raises
        `ServiceFailed` for a remote engine, `MemoryError` when memory runs out, anything else for a decoding failure.
        """

    def listen(self, options: TranscribeOptions) -> Listener:
        """Somebody to recognise speech while it is spoken. One who cannot tell anything before a piece of speech is
        over transcribes it then. Raises as `load`."""
        return _AfterwardsListener(self, options)

    def detect_language(self, window: Window) -> str | None:
        """The language spoken in `window`, where `capabilities.detects_language`; otherwise `None`."""
        return None

    def parameters(self, options: TranscribeOptions) -> Mapping[str, Any]:
        """Everything that shaped the result, JSON-able, kept with the transcript as its provenance."""
        return {"language": options.language, "prompt": options.prompt}

    def memory_elsewhere(self) -> int:
        """Bytes of memory that processes of its own take at this moment, where the system tells."""
        return 0

    def close(self) -> None:
        """Free the model."""

    def __enter__(self) -> Self:
        self.load()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _AfterwardsListener(Listener):
    """Has each piece transcribed when it is over; the language of the first is taken for that of the others."""

    def __init__(self, transcriber: Transcriber, options: TranscribeOptions) -> None:
        self._transcriber, self._options = transcriber, options
        self._start = 0.0
        self._heard: list[npt.NDArray[np.float32]] = []

    def begin(self, start: float) -> None:
        self._start, self._heard = start, []

    def hear(self, samples: npt.NDArray[np.float32]) -> str:
        self._heard.append(samples)
        return ""

    def end(self) -> WindowResult:
        window = Window(self._start, np.concatenate([np.zeros(0, np.float32), *self._heard]))
        if self._options.language is None and self._transcriber.capabilities.detects_language:
            found = self._transcriber.detect_language(window)
            self._options = replace(self._options, language=found)
        [result] = self._transcriber.transcribe([window], self._options)
        return result if result.language else replace(result, language=self._options.language)
