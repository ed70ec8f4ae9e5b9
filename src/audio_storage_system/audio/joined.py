"""Parts that lie apart, read as one seekable stream."""

from __future__ import annotations

import io
import os
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any


class Joined(io.RawIOBase):
    """Parts one after the other; one of them is in memory at a time.

    parts: the size of each in bytes, and what reads it. A reader that gives fewer or more raises for itself.
    """

    def __init__(self, parts: Sequence[tuple[int, Callable[[], bytes]]]) -> None:
        self._readers = [read for _, read in parts]
        self._starts = [0, *accumulate(size for size, _ in parts)]
        self._position = 0
        self._loaded: tuple[int, bytes] = -1, b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._starts[-1]}[whence]
        if base + offset < 0:
            raise ValueError(f"{base + offset} is before the beginning")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        if self._position >= self._starts[-1]:
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
