"""Vectors as texts give them, for tests: in clusters, with something that all have in common."""

from __future__ import annotations

import numpy as np

from audio_storage_system.testing.vectors import Vectors

WIDTH, TOPICS = 96, 160


def topical(count: int, seed: int, offset: float) -> Vectors:
    """Unit vectors in clusters whose variance falls from one direction to the next, all shifted by a common offset."""
    fixed = np.random.default_rng(7)
    spectrum = np.arange(1, WIDTH + 1) ** -0.5
    centres = fixed.standard_normal((TOPICS, WIDTH)) * spectrum
    common = offset * fixed.standard_normal(WIDTH)
    rng = np.random.default_rng(seed)
    rows = common + centres[rng.integers(TOPICS, size=count)] + 0.7 * rng.standard_normal((count, WIDTH)) * spectrum
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
