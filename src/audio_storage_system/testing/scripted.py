"""Models for tests of everything around them: a transcriber of which is known in advance what it hears, and embedders
whose vectors mean nothing but are always the same."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from audio_storage_system.embedders.base import AudioEmbedder, Matrix, TextEmbedder, unit_rows
from audio_storage_system.records import Segment, Word
from audio_storage_system.transcribers.base import Capabilities, TranscribeOptions, Transcriber, Window, WindowResult

SPEC = "scripted"
FACTORY = "audio_storage_system.testing.scripted:ScriptedTranscriber"
TEXT_FACTORY = "audio_storage_system.testing.scripted:ScriptedTextEmbedder"
AUDIO_FACTORY = "audio_storage_system.testing.scripted:ScriptedAudioEmbedder"
DIMENSION = 16


class ScriptedTranscriber(Transcriber):
    """Hears "second N is spoken" in each window, N being where the window begins.

    Register it under `SPEC` as `FACTORY`. `before`, when set, is called with each window first and may raise.
    """

    engine = SPEC
    capabilities = Capabilities(batch_size=2, word_times=True, languages=None)
    before: ClassVar[Callable[[Window], None] | None] = None

    def __init__(self, argument: str = "") -> None:
        self.model = argument

    def load(self) -> None:
        """Nothing to load."""

    def transcribe(self, windows: Sequence[Window], options: TranscribeOptions) -> list[WindowResult]:
        return [self._hear(window) for window in windows]

    def _hear(self, window: Window) -> WindowResult:
        if ScriptedTranscriber.before is not None:
            ScriptedTranscriber.before(window)
        text = f"second {int(window.start)} is spoken {self.model}".strip()
        words = text.split()
        step = (window.end - window.start) / len(words)
        timed = [Word(window.start + i * step, window.start + (i + 1) * step, w, 0.9) for i, w in enumerate(words)]
        return WindowResult((Segment(window.start, window.end, text, tuple(timed), confidence=0.9),), "en")


class ScriptedTextEmbedder(TextEmbedder):
    """A vector of its own for each text and model. `before`, when set, is called with each batch first and may raise.

    Register it as `TEXT_FACTORY`; `scripted:one` and `scripted:two` are two models.
    """

    dimension = DIMENSION
    max_batch = 8
    before: ClassVar[Callable[[Sequence[str]], None] | None] = None

    def __init__(self, argument: str = "") -> None:
        self.model = f"{SPEC}:{argument}"

    def embed_batch(self, texts: Sequence[str]) -> Matrix:
        if ScriptedTextEmbedder.before is not None:
            ScriptedTextEmbedder.before(texts)
        rows = [_drawn(f"{self.model} {text}".encode()) for text in texts]
        return unit_rows(np.reshape(rows, (-1, DIMENSION)), model=self.model)


class ScriptedAudioEmbedder(AudioEmbedder):
    """The same for sounds; register it as `AUDIO_FACTORY`."""

    dimension = DIMENSION
    max_batch = 4

    def __init__(self, argument: str = "") -> None:
        self.model = f"{SPEC}:{argument}"

    def embed_batch(self, pieces: Sequence[npt.NDArray[np.float32]]) -> Matrix:
        rows = [_drawn(self.model.encode() + np.ascontiguousarray(piece).tobytes()) for piece in pieces]
        return unit_rows(np.reshape(rows, (-1, DIMENSION)), model=self.model)


def _drawn(data: bytes) -> npt.NDArray[np.float64]:
    seed = int.from_bytes(hashlib.sha256(data).digest()[:8], "little")
    return np.random.default_rng(seed).standard_normal(DIMENSION)
