"""What turns text or sound into vectors.

The batch is the primitive. What an embedder returns is checked and normalised in one place, `unit_rows`, so nothing but
finite unit vectors of the declared dimension ever reaches the archive.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from audio_storage_system.errors import InvalidVector

Vector: TypeAlias = npt.NDArray[np.float32]
Matrix: TypeAlias = npt.NDArray[np.float32]
Samples: TypeAlias = npt.NDArray[np.float32]


class TextEmbedder(ABC):
    """Text to vectors in one fixed space. `model` names the space: equal names mean comparable vectors."""

    model: str
    max_batch: int = 256
    remote: ClassVar[bool] = False  # whether a service over the network does the work

    @property
    @abstractmethod
    def dimension(self) -> int:
        """Length of every vector. May load the model; raises `EngineUnavailable` when it is not to be had."""

    @abstractmethod
    def embed_batch(self, texts: Sequence[str]) -> Matrix:
        """Shape (len(texts), dimension), unit rows. At most `max_batch` texts."""

    def embed(self, text: str) -> Vector:
        """One passage's vector."""
        row: Vector = self.embed_batch([text])[0]
        return row

    def embed_query(self, text: str) -> Vector:
        """A search text's vector, for models that treat queries differently."""
        return self.embed(text)


class AudioEmbedder(ABC):
    """Sound to vectors in one fixed space. Samples are float32 mono at `sample_rate`."""

    model: str
    sample_rate: int = 16_000
    max_batch: int = 8  # a piece may last minutes

    @property
    @abstractmethod
    def dimension(self) -> int:
        """Length of every vector."""

    @abstractmethod
    def embed_batch(self, pieces: Sequence[Samples]) -> Matrix:
        """Shape (len(pieces), dimension), unit rows. Pieces may differ in length; none is empty."""

    def embed(self, piece: Samples) -> Vector:
        """One piece's vector."""
        row: Vector = self.embed_batch([piece])[0]
        return row


def unit_rows(rows: npt.ArrayLike, *, model: str, dimension: int | None = None) -> Matrix:
    """`rows` as a float32 matrix of unit rows.

    Raises `InvalidVector` for anything not numeric, not two-dimensional, not finite, all zero, or of another dimension.
    """
    matrix = _numeric(rows, model)
    if matrix.ndim != 2 or matrix.shape[1] == 0:
        raise InvalidVector(model=model, reason=f"expected one row per text, got an array of shape {matrix.shape}")
    if dimension is not None and matrix.shape[1] != dimension:
        raise InvalidVector(model=model, reason=f"it has {matrix.shape[1]} dimensions, the space has {dimension}")
    if not np.isfinite(matrix).all():
        raise InvalidVector(model=model, reason="it has NaN or infinite values")
    scale = np.abs(matrix).max(axis=1, keepdims=True)  # first by the largest value: squares of huge ones overflow
    if (scale == 0).any():
        raise InvalidVector(model=model, reason="it is all zeros")
    matrix = matrix / scale
    return np.ascontiguousarray(matrix / np.linalg.norm(matrix, axis=1, keepdims=True), dtype=np.float32)


def unit_vector(vector: npt.ArrayLike, *, model: str, dimension: int | None = None) -> Vector:
    """`vector` as a float32 unit vector; refuses what `unit_rows` refuses."""
    array = _numeric(vector, model)
    if array.ndim != 1:
        raise InvalidVector(model=model, reason=f"expected a one-dimensional array, got shape {array.shape}")
    row: Vector = unit_rows(array[None, :], model=model, dimension=dimension)[0]
    return row


def _numeric(values: npt.ArrayLike, model: str) -> npt.NDArray[np.float64]:
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise InvalidVector(model=model, reason="its rows have different lengths") from error
    if array.dtype.kind not in "fiub":
        raise InvalidVector(model=model, reason=f"it is not numeric ({array.dtype})")
    return array.astype(np.float64)
