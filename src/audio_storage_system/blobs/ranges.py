"""An object in a bucket as a file that can be read from any position, by requests for ranges of it."""

from __future__ import annotations

import io
import os
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, BinaryIO, cast

from audio_storage_system.positioned import Positioned

FIRST = 256 << 10
LARGEST = 8 << 20
KEPT = 3


class RangeFile(Positioned):
    """A seekable file of `size` bytes over `read(start, end)`.

    A read that goes on where the last request ended asks for twice as much as that one did, up to `LARGEST`; one
    elsewhere starts small again. The last `KEPT` ranges are kept, so that looking at a file's head and tail and coming
    back costs nothing twice. Memory: at most `KEPT * LARGEST`.
    """

    def __init__(self, size: int, read: Callable[[int, int], bytes], name: str) -> None:
        self.name = name
        self._size, self._read_range = size, read
        self._ranges: OrderedDict[int, bytes] = OrderedDict()
        self._window, self._next = FIRST, 0

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """As of `io.RawIOBase`; refused once it is closed."""
        self._check_open()
        return super().seek(offset, whence)

    def readinto(self, buffer: Any, /) -> int:
        """As of `io.RawIOBase`."""
        self._check_open()
        view = memoryview(buffer).cast("B")
        if self._position >= self._size or not view:
            return 0
        start, data = self._range_at(self._position)
        piece = data[self._position - start : self._position - start + len(view)]
        view[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")

    def _range_at(self, position: int) -> tuple[int, bytes]:
        for start, data in reversed(self._ranges.items()):
            if start <= position < start + len(data):
                self._ranges.move_to_end(start)
                return start, data
        return position, self._fetch(position)

    def _fetch(self, position: int) -> bytes:
        self._window = min(self._window * 2, LARGEST) if position == self._next and position else FIRST
        end = min(position + self._window, self._size)
        while len(self._ranges) >= KEPT:
            self._ranges.popitem(last=False)
        data = self._ranges[position] = self._read_range(position, end)
        self._next = end
        return data


def open_range_file(size: int, read: Callable[[int, int], bytes], name: str) -> BinaryIO:
    """As above, with `read(n)` that gives all `n` bytes while there are that many."""
    return cast(BinaryIO, io.BufferedReader(RangeFile(size, read, name), buffer_size=64 << 10))
