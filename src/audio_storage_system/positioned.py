"""Streams of our own making that can be read from any position."""

from __future__ import annotations

import io
import os


class Positioned(io.RawIOBase):
    """A readable stream that knows where it stands: who makes one sets `_size`, in bytes, and reads at `_position`."""

    _size = 0
    _position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"{base + offset} is before the beginning")
        self._position = base + offset
        return self._position
