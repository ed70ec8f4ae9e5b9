"""Bytes that are about to be sent to a bucket, hashed, and kept on this machine until they are there."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from audio_storage_system.blobs.base import BLOCK, read_up_to
from audio_storage_system.durable import disk_errors
from audio_storage_system.errors import StorageFailed


@dataclass(frozen=True, slots=True)
class Held:
    """The bytes in memory, or `size` bytes of a file from `start` on. `close` lets go of the file."""

    sha256: str
    size: int
    data: bytes | None = None
    file: BinaryIO | None = None
    start: int = 0

    def close(self) -> None:
        """Let go of the file; one that was made here is gone with that."""
        if self.file is not None:
            self.file.close()


def hold(source: BinaryIO, *, small: int) -> Held:
    """Read `source` to its end. Up to `small` bytes stay in memory; an ordinary file is opened a second time; anything
    else goes into a temporary file without a name. Raises what the source raises, and `StorageFull`."""
    file, start = _reopened(source)
    try:
        first = read_up_to(source, small + 1)
        if len(first) <= small:
            return Held(hashlib.sha256(first).hexdigest(), len(first), data=first)
        copy = None if file is not None else _temporary_file()
        file = file or copy
        sha256, size = _hash(first, source, copy)
        held = Held(sha256, size, file=file, start=start)
        file = None
        return held
    finally:
        if file is not None:
            file.close()


def _hash(first: bytes, source: BinaryIO, copy: BinaryIO | None) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    block = first
    while block:
        digest.update(block)
        size += len(block)
        if copy is not None:
            with disk_errors(Path(tempfile.gettempdir())):
                copy.write(block)
        block = source.read(BLOCK)
    return digest.hexdigest(), size


def _temporary_file() -> BinaryIO:
    folder = Path(tempfile.gettempdir())
    with disk_errors(folder):
        return tempfile.TemporaryFile(dir=folder, buffering=0)


def _reopened(source: BinaryIO) -> tuple[BinaryIO | None, int]:
    """The ordinary file that `source` reads, opened for ourselves, and where it stands; the caller may close his."""
    name = getattr(source, "name", None)
    if type(source) is not io.BufferedReader or type(source.raw) is not io.FileIO or not isinstance(name, str):
        return None, 0
    try:
        own = open(name, "rb")  # closed by `Held.close`
    except OSError:
        return None, 0
    status = os.fstat(own.fileno())
    if stat.S_ISREG(status.st_mode) and os.path.samestat(status, os.fstat(source.fileno())):
        return own, source.tell()
    own.close()
    return None, 0


class SendingFailed(Exception):
    """Carries an error of our own past obstore."""


class Sending:
    """A held file, read a second time and hashed again: it may be somebody else's, and change in between.

    `complete` once every byte was handed over and they are the bytes that were held; `error` what went wrong here.
    """

    def __init__(self, held: Held) -> None:
        self.complete = False
        self.error: Exception | None = None
        self._held = held

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._blocks()
        except Exception as error:
            self.error = error
            raise SendingFailed from None

    def _blocks(self) -> Iterator[bytes]:
        assert self._held.file is not None  # noqa: S101 # small ones are sent in one request
        self._held.file.seek(self._held.start)
        digest, left = hashlib.sha256(), self._held.size
        while left and (block := self._held.file.read(min(left, BLOCK))):
            digest.update(block)
            left -= len(block)
            yield block
        if left or digest.hexdigest() != self._held.sha256:
            raise StorageFailed(reason="the file changed while it was being stored; nothing of it was stored")
        self.complete = True
