"""A transcriber for tests of everything around recognition: what it hears is known in advance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from audio_storage_system.records import Segment, Word
from audio_storage_system.transcribers.base import Capabilities, TranscribeOptions, Transcriber, Window, WindowResult

SPEC = "scripted"
FACTORY = "audio_storage_system.testing.scripted:ScriptedTranscriber"


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
