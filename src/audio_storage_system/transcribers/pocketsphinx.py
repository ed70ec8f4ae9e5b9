"""The recogniser that is always there: PocketSphinx with the English model of its own wheel.

It makes many mistakes on real speech, and is a fallback. Every recogniser is a process of its own, because its library
holds Python's lock for as long as it listens: 30 s of sound would stop every other thread of this process for seconds.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from statistics import fmean
from typing import Any

import numpy as np

from audio_storage_system.errors import EngineUnavailable
from audio_storage_system.machine import resident_bytes
from audio_storage_system.records import Segment, Word
from audio_storage_system.transcribers.base import Capabilities, TranscribeOptions, Transcriber, Window, WindowResult
from audio_storage_system.transcribers.timing import shifted, split_at_pauses, to_segment

_WORKER = "audio_storage_system.transcribers.pocketsphinx_worker"


class PocketSphinxTranscriber(Transcriber):
    """English only. There are no sentences in what it hears: segments end where a speaker pauses.

    One recogniser (a process of about 120 MB) runs for each thread that calls at the same time; all end with `close`.
    """

    engine = "pocketsphinx"

    def __init__(self, argument: str = "") -> None:
        self.model = argument
        self.capabilities = Capabilities(languages=frozenset({"en"}))
        self._lock = threading.Lock()
        self._idle: list[_Recogniser] = []
        self._known: weakref.WeakSet[_Recogniser] = weakref.WeakSet()
        self._owner = os.getpid()
        self._at_exit = weakref.finalize(self, _end_all, self._idle)

    def load(self) -> None:
        if self.model:
            raise EngineUnavailable(spec=self.spec, reason="it has no model but its own: write pocketsphinx")
        if find_spec("pocketsphinx") is None:
            raise EngineUnavailable(spec=self.spec, reason="the package pocketsphinx is not installed")
        with self._recogniser():
            """One is ready now, and waits for the first window."""

    def close(self) -> None:
        with self._lock:
            _end_all(self._idle)

    def transcribe(self, windows: Sequence[Window], options: TranscribeOptions) -> list[WindowResult]:
        with self._recogniser() as recogniser:
            return [_result(window, recogniser.hear(window)) for window in windows]

    def memory_elsewhere(self) -> int:
        with self._lock:
            known = list(self._known)
        return sum(recogniser.memory() for recogniser in known)

    def parameters(self, options: TranscribeOptions) -> Mapping[str, Any]:
        return {**super().parameters(options), "pocketsphinx": version("pocketsphinx")}

    @contextmanager
    def _recogniser(self) -> Iterator[_Recogniser]:
        """An idle recogniser or a new one; one that failed is not used again."""
        recogniser = self._take() or self._begin()
        try:
            yield recogniser
        except BaseException:
            recogniser.end(at_once=True)
            raise
        with self._lock:
            self._idle.append(recogniser)

    def _begin(self) -> _Recogniser:
        recogniser = _Recogniser(self.spec)
        with self._lock:
            self._known.add(recogniser)
        return recogniser

    def _take(self) -> _Recogniser | None:
        with self._lock:
            if self._owner != os.getpid():  # after a fork, they belong to the parent
                self._owner = os.getpid()
                self._idle.clear()
                self._known.clear()
            return self._idle.pop() if self._idle else None


class _Recogniser:
    """One worker process, ready to listen."""

    def __init__(self, spec: str) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - this interpreter, our own module
            [sys.executable, "-P", "-m", _WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(),
        )
        self._owner = os.getpid()
        self._input: Any = self._process.stdin
        self._output: Any = self._process.stdout
        try:
            self._answer()
        except EOFError as error:
            self.end()
            raise EngineUnavailable(spec=spec, reason="its process ended at once") from error

    def hear(self, window: Window) -> list[Word]:
        samples = (np.clip(window.samples, -1, 1) * 32767).astype("<i2").tobytes()
        self._input.write(struct.pack("<I", len(samples)) + samples)
        self._input.flush()
        return [Word(start, end, " " + text, round(prob, 4)) for text, start, end, prob in self._answer()]

    def memory(self) -> int:
        """Bytes that its process takes now."""
        return resident_bytes(self._process.pid) or 0

    def end(self, *, at_once: bool = False) -> None:
        """An idle one ends with its input; a busy one must be stopped. A process forked off has none to end."""
        if os.getpid() != self._owner:
            return
        if at_once:
            self._process.kill()
        self._process.communicate()

    def _answer(self) -> Any:
        line = self._output.readline()
        if not line:
            raise EOFError("The recogniser's process ended.")
        return json.loads(line)


def _environment() -> dict[str, str]:
    """What the process gets: how to import itself, and none of the archive's settings, of which one may be its key."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("AUDIO_STORAGE_")}
    return {**others, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def _end_all(recognisers: list[_Recogniser]) -> None:
    while recognisers:
        recognisers.pop().end()


def _result(window: Window, words: Sequence[Word]) -> WindowResult:
    moved = [shifted(word, window.start, window.end) for word in words]
    segments = tuple(_segment(piece) for piece in split_at_pauses(moved))
    return WindowResult(segments, "en" if segments else None)


def _segment(words: Sequence[Word]) -> Segment:
    return replace(to_segment(words), confidence=round(fmean(word.probability or 0.0 for word in words), 4))
