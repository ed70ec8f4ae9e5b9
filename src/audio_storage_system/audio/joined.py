"""Parts that lie apart, read as one seekable stream."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

from audio_storage_system.positioned import Positioned


class Joined(Positioned):
    """Parts one after the other; one of them is in memory at a time.

    parts: the size of each in bytes, and what reads it. A reader that gives fewer or more raises for itself.
    """

    def __init__(self, parts: Sequence[tuple[int, Callable[[], bytes]]]) -> None:
        self._readers = [read for _, read in parts]
        self._starts = [0, *accumulate(size for size, _ in parts)]
        self._size = self._starts[-1]
        self._loaded: tuple[int, bytes] = -1, b""

    def readinto(self, buffer: Any, /) -> int:
        """As of `io.RawIOBase`."""
        if self._position >= self._size:
            return 0
        view = memoryview(buffer).cast("B")
        number = bisect_right(self._starts, self._position) - 1  # the last that begins here: others are empty
        start = self._position - self._starts[number]
        data = self._part(number)[start : start + len(view)]
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _part(self, number: int) -> bytes:
        if self._loaded[0] != number:
            self._loaded = number, self._readers[number]()
        return self._loaded[1]
