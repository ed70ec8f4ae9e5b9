"""A user's own functions as embedders.

They receive what the guide shows (`text: str`, `audio: ndarray`, or both) and may return any numeric one-dimensional
array; it is checked and normalised like any other vector. What such a function raises is passed on unchanged.
"""

from __future__ import annotations

import functools
import inspect
import logging
import threading
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from audio_storage_system.audio.waveform import Waveform
from audio_storage_system.embedders.base import AudioEmbedder, Matrix, Samples, TextEmbedder, Vector, unit_vector
from audio_storage_system.errors import InvalidInput

SAMPLE_RATE = 16_000
PROBE_TEXT = "dimension"
GIVE_A_NAME = "define it with def, or give a text embedder as use_embedder(function, name=…)"

logger = logging.getLogger(__name__)


def function_model(function: Callable[..., object], name: str | None = None) -> str:
    """The space a user function opens: `user:<name>`, or `user:<module>.<qualname>`.

    A lambda, a `functools.partial`, a method or an object that can be called has no name of its own: it is called after
    what it is made of, and a warning says that another one like it would share its space. Raises `InvalidInput` for
    what cannot be called.
    """
    if not callable(function):
        raise InvalidInput(reason=f"An embedding function can be called; {function!r} cannot")
    if name:
        return f"user:{name}"
    model = f"user:{_own_name(function)}"
    if not inspect.isroutine(function) or inspect.ismethod(function) or function.__name__ == "<lambda>":
        logger.warning("Another function like this one would share its space %s: %s", model, GIVE_A_NAME)
    return model


def _own_name(function: Callable[..., object]) -> str:
    if isinstance(function, functools.partial):
        return f"{_own_name(function.func)}.partial"
    if inspect.ismethod(function):
        owner = function.__self__ if inspect.isclass(function.__self__) else type(function.__self__)
        return f"{owner.__module__}.{owner.__qualname__}.{function.__name__}"
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


class FunctionTextEmbedder(TextEmbedder):
    """`function(text)` as a text embedder. Its first answer fixes the dimension; a later one of another raises
    `InvalidVector`, as does what is not numeric, not finite, all zero or not one-dimensional."""

    def __init__(self, function: Callable[[str], npt.ArrayLike], name: str | None = None) -> None:
        self.function = function
        self.model = function_model(function, name)
        self._checked = _Checked(self.model, lambda: function(PROBE_TEXT))

    @property
    def dimension(self) -> int:
        """The length of its vectors; calls the function once if it has not been called yet."""
        return self._checked.dimension

    def embed_batch(self, texts: Sequence[str]) -> Matrix:
        return self._checked.rows([self.function(text) for text in texts])


class FunctionAudioEmbedder(AudioEmbedder):
    """`function(audio)` as an audio embedder, checked as above; it receives a float32 mono `Waveform` at 16 kHz."""

    sample_rate = SAMPLE_RATE

    def __init__(self, function: Callable[[Waveform], npt.ArrayLike], name: str | None = None) -> None:
        self.function = function
        self.model = function_model(function, name)
        self._checked = _Checked(self.model, lambda: function(_tone()))

    @property
    def dimension(self) -> int:
        """The length of its vectors; calls the function once if it has not been called yet."""
        return self._checked.dimension

    def embed_batch(self, pieces: Sequence[Samples]) -> Matrix:
        return self._checked.rows([self.function(Waveform(piece, SAMPLE_RATE)) for piece in pieces])


class FunctionCombinedEmbedder:
    """`function(transcript, audio)` as one vector for both, checked as above: a space of the kind `combined`."""

    sample_rate = SAMPLE_RATE

    def __init__(self, function: Callable[[str, Waveform], npt.ArrayLike], name: str | None = None) -> None:
        self.function = function
        self.model = function_model(function, name)
        self._checked = _Checked(self.model, lambda: function(PROBE_TEXT, _tone()))

    @property
    def dimension(self) -> int:
        """The length of its vectors; calls the function once if it has not been called yet."""
        return self._checked.dimension

    def embed_batch(self, texts: Sequence[str], pieces: Sequence[Samples]) -> Matrix:
        """One unit row per pair of a text and its sound."""
        pairs = zip(texts, pieces, strict=True)
        return self._checked.rows([self.function(text, Waveform(piece, SAMPLE_RATE)) for text, piece in pairs])

    def embed(self, text: str, piece: Samples) -> Vector:
        """One pair's vector."""
        row: Vector = self.embed_batch([text], [piece])[0]
        return row


class _Checked:
    """Unit rows from a function's answers, all of the dimension of the first one; `probe` calls the function."""

    def __init__(self, model: str, probe: Callable[[], npt.ArrayLike]) -> None:
        self.model = model
        self._probe = probe
        self._known = 0
        self._lock = threading.Lock()

    @property
    def dimension(self) -> int:
        return self._known or self.rows([self._probe()]).shape[1]

    def rows(self, answers: Sequence[npt.ArrayLike]) -> Matrix:
        if not answers:
            return np.empty((0, self.dimension), np.float32)
        with self._lock:
            return np.stack([self._row(answer) for answer in answers])

    def _row(self, answer: npt.ArrayLike) -> Vector:
        vector = unit_vector(answer, model=self.model, dimension=self._known or None)
        self._known = len(vector)
        return vector


def _tone() -> Waveform:
    """One second of a quiet tone: sound enough to ask any function for its dimension."""
    return Waveform(0.1 * np.sin(np.arange(SAMPLE_RATE) * (2 * np.pi * 440 / SAMPLE_RATE)), SAMPLE_RATE)
