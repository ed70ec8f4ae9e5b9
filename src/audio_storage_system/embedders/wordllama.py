"""The bundled text embedder: WordLlama's 256-dimensional token vectors, averaged.

The weights come inside the `wordllama` wheel and are read from its package folder, so nothing is ever downloaded.
Averaging is done here rather than by the package: it pads every batch to its longest text, which is slower
(docs/benchmarks.md) and lets one long text exhaust the memory.
"""

from __future__ import annotations

import importlib.util
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from audio_storage_system.embedders.base import Matrix, TextEmbedder, Vector, unit_rows
from audio_storage_system.embedders.texts import readable
from audio_storage_system.errors import EngineUnavailable, UnknownSpec

DIMENSION = 256


class WordLlamaEmbedder(TextEmbedder):
    """Averaged token vectors. Safe to use from several threads; the model (32 MB) is loaded once per process.

    A text without a single visible character has nothing to be found by: it gets a fixed vector that is nearly
    orthogonal to every real text (|cosine| below 0.1), so that it neither fails its batch nor turns up in searches.
    """

    model = "wordllama"

    def __init__(self, argument: str = "") -> None:
        if argument:
            raise UnknownSpec(kind="text embedder", spec=f"wordllama:{argument}", known="wordllama")

    @property
    def dimension(self) -> int:
        return DIMENSION

    def embed_batch(self, texts: Sequence[str]) -> Matrix:
        """Unit rows. Of a text longer than 100,000 characters only the beginning counts."""
        if not texts:
            return np.empty((0, DIMENSION), np.float32)
        weights = _weights()
        return unit_rows([weights.average(text) for text in texts], model=self.model, dimension=DIMENSION)


class _Weights:
    def __init__(self, tokens: Matrix, tokenizer: Any) -> None:
        self.tokens = tokens
        self.tokenizer = tokenizer

    @cached_property
    def nothing(self) -> Vector:
        """The direction in which token vectors vary least, so that averages of them are nearly orthogonal to it."""
        direction = np.linalg.eigh(self.tokens.T @ self.tokens)[1][:, 0]
        sign = np.sign(direction[np.abs(direction).argmax()])  # which of the two is the library's choice
        return np.asarray(direction * sign, np.float32)

    def average(self, text: str) -> Vector:
        # one text at a time: no thread pool, which would not survive a fork
        ids = self.tokenizer.encode(readable(text), add_special_tokens=False).ids if text.strip() else []
        mean: Vector = self.tokens[ids].mean(axis=0) if ids else self.nothing
        return mean


_lock = threading.Lock()


def _weights() -> _Weights:
    with _lock:
        return _load()


@cache
def _load() -> _Weights:
    spec = importlib.util.find_spec("wordllama")
    if spec is None or spec.origin is None:
        raise EngineUnavailable(spec="wordllama", reason="the package wordllama is not installed")
    with _untouched_root_logger():
        from wordllama import WordLlama
    try:
        model = WordLlama.load(cache_dir=Path(spec.origin).parent, dim=DIMENSION, disable_download=True)
    except FileNotFoundError as error:
        raise EngineUnavailable(spec="wordllama", reason=f"its bundled weights are missing ({error})") from error
    model.tokenizer.no_padding()
    return _Weights(model.embedding, model.tokenizer)


@contextmanager
def _untouched_root_logger() -> Iterator[None]:
    """Importing wordllama configures the root logger; that is for the application to decide."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
