"""Temporary files that nobody else can read."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import XTS

from audio_storage_system.positioned import Positioned

BLOCK = 1 << 16


class SealedFile(Positioned):
    """A temporary file, to be written and read anywhere, of which the disk never gets anything readable: it is
    encrypted (AES-256-XTS, NIST SP 800-38E) with a random key that is only in this object. It is gone when it is
    closed, or its process ends. For one thread.

    Raises `OSError` where the disk is full.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """folder: on whose disk it is; default: where the system has temporary files."""
        self._cipher_key = os.urandom(64)
        self._file = tempfile.TemporaryFile(buffering=0, dir=folder)
        self._position = self._size = 0
        self._number, self._block, self._changed = 0, bytearray(BLOCK), False

    def writable(self) -> bool:
        """As of `io.RawIOBase`."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """As of `io.RawIOBase`."""
        view = memoryview(buffer).cast("B")
        start, count = self._here(min(len(view), max(0, self._size - self._position)))
        view[:count] = self._block[start : start + count]
        self._position += count
        return count

    def write(self, data: Any, /) -> int:
        """As of `io.RawIOBase`; all of it is written."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        while rest:
            start, count = self._here(len(rest))
            self._block[start : start + count] = rest[:count]
            self._changed = True
            self._position += count
            self._size = max(self._size, self._position)
            rest = rest[count:]
        return size

    def close(self) -> None:
        """Let go of the file, which is gone with that."""
        self._file.close()
        super().close()

    def _here(self, wanted: int) -> tuple[int, int]:
        """Where the position is in its block, which is in memory then, and how many bytes of `wanted` are in it."""
        number, start = divmod(self._position, BLOCK)
        if wanted and number != self._number:
            self._put_back()
            self._load(number)
        return start, min(wanted, BLOCK - start)

    def _put_back(self) -> None:
        if self._changed:
            self._file.seek(self._number * BLOCK)
            rest = memoryview(self._cipher(self._number).encryptor().update(bytes(self._block)))
            while rest:
                rest = rest[self._file.write(rest) :]
            self._changed = False

    def _load(self, number: int) -> None:
        self._file.seek(number * BLOCK)
        stored = self._file.read(BLOCK)
        self._block[:] = self._cipher(number).decryptor().update(stored) if stored.strip(b"\0") else bytes(BLOCK)
        self._number = number

    def _cipher(self, number: int) -> Cipher[XTS]:
        return Cipher(AES(self._cipher_key), XTS(number.to_bytes(16, "little")))
