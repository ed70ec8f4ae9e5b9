"""What a blob store must do: keep bytes under keys, unchanged, and never overwrite."""

from __future__ import annotations

import hashlib
import io
import posixpath
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import BinaryIO, ClassVar

from audio_storage_system.errors import InvalidInput, NotFound, Unavailable

BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class StagedBlob:
    """Bytes that have no key yet. `sha256` in lower-case hex, `size` in bytes; `blob_id` of those that are sealed."""

    token: str
    sha256: str
    size: int
    blob_id: str = ""


class BlobStore(ABC):
    """Keys are relative POSIX paths (`audio_files/2026/11/audio_20261122_120000.wav`).

    Storing has two halves, so that a crash leaves at worst bytes without a row: `stage` makes the bytes durable and
    tells their hash; `publish` gives them a key that nobody had, atomically. Raises `StorageFull`, `ArchiveReadOnly`.
    """

    url: str
    remote: ClassVar[bool] = False
    """Whether bytes travel over a network, so that it pays to keep those read on this machine."""

    @abstractmethod
    def stage(self, source: BinaryIO, *, name: str = "", hashed: bool = True) -> StagedBlob:
        """Read `source` to its end, hashing on the way; the caller may close it then. The bytes are durable once they
        are published. A store that sends them over a network may keep an ordinary file open instead of copying it, and
        `publish` then raises `StorageFailed` where it has changed. `name` tells the media type by its suffix. Where it
        is not to be `hashed`, a store that needs no hash itself may leave it empty."""

    @abstractmethod
    def publish(self, staged: StagedBlob, key: str) -> str:
        """Give staged bytes a key and return it: `key`, or with `-2`, `-3` … before its suffix when it was taken."""

    @abstractmethod
    def discard(self, staged: StagedBlob) -> None:
        """Forget staged bytes."""

    @abstractmethod
    def open(self, key: str) -> BinaryIO:
        """A seekable binary stream. Raises `NotFound`."""

    def stream(self, key: str) -> Iterator[bytes]:
        """All the bytes in order, in blocks, as fast as the store gives them. Raises `NotFound`."""
        with self.open(key) as file:
            while block := file.read(BLOCK):
                yield block

    @abstractmethod
    def size(self, key: str) -> int:
        """Bytes stored under `key`. Raises `NotFound`."""

    def version(self, key: str) -> str:
        """A text that changes when the bytes under `key` do. Raises `NotFound`."""
        return str(self.size(key))

    def age(self, key: str) -> timedelta | None:
        """How long ago the bytes under `key` were stored, where the store can tell. Raises `NotFound`."""
        return None

    def has(self, key: str) -> bool:
        """Whether there is something under `key`."""
        try:
            self.size(key)
        except NotFound:
            return False
        return True

    @abstractmethod
    def replace(self, staged: StagedBlob, key: str) -> None:
        """Give staged bytes this very key, in one step, whatever it held before. For derived files only: recordings are
        never overwritten."""

    def put(self, key: str, data: bytes) -> None:
        """Give something small this very key, as `replace` does."""
        self.replace(self.stage(io.BytesIO(data), name=key), key)

    def fingerprint(self, sha256: str) -> str:
        """What the catalogue keeps as the hash of bytes that have this one."""
        return sha256

    def describe(self, key: str) -> StagedBlob:
        """Hash and size of the bytes stored under `key`, read anew, with the key as token. Raises `NotFound`."""
        digest = hashlib.sha256()
        size = 0
        for block in self.stream(key):
            digest.update(block)
            size += len(block)
        return StagedBlob(key, digest.hexdigest(), size)

    @abstractmethod
    def delete(self, key: str) -> bool:
        """Remove `key`; whether there was something to remove. Durable when it returns."""

    @abstractmethod
    def keys(self, prefix: str = "") -> Iterator[str]:
        """Every key below the folder `prefix`, in order; staged bytes are not among them."""

    def url_for(self, key: str, expires: timedelta) -> str:
        """A URL from which anyone can read `key` until it expires. Raises `Unavailable` where there is none to give."""
        raise Unavailable(reason=f"{self.url} has no URLs for others to read from; use open_audio, or object storage")

    def crashed(self) -> bool:
        """Whether a process died while it had this store open for writing, so that blobs may lack their rows."""
        return False

    def settled(self, prefix: str = "") -> Iterator[str]:
        """The keys that no living process can be about to give a row: those that a scan may take for orphans."""
        return self.keys(prefix)

    def tidy(self) -> None:
        """Remove what such processes left, blobs excepted; `crashed` is false from then on."""

    def close(self) -> None:
        """Let go of the store; a process that ends does the same."""


def read_up_to(source: BinaryIO, size: int) -> bytes:
    """So many bytes, or all that are left."""
    blocks, left = [], size
    while left and (block := source.read(min(left, BLOCK))):
        blocks.append(block)
        left -= len(block)
    return blocks[0] if len(blocks) == 1 else b"".join(blocks)


def checked_key(key: str) -> str:
    """`key`, when it stays inside the store; otherwise `InvalidInput`. The one place where keys are checked."""
    parts = key.split("/")
    if not key or "\\" in key or "\0" in key or ":" in parts[0] or any(part in ("", ".", "..") for part in parts):
        raise InvalidInput(reason=f"{key!r} is not a key inside the archive")
    return key


def numbered(key: str, number: int) -> str:
    """`a/b.wav` → `a/b-2.wav`."""
    stem, suffix = posixpath.splitext(key)
    return f"{stem}-{number}{suffix}"


def free_number(start: int, taken: Callable[[int], bool]) -> int:
    """A free number, `start` or more, that follows a taken one, by doubling and halving: thousands may share a name."""
    low, step = start - 1, 1
    while taken(low + step):
        low, step = low + step, step * 2
    high = low + step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if taken(middle) else (low, middle)
    return high
