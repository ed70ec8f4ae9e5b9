"""The peaks of a recording, to draw it: the lowest and the highest sample of each of many equal parts."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from audio_storage_system.audio.decode import Samples

# Buckets for each point that was asked for, at least half of it: so a part begins at most an eighth of it too late.
_FINER = 8
_NOTHING = np.array([[np.inf, -np.inf]], np.float32)


def peaks(blocks: Iterable[Samples], points: int) -> Samples:
    """The lowest and highest sample of each of `points` equal parts, as an array of parts × 2; fewer parts where there
    are fewer samples. Memory does not grow with the recording: how long it is need not be known."""
    buckets = _Buckets(points * _FINER)
    for block in blocks:
        buckets.add(block)
    return buckets.in_parts(points)


class _Buckets:
    """Peaks of `width` samples each, and of those that do not fill one yet; `width` doubles whenever there are more
    than `most`."""

    def __init__(self, most: int) -> None:
        self._most, self._width = most, 1
        self._peaks = np.zeros((0, 2), np.float32)
        self._open, self._filled = _NOTHING, 0

    def add(self, block: Samples) -> None:
        """Take more samples."""
        first = block[: self._width - self._filled]
        self._open, self._filled = _joined(self._open, _peaks_of(first)), self._filled + len(first)
        if self._filled == self._width:
            rest = block[len(first) :]
            whole = len(rest) // self._width * self._width
            rows = rest[:whole].reshape(-1, self._width)
            further = np.stack([rows.min(axis=1), rows.max(axis=1)], axis=1)
            self._peaks = np.concatenate([self._peaks, self._open, further])
            self._open, self._filled = _peaks_of(rest[whole:]), len(rest) - whole
        while len(self._peaks) > self._most:
            self._halve()

    def _halve(self) -> None:
        """Each two become one; an odd last one is half of the next."""
        even = len(self._peaks) // 2 * 2
        if even < len(self._peaks):
            self._open, self._filled = _joined(self._peaks[even:], self._open), self._filled + self._width
        pairs = self._peaks[:even].reshape(-1, 2, 2)
        self._peaks = np.stack([pairs[:, :, 0].min(axis=1), pairs[:, :, 1].max(axis=1)], axis=1)
        self._width *= 2

    def in_parts(self, points: int) -> Samples:
        """The peaks of equal parts."""
        found = np.concatenate([self._peaks, self._open]) if self._filled else self._peaks
        parts = min(points, len(found))
        if not parts:
            return found
        starts = np.arange(parts) * len(found) // parts
        low, high = np.minimum.reduceat(found[:, 0], starts), np.maximum.reduceat(found[:, 1], starts)
        return np.stack([low, high], axis=1)


def _peaks_of(samples: Samples) -> Samples:
    """One row: the lowest and the highest of some samples."""
    return np.array([[samples.min(), samples.max()]], np.float32) if len(samples) else _NOTHING


def _joined(one: Samples, other: Samples) -> Samples:
    return np.array([[min(one[0, 0], other[0, 0]), max(one[0, 1], other[0, 1])]], np.float32)
