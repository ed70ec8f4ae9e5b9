"""What is said in a sound of which nothing is stored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from audio_storage_system.audio import Waveform, speech_windows
from audio_storage_system.catalogue.transcripts import FALLBACK
from audio_storage_system.pipeline.batches import batches
from audio_storage_system.pipeline.engines import Choice, Engines
from audio_storage_system.pipeline.sources import Samples
from audio_storage_system.pipeline.transcription import TRANSLATED, Task, with_language
from audio_storage_system.records import Segment
from audio_storage_system.transcribers import SAMPLE_RATE, Window


@dataclass(frozen=True, slots=True)
class Heard:
    """What is said in a sound that is not stored: its segments in order, the language (ISO 639-1) where it is known,
    and the sound's duration in seconds. engine: what ran; flags: as of a `Transcript`."""

    segments: tuple[Segment, ...]
    language: str | None
    duration: float
    engine: str
    flags: tuple[str, ...] = ()

    @property
    def transcription(self) -> str:
        """All of it as text."""
        return " ".join(segment.text.strip() for segment in self.segments)


def listen(engines: Engines, blocks: Iterable[Samples], task: Task) -> Heard:
    """What is said in a stream of 16 kHz mono sound. `progress` and `listener` of the task are called as it is heard.

    Raises `UnknownSpec`, `EngineUnavailable`, `Unsupported`, and what the engine raises.
    """
    with task.borrowed(engines) as choice:
        return _Listening(choice, task).to(blocks)


def transcribe_sample(
    engines: Engines, waveform: Waveform, task: Task, check: Callable[[], None] = lambda: None
) -> str:
    """What is said in a sample, as text. `check` is called before each batch of windows; it may raise."""
    task = replace(task, progress=lambda seconds, total: check())
    return listen(engines, [np.asarray(waveform)], task).transcription


class _Listening:
    def __init__(self, choice: Choice, task: Task) -> None:
        self._choice, self._task, self._options = choice, task, task.options
        self._seconds = 0.0

    def to(self, blocks: Iterable[Samples]) -> Heard:
        """All that is said there."""
        transcriber, segments = self._choice.transcriber, list[Segment]()
        windows = (Window(item.start, item.samples) for item in speech_windows(self._counted(blocks)))
        for batch in batches(windows, transcriber.capabilities.batch_size):
            segments += self._batch(batch)
        language = TRANSLATED if self._task.translate else self._options.language
        flags = (FALLBACK,) if self._choice.fallback else ()
        return Heard(tuple(segments), language, self._seconds, transcriber.engine, flags)

    def _counted(self, blocks: Iterable[Samples]) -> Iterator[Samples]:
        for block in blocks:
            self._seconds += len(block) / SAMPLE_RATE
            self._tell()
            yield block

    def _tell(self) -> None:
        self._task.progress(self._seconds, self._seconds)

    def _batch(self, windows: list[Window]) -> list[Segment]:
        self._tell()
        self._options = with_language(self._choice.transcriber, self._options, windows[0])
        results = self._choice.transcriber.transcribe(windows, self._options)
        if self._options.language is None and not self._task.translate:
            found = next((result.language for result in results if result.language), None)
            self._options = replace(self._options, language=found)
        segments = [segment for result in results for segment in result.segments]
        if self._task.listener is not None and segments:
            self._task.listener(segments)
        return segments
