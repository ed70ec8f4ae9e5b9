"""Blobs as objects in S3, Google Cloud Storage or Azure, under the same keys as on a disk.

Storing: hash while reading → up to `SMALL` bytes stay in memory, more is streamed in parts to
`.staging/<session>-<random>` → publish without overwriting → the staged object goes. What publishing means:

- small: one put that the server refuses if the key exists;
- larger: a copy inside the bucket that the server refuses if the key exists;
- larger than S3 copies in one piece (5 GiB): the key is claimed by an empty object, with a put that is refused if it
  exists, and the bytes are streamed from the staged object over it. Only the claimant may replace an object.

So a key has all of its bytes or does not exist; a claim of the last kind is empty until its bytes are there. The first
thing stored proves that the server does refuse: one that ignores the condition is not written to.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import BinaryIO, ClassVar
from uuid import uuid4

from audio_storage_system.blobs.base import BLOCK, BlobStore, StagedBlob, checked_key, free_number, numbered
from audio_storage_system.blobs.bucket import PART, PARTS, Bucket
from audio_storage_system.blobs.cloud_urls import open_bucket
from audio_storage_system.blobs.ranges import open_range_file
from audio_storage_system.blobs.writers import PROOF, STAGING, Census, Session, is_settled
from audio_storage_system.errors import InvalidInput, NotFound, StorageRefused

SMALL = PART
COPY_LIMIT = {"s3": 5 << 30}
LONGEST = timedelta(days=7)


def from_url(url: str) -> CloudBlobStore:
    """The store of an `s3://`, `gs://` or `az://` URL; nothing is asked of the server yet. Raises `InvalidInput`."""
    return CloudBlobStore(open_bucket(url))


class CloudBlobStore(BlobStore):
    """A blob store in a bucket below a prefix. Many machines, processes and threads may use one at once."""

    remote: ClassVar[bool] = True

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._session = Session(bucket)
        self._held: dict[str, bytes] = {}
        self._proven = False
        self._lock = threading.Lock()
        self._copy_limit = COPY_LIMIT.get(bucket.scheme)
        self.url = bucket.place

    def stage(self, source: BinaryIO, *, name: str = "") -> StagedBlob:
        first = _read_up_to(source, SMALL + 1)
        if len(first) > SMALL:
            return self._stage_large(first, source, name)
        token = uuid4().hex
        self._held[token] = first
        return StagedBlob(token, hashlib.sha256(first).hexdigest(), len(first))

    def _stage_large(self, first: bytes, source: BinaryIO, name: str) -> StagedBlob:
        self._prove()
        token = f"{self._session.beat()}-{uuid4().hex}"
        reading = _Reading(first, source, self._session)
        try:
            self._bucket.upload(_staged(token), iter(reading), part=_part_size(first, source), name=name)
        except _SourceFailed:
            assert reading.error is not None  # noqa: S101 # set before this is raised
            raise reading.error from None
        return StagedBlob(token, reading.digest.hexdigest(), reading.size)

    def publish(self, staged: StagedBlob, key: str) -> str:
        """As promised by `BlobStore`. When it fails, the bytes stay staged: publish again, or discard."""
        candidate = self._checked(key)
        self._prove()
        self._session.beat()
        number = 1
        while not self._place(staged, candidate):
            number = free_number(number + 1, lambda n: self.has(numbered(key, n)))
            candidate = numbered(key, number)
        self.discard(staged)
        return candidate

    def _place(self, staged: StagedBlob, key: str) -> bool:
        """Whether `key` now has the bytes; false when it was taken."""
        if staged.token in self._held:
            return self._bucket.put(key, self._held[staged.token], new=True)
        self._check_staged(staged)
        return self._copy_new(staged, key) if self._fits_copy(staged) else self._claim_and_fill(staged, key)

    def _copy_new(self, staged: StagedBlob, key: str) -> bool:
        """Copy the staged object. A server that is asked again, because its answer was lost, says that the key is taken
        (or the upload unknown) although it did what was asked; bytes that were not there before the call tell that."""
        if self.has(key):
            return False
        try:
            if self._bucket.copy(_staged(staged.token), key, new=True):
                return True
        except NotFound:
            if not self.has(key):
                raise
        return self.size(key) == staged.size and self.describe(key).sha256 == staged.sha256

    def _claim_and_fill(self, staged: StagedBlob, key: str) -> bool:
        if not self._bucket.put(key, b"", new=True):
            return False
        try:
            self._restream(staged, key)
        except BaseException:
            self._bucket.remove(key)
            raise
        return True

    def _fits_copy(self, staged: StagedBlob) -> bool:
        return self._copy_limit is None or staged.size <= self._copy_limit

    def _restream(self, staged: StagedBlob, key: str) -> None:
        """Bring the staged bytes under `key` through this machine, a piece at a time."""
        with self._open(_staged(staged.token), staged.size) as file:
            pieces = iter(lambda: file.read(BLOCK), b"")
            self._bucket.upload(key, pieces, part=max(PART, -(-staged.size // PARTS)))

    def replace(self, staged: StagedBlob, key: str) -> None:
        self._checked(key)
        if staged.token in self._held:
            self._bucket.put(key, self._held[staged.token])
        else:
            self._check_staged(staged)
            if self._fits_copy(staged):
                self._bucket.copy(_staged(staged.token), key, new=False)
            else:
                self._restream(staged, key)
        self.discard(staged)

    def discard(self, staged: StagedBlob) -> None:
        if self._held.pop(staged.token, None) is None and "-" in staged.token:
            self._bucket.remove(_staged(staged.token))

    def _check_staged(self, staged: StagedBlob) -> None:
        if "-" not in staged.token:
            raise NotFound(kind="staged blob", id=staged.token)

    def open(self, key: str) -> BinaryIO:
        return self._open(self._checked(key), self.size(key))

    def _open(self, key: str, size: int) -> BinaryIO:
        return open_range_file(size, lambda start, end: self._bucket.read(key, start, end), key)

    def size(self, key: str) -> int:
        return self._bucket.head(self._checked(key)).size

    def version(self, key: str) -> str:
        return self._bucket.head(self._checked(key)).version

    def delete(self, key: str) -> bool:
        """As promised by `BlobStore`; of two that delete one key at once, both may hear that it was there."""
        existed = self.has(key)
        if existed:
            self._bucket.remove(key)
        return existed

    def keys(self, prefix: str = "") -> Iterator[str]:
        folder = prefix.rstrip("/")
        found = self._bucket.list(self._checked(folder) if folder else "")
        return (meta.key for meta in found if not meta.key.startswith(f"{STAGING}/"))

    def url_for(self, key: str, expires: timedelta) -> str:
        """A signed URL, for at most seven days. Raises `NotFound`, `InvalidInput`."""
        if not timedelta(0) < expires <= LONGEST:
            raise InvalidInput(reason="a URL can be valid for a second to seven days")
        self.size(key)
        return self._bucket.sign(key, expires)

    def crashed(self) -> bool:
        return bool(self._census().dead)

    def settled(self, prefix: str = "") -> Iterator[str]:
        """While other processes are writing, only keys older than half an hour; else all."""
        if not self._census().living:
            return self.keys(prefix)
        folder = prefix.rstrip("/")
        return (
            meta.key
            for meta in self._bucket.list(folder)
            if is_settled(meta) and not meta.key.startswith(f"{STAGING}/")
        )

    def tidy(self) -> None:
        for key in self._census().abandoned():
            self._bucket.remove(key)

    def close(self) -> None:
        self._held.clear()
        self._session.end()

    def _census(self) -> Census:
        return Census.take(self._bucket, self._session.id)

    def _prove(self) -> None:
        """Make sure, once, that this server refuses to overwrite when it is told to."""
        with self._lock:
            if self._proven:
                return
            if self._bucket.put(PROOF, b"", new=True) and self._bucket.put(PROOF, b"", new=True):
                raise StorageRefused(
                    place=self.url,
                    reason="it overwrites an object although told not to (If-None-Match), so recordings would not be "
                    "safe there. Use a server that keeps this condition.",
                )
            self._proven = True

    def _checked(self, key: str) -> str:
        if checked_key(key).split("/")[0].casefold() == STAGING:
            raise InvalidInput(reason=f"{key!r} is not a key inside the archive")
        return key


class _SourceFailed(Exception):
    """Carries a source's own error past obstore."""


