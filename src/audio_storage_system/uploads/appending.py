"""Appending to an upload: what has arrived is safe before it is acknowledged, and stays when its sender is cut off."""

from __future__ import annotations

import hashlib
import os
import time
from types import TracebackType
from typing import Self, TypeAlias

from audio_storage_system.durable import disk_errors
from audio_storage_system.errors import (
    ChecksumMismatch,
    Conflict,
    InvalidInput,
    OffsetMismatch,
    TooLarge,
    UploadBusy,
)
from audio_storage_system.uploads.folder import CONTENT, JOURNAL, UploadFolder
from audio_storage_system.uploads.writing import RECORD

COMMIT_BYTES = 16 << 20
COMMIT_SECONDS = 2.0
LOOK_SECONDS = 0.2
ALGORITHMS = ("sha256", "sha512", "sha1", "md5")


# How what one append brings is to be checked: one of `ALGORITHMS`, and the digest.
Checksum: TypeAlias = tuple[str, bytes]


class Appending:
    """An append under way: a context manager, which has the upload's lock. For one thread at a time.

    What was written is synced every 16 MiB, every two seconds, and at the end, however that comes; so a process that is
    killed loses no more than that. With a `checksum` it is all or nothing: what does not have it, or is cut off, is
    discarded.

    Raises, when it is made: `NotFound`, `UploadBusy`, `OffsetMismatch`, `InvalidInput` for a checksum that is not
    known, and `Conflict` for an upload that is finished.
    """

    def __init__(self, folder: UploadFolder, offset: int, checksum: Checksum | None = None) -> None:
        if checksum is not None and checksum[0] not in ALGORITHMS:
            known = ", ".join(ALGORITHMS)
            raise InvalidInput(reason=f'There is no checksum "{checksum[0][:40]}"; there are: {known}')
        self._folder, self._checksum = folder, checksum
        self._lock = folder.lock()
        try:
            self.size = int(folder.values()["size"])
            self._begin(offset)
        except BaseException:
            self._lock.release()
            raise

    def _begin(self, offset: int) -> None:
        if self._folder.result() is not None:
            raise Conflict(reason=f"Upload {self._folder.id} is finished")
        found = self._folder.committed()
        if found.offset != offset:
            raise OffsetMismatch(id=self._folder.id, offset=found.offset, given=offset)
        self._committed = self.offset = offset
        self._length, self._synced = found.length, found.length
        self._waiting, self._failed = bytearray(), False
        self._digest = hashlib.new(self._checksum[0], usedforsecurity=False) if self._checksum else None
        self._committed_at = self._looked_at = time.monotonic()
        with disk_errors(self._folder.path):
            self._content = _opened_at(self._folder.path / CONTENT, found.length)
            try:
                self._journal = _opened_at(self._folder.path / JOURNAL, found.journal)
            except BaseException:
                os.close(self._content)
                raise

    def write(self, data: bytes) -> None:
        """Append these bytes; none where only time has passed. Raises `TooLarge` for more than was announced,
        `UploadBusy` when somebody else goes on with it, `StorageFull`, `StorageFailed`."""
        room = self.size - self.offset
        self._take(data[:room])
        if len(data) > room:
            raise TooLarge(what=f"Upload {self._folder.id}", limit=f"the {self.size:,} bytes that it was to have")
        self._look()

    def _take(self, data: bytes) -> None:
        if self._digest:
            self._digest.update(data)
        self._waiting += data
        self.offset += len(data)
        while len(self._waiting) >= RECORD:
            self._flush(RECORD)
        due = self.offset - self._committed >= COMMIT_BYTES or time.monotonic() - self._committed_at > COMMIT_SECONDS
        if due and self._checksum is None:
            self._commit()

    def _look(self) -> None:
        if time.monotonic() - self._looked_at > LOOK_SECONDS:
            self._looked_at = time.monotonic()
            if self._folder.is_wanted():
                raise UploadBusy(id=self._folder.id)

    def _flush(self, size: int) -> None:
        data = bytes(self._waiting[:size])
        record = self._folder.writing.record(self.offset - len(self._waiting), data)
        with disk_errors(self._folder.path):
            try:
                _write(self._content, record)
            except OSError:
                self._failed = True  # what follows half a record could not be read
                os.ftruncate(self._content, self._length)
                raise
        self._length += len(record)
        del self._waiting[:size]

    def _commit(self) -> None:
        """Make all that has arrived durable, then say so."""
        if self._waiting and not self._failed:
            self._flush(len(self._waiting))
        self._committed_at = time.monotonic()
        if self._length == self._synced:
            return
        written = self.offset - len(self._waiting)
        with disk_errors(self._folder.path):
            os.fsync(self._content)
            _write(self._journal, b"%d %d\n" % (written, self._length))
            os.fsync(self._journal)
        self._committed, self._synced = written, self._length

    def _end(self) -> None:
        if self._digest is None or self._checksum is None:
            self._commit()
        elif self._digest.digest() == self._checksum[1]:
            self._commit()
        else:
            self.offset = self._committed
            raise ChecksumMismatch(id=self._folder.id)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let others go on with it. Where it was cut off, what has arrived stays, unless it was to have a checksum."""
        try:
            if kind is None:
                self._end()
            elif self._checksum is None:
                self._commit()
        finally:
            os.close(self._content)
            os.close(self._journal)
            self._lock.release()


def _opened_at(path: os.PathLike[str], end: int) -> int:
    """A file open for writing after its first `end` bytes, the rest cut off."""
    descriptor = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
    try:
        os.ftruncate(descriptor, end)
        os.lseek(descriptor, end, os.SEEK_SET)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _write(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
