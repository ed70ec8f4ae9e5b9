"""What was read from a store far away, kept on this machine, so that transcribing and embedding fetch a recording once.

An entry is a file `<hash of the key>-<hash of the version>-<size>` in a folder that belongs to one place and one user.
It appears all at once and is never changed, so processes may share the folder: two that fetch the same object write
the same file. The store is asked for the version each time a blob is opened, so an entry of something replaced or
deleted is never used; whoever notices removes it. What was read longest ago goes first. A cache that cannot be written
is no reason to fail: the bytes come from the store then.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, cast
from uuid import uuid4

from audio_storage_system.blobs.base import BlobStore, StagedBlob
from audio_storage_system.errors import NotFound

logger = logging.getLogger(__name__)

SMALLEST = 256 << 10
"""Bytes that one request brings anyway: a smaller blob is not kept."""
PATIENCE = 4 << 20
"""Bytes that are read from a large blob before all of it is fetched: whoever wants a piece waits for no more."""
UNFINISHED = "fetching-"
ABANDONED_SECONDS = 24 * 3600.0


class CachedBlobStore(BlobStore):
    """`store` with the blobs last read from it in `folder`, at most `limit` bytes of them. Other calls go to the store,
    `describe` and `stream` too: they are how a blob is verified."""

    remote: ClassVar[bool] = True

    def __init__(self, store: BlobStore, folder: Path, limit: int) -> None:
        self.url = store.url
        self._store = store
        self._entries = Entries(folder, limit)
        self._fetching = threading.Lock()

    def open(self, key: str) -> BinaryIO:
        """As promised by `BlobStore`: the entry, else a file that becomes one when enough of it is read."""
        try:
            version = self._store.version(key)
        except NotFound:
            self._entries.forget(key)
            raise
        if (kept := self._entries.open(key, version)) is not None:
            return kept
        file = self._store.open(key)
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        if not SMALLEST <= size <= self._entries.limit:
            return file
        through = _ReadThrough(file, size, lambda: self._fetch(key, version, size))
        return cast(BinaryIO, io.BufferedReader(through, buffer_size=64 << 10))

    def _fetch(self, key: str, version: str, size: int) -> BinaryIO | None:
        """Bring the whole blob here, one at a time in this process; `None` where that is impossible."""
        with self._fetching:
            if (kept := self._entries.open(key, version)) is not None:  # another thread was faster
                return kept
            if not self._entries.add(key, version, size, self._store.stream(key)):
                return None
        return self._entries.open(key, version) if self._is_still(key, version) else None

    def _is_still(self, key: str, version: str) -> bool:
        """Whether nobody deleted or replaced the blob while it was fetched."""
        try:
            still = self._store.version(key) == version
        except NotFound:
            still = False
        if not still:
            self._entries.forget(key)
        return still

    def age(self, key: str) -> timedelta | None:
        return self._store.age(key)

    def delete(self, key: str) -> bool:
        existed = self._store.delete(key)
        self._entries.forget(key)
        return existed

    def replace(self, staged: StagedBlob, key: str) -> None:
        self._store.replace(staged, key)
        self._entries.forget(key)

    def stage(self, source: BinaryIO, *, name: str = "", hashed: bool = True) -> StagedBlob:
        return self._store.stage(source, name=name, hashed=hashed)

    def publish(self, staged: StagedBlob, key: str) -> str:
        return self._store.publish(staged, key)

    def discard(self, staged: StagedBlob) -> None:
        self._store.discard(staged)

    def size(self, key: str) -> int:
        return self._store.size(key)

    def version(self, key: str) -> str:
        return self._store.version(key)

    def stream(self, key: str) -> Iterator[bytes]:
        return self._store.stream(key)

    def keys(self, prefix: str = "") -> Iterator[str]:
        return self._store.keys(prefix)

    def url_for(self, key: str, expires: timedelta) -> str:
        return self._store.url_for(key, expires)

    def crashed(self) -> bool:
        return self._store.crashed()

    def settled(self, prefix: str = "") -> Iterator[str]:
        return self._store.settled(prefix)

    def tidy(self) -> None:
        self._store.tidy()

    def close(self) -> None:
        self._store.close()


class Entries:
    """The files of one cache: at most `limit` bytes, readable by their owner only."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.limit = limit
        self._folder = folder

    def open(self, key: str, version: str) -> BinaryIO | None:
        """The bytes of `key` at this version, if they are here and complete; they count as read now."""
        for path in self._folder.glob(f"{_hash(key)}-{_hash(version)}-*"):
            try:
                file = path.open("rb")
                os.utime(path)
            except OSError:
                continue
            if os.fstat(file.fileno()).st_size == int(path.name.rpartition("-")[2]):
                return file
            file.close()
            _remove(path)
        return None

    def add(self, key: str, version: str, size: int, blocks: Iterator[bytes]) -> bool:
        """Keep the bytes, if they are `size` many and there is room. Raises what `blocks` raises."""
        path = self._folder / f"{UNFINISHED}{uuid4().hex}"
        try:
            with os.fdopen(self._create(path, size), "wb") as file:
                written = sum(map(file.write, blocks))
            if written == size:
                path.replace(self._folder / f"{_hash(key)}-{_hash(version)}-{size}")
        except OSError as error:  # no room, no rights
            logger.debug("Nothing is kept in %s: %s", self._folder, error)
            return False
        finally:
            _remove(path)
        return written == size

    def _create(self, path: Path, size: int) -> int:
        for folder in (self._folder.parent, self._folder):  # a mode is that of the last folder only
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder.chmod(0o700)
        self._make_room(size)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)

    def _make_room(self, size: int) -> None:
        """Remove what was read longest ago until `size` more bytes fit; and what a dead process left unfinished."""
        found = sorted(self._found(), key=lambda entry: entry[1].st_mtime)
        held = sum(status.st_size for _, status in found)
        for path, status in found:
            if path.name.startswith(UNFINISHED):
                gone = time.time() - status.st_mtime > ABANDONED_SECONDS
            else:
                gone = held + size > self.limit
            if gone and _remove(path):
                held -= status.st_size

    def _found(self) -> Iterator[tuple[Path, os.stat_result]]:
        for path in self._folder.iterdir():
            with suppress(OSError):  # another process removed it
                yield path, path.stat()

    def forget(self, key: str) -> None:
        """Remove every version of `key`."""
        for path in self._folder.glob(f"{_hash(key)}-*"):
            _remove(path)


class _ReadThrough(io.RawIOBase):
    """A blob read from the store until more than a piece of it is wanted, from then on from the entry."""

    def __init__(self, file: BinaryIO, size: int, fetch: Callable[[], BinaryIO | None]) -> None:
        self._file, self._fetch = file, fetch
        self._left = 0 if size <= PATIENCE else PATIENCE
        self._fetched = False

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return self._file.seek(offset, whence)

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        if not self._fetched and self._left < len(view):
            self._switch()
        data = self._file.read(len(view))
        view[: len(data)] = data
        self._left -= len(data)
        return len(data)

    def _switch(self) -> None:
        self._fetched = True
        if (kept := self._fetch()) is not None:
            kept.seek(self._file.tell())
            self._file.close()
            self._file = kept

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def _remove(path: Path) -> bool:
    try:
        path.unlink()
    except OSError:  # gone already, or open on Windows
        return False
    return True


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