class _Reading:
    """A source read to its end in blocks: hashed and counted, the writer's mark kept fresh."""

    def __init__(self, first: bytes, source: BinaryIO, session: Session) -> None:
        self.digest = hashlib.sha256()
        self.size = 0
        self.error: BaseException | None = None
        self._first, self._source, self._session = first, source, session

    def __iter__(self) -> Iterator[bytes]:
        block = self._first
        while block:
            self.digest.update(block)
            self.size += len(block)
            yield block
            block = self._next()

    def _next(self) -> bytes:
        try:
            self._session.beat()
            return self._source.read(BLOCK)
        except BaseException as error:
            self.error = error
            raise _SourceFailed from None


def _read_up_to(source: BinaryIO, size: int) -> bytes:
    blocks, left = [], size
    while left and (block := source.read(min(left, BLOCK))):
        blocks.append(block)
        left -= len(block)
    return b"".join(blocks)


def _part_size(first: bytes, source: BinaryIO) -> int:
    """Larger parts for what would not fit into the number of parts allowed, where the size can be known."""
    try:
        here = source.tell()
        left = source.seek(0, 2) - here
        source.seek(here)
    except (OSError, ValueError, AttributeError):
        left = PART * PARTS // 4
    return max(PART, -(-(len(first) + left) // PARTS))


def _staged(token: str) -> str:
    return f"{STAGING}/{token}"
