"""One vector for what was said and how it sounded."""

from __future__ import annotations

import numpy as np

from audio_storage_system.embedders.base import Matrix
from audio_storage_system.errors import InvalidInput


def combine(text_vectors: Matrix, audio_vectors: Matrix, weight: float = 0.5) -> Matrix:
    """Unit rows √weight · text ⊕ √(1 - weight) · audio, of the two dimensions together.

    The cosine of two such rows is exactly weight · (cosine of the texts) + (1 - weight) · (cosine of the sounds).
    Expects unit rows, as many of one kind as of the other; raises `InvalidInput` otherwise or for a weight outside 0…1.
    """
    if not 0 <= weight <= 1:
        raise InvalidInput(reason=f"a weight lies between 0 and 1, not at {weight}")
    if len(text_vectors) != len(audio_vectors):
        raise InvalidInput(
            reason=f"{len(text_vectors)} text vectors cannot be combined with {len(audio_vectors)} others"
        )
    return np.concatenate(
        [np.float32(np.sqrt(weight)) * text_vectors, np.float32(np.sqrt(1 - weight)) * audio_vectors],
        axis=1,
        dtype=np.float32,
    )
