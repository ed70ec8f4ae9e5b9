"""The recogniser that is always there: PocketSphinx with the English model of its own wheel.

It makes many mistakes on real speech, and is a fallback. Every recogniser is a process of its own, because its library
holds Python's lock for as long as it listens: 30 s of sound would stop every other thread of this process for seconds.
"""

from __future__ import annotations

import json
import os
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
import numpy.typing as npt

from audio_storage_system.errors import EngineUnavailable
from audio_storage_system.machine import resident_bytes
from audio_storage_system.records import Segment, Word
from audio_storage_system.transcribers.base import (
    SAMPLE_RATE,
    Capabilities,
    Listener,
    TranscribeOptions,
    Transcriber,
    Window,
    WindowResult,
)
from audio_storage_system.transcribers.pocketsphinx_worker import BEGIN, END, FORGET, MORE, REQUEST, WHOLE
from audio_storage_system.transcribers.timing import shifted, split_at_pauses, to_segment

NOTHING = np.zeros(0, np.float32)
_WORKER = "audio_storage_system.transcribers.pocketsphinx_worker"


class PocketSphinxTranscriber(Transcriber):
    """English only. There are no sentences in what it hears: segments end where a speaker pauses.

    One recogniser (a process of about 120 MB) runs for each thread that calls at the same time; all end with `close`.
    """

    engine = "pocketsphinx"

    def __init__(self, argument: str = "") -> None:
        self.model = argument
        self.capabilities = Capabilities(languages=frozenset({"en"}), partials=True)
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
            return [_result(window.start, window.end, recogniser.hear(window)) for window in windows]

    def listen(self, options: TranscribeOptions) -> Listener:
        """One recogniser is the listener's own until it is closed."""
        return _PocketSphinxListener(self)

    def memory_elsewhere(self) -> int:
        with self._lock:
            known = list(self._known)
        return sum(recogniser.memory() for recogniser in known)

    def parameters(self, options: TranscribeOptions) -> Mapping[str, Any]:
        return {**super().parameters(options), "pocketsphinx": version("pocketsphinx")}

    @contextmanager
    def _recogniser(self) -> Iterator[_Recogniser]:
        """An idle recogniser or a new one; one that failed is not used again."""
        recogniser = self.borrow()
        try:
            yield recogniser
        except BaseException:
            recogniser.end(at_once=True)
            raise
        self.give_back(recogniser)

    def borrow(self) -> _Recogniser:
        """An idle recogniser or a new one, for one thread."""
        return self._take() or self._begin()

    def give_back(self, recogniser: _Recogniser) -> None:
        """It is idle now."""
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
            start_new_session=True,  # Ctrl-C is for us, also while this process is coming up
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
        """The words in a whole window."""
        return _words(self.ask(WHOLE, window.samples))

    def begin(self) -> None:
        """A piece of speech begins, which comes bit by bit."""
        self.ask(BEGIN)

    def hear_more(self, samples: npt.NDArray[np.float32]) -> str:
        """More of it; what is understood so far."""
        return str(self.ask(MORE, samples))

    def end_piece(self) -> list[Word]:
        """It is over; the words in it."""
        return _words(self.ask(END))

    def ask(self, what: bytes, samples: npt.NDArray[np.float32] = NOTHING) -> Any:
        """The answer to a request, see the worker."""
        pcm = (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
        self._input.write(REQUEST.pack(what, len(pcm)) + pcm)
        self._input.flush()
        return self._answer()

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


class _PocketSphinxListener(Listener):
    """Holds one recogniser. What it has learned of the room and the voice it keeps from piece to piece."""

    def __init__(self, transcriber: PocketSphinxTranscriber) -> None:
        self._transcriber = transcriber
        self._recogniser: _Recogniser | None = None
        self._start, self._samples = 0.0, 0

    def begin(self, start: float) -> None:
        self._start, self._samples = start, 0
        with self._careful() as recogniser:
            recogniser.begin()

    def hear(self, samples: npt.NDArray[np.float32]) -> str:
        self._samples += len(samples)
        with self._careful() as recogniser:
            return recogniser.hear_more(samples)

    def end(self) -> WindowResult:
        with self._careful() as recogniser:
            words = recogniser.end_piece()
        return _result(self._start, self._start + self._samples / SAMPLE_RATE, words)

    def close(self) -> None:
        recogniser, self._recogniser = self._recogniser, None
        if recogniser is not None:
            self._transcriber.give_back(recogniser)

    @contextmanager
    def _careful(self) -> Iterator[_Recogniser]:
        """The recogniser; one that failed is not used again."""
        if self._recogniser is None:
            self._recogniser = self._transcriber.borrow()
            self._recogniser.ask(FORGET)
        try:
            yield self._recogniser
        except BaseException:
            self._recogniser.end(at_once=True)
            self._recogniser = None
            raise


def _words(answer: Sequence[Any]) -> list[Word]:
    return [Word(start, end, " " + text, round(prob, 4)) for text, start, end, prob in answer]


def _environment() -> dict[str, str]:
    """What the process gets: how to import itself, and none of the archive's settings, of which one may be its key."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("AUDIO_STORAGE_")}
    return {**others, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def _end_all(recognisers: list[_Recogniser]) -> None:
    while recognisers:
        recognisers.pop().end()


def _result(start: float, end: float, words: Sequence[Word]) -> WindowResult:
    moved = [shifted(word, start, end) for word in words]
    segments = tuple(_segment(piece) for piece in split_at_pauses(moved))
    return WindowResult(segments, "en" if segments else None)


def _segment(words: Sequence[Word]) -> Segment:
    return replace(to_segment(words), confidence=round(fmean(word.probability or 0.0 for word in words), 4))
