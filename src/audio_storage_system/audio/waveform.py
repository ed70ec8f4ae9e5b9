"""Sound in memory."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt


class Waveform(np.ndarray[tuple[int], np.dtype[np.float32]]):
    """Mono float32 samples in -1…1 that know their `sample_rate` (Hz). Slices and copies keep it."""

    sample_rate: int

    def __new__(cls, samples: npt.ArrayLike, sample_rate: int) -> Self:
        array = np.ascontiguousarray(samples, dtype=np.float32).view(cls)
        array.sample_rate = int(sample_rate)
        return array

    def __array_finalize__(self, source: Any) -> None:
        self.sample_rate = getattr(source, "sample_rate", 16_000)

    @property
    def duration(self) -> float:
        """Seconds."""
        return len(self) / self.sample_rate
