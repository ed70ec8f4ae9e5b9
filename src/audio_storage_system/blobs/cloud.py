"""Blobs as objects in S3, Google Cloud Storage or Azure, under the same keys as on a disk.

Storing: read the source once, to hash it (what is not an ordinary file is copied into a temporary one meanwhile, and up
to `SMALL` bytes stay in memory) → send it once, to its key, without overwriting. What that means:

- small: one put that the server refuses if the key exists;
- larger: the key is claimed by an empty object, with a put that is refused if it exists; then the bytes are streamed
  over it in parts, hashed again on the way. obstore has no condition for the end of an upload in parts, and a copy
  inside the bucket from a staged object, which has one, takes a third of the time more.

So a key has all of its bytes or does not exist: a claim counts as nothing, except to whoever looks for a free key.
Only the claimant writes to a key that he claimed, so nothing is overwritten. A claim that a dead process left stays,
because nobody can know that its last request is not still on the way. But it names the hash of the bytes to come, and
whoever stores the same ones may fill it: it does not matter then whose come last.

The first thing stored proves that the server does refuse: one that ignores the condition is not written to.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from typing import BinaryIO, ClassVar
from uuid import uuid4

from audio_storage_system.blobs.base import BlobStore, StagedBlob, checked_key, free_number, numbered
from audio_storage_system.blobs.bucket import PART, PARTS, Bucket, Meta
from audio_storage_system.blobs.cloud_urls import open_bucket
from audio_storage_system.blobs.holding import Held, Sending, hold
from audio_storage_system.blobs.ranges import open_range_file
from audio_storage_system.blobs.writers import PROOF, STAGING, Census, Session, is_settled
from audio_storage_system.errors import (
    AudioStorageSystemError,
    InvalidInput,
    NotFound,
    StorageRefused,
    StorageUnavailable,
)

SMALL = PART
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
        self._held: dict[str, Held] = {}
        self._proven = False
        self._lock = threading.Lock()
        self.url = bucket.place

    def stage(self, source: BinaryIO, *, name: str = "", hashed: bool = True) -> StagedBlob:
        """As promised by `BlobStore`; nothing is sent yet. An ordinary file is not copied: it must stay as it is until
        it is published, or that raises `StorageFailed`."""
        held = hold(source, small=SMALL)
        token = uuid4().hex
        self._held[token] = held
        return StagedBlob(token, held.sha256, held.size)

    def publish(self, staged: StagedBlob, key: str) -> str:
        """As promised by `BlobStore`. When it fails, the bytes stay staged: publish again, or discard."""
        self._checked(key)
        held = self._staged(staged)
        self._prove()
        self._session.beat()
        try:
            placed = self._place_first_free(held, key)
        except StorageUnavailable:
            self._session.doubt()
            raise
        self.discard(staged)
        return placed

    def _place_first_free(self, held: Held, key: str) -> str:
        candidate, number = key, 1
        while not self._place(held, candidate):
            number = free_number(number + 1, lambda n: self._is_taken(numbered(key, n)))
            candidate = numbered(key, number)
        return candidate

    def _place(self, held: Held, key: str) -> bool:
        """Whether `key` now has the bytes; false when it was taken."""
        if held.data is not None:
            return self._bucket.put(key, held.data, new=True)
        claim = f"{self._session.id}-{held.sha256}"
        claimed = self._bucket.put(key, b"", new=True, claim=claim)
        if not claimed and not self._may_fill(key, held):
            return False
        sending = Sending(held)
        try:
            self._send(sending, held, key)
        except BaseException:
            if claimed and not sending.complete:  # else the server may yet do what it was asked last
                self._give_up(key, claim)
            raise
        return True

    def _give_up(self, key: str, claim: str) -> None:
        with suppress(AudioStorageSystemError):  # what called this tells more
            if self._claim_on(key) == claim:
                self._bucket.remove(key)

    def _claim_on(self, key: str) -> str:
        try:
            return self._bucket.head(key).notes.get("claim", "")
        except NotFound:
            return ""

    def _may_fill(self, key: str, held: Held) -> bool:
        """Whether a dead process claimed the key for these very bytes."""
        session, _, sha256 = self._claim_on(key).partition("-")
        return sha256 == held.sha256 and session not in self._census().living | {self._session.id}

    def _send(self, sending: Sending, held: Held, key: str) -> None:
        with self._session.beating():
            self._bucket.upload(key, sending, part=max(PART, -(-held.size // PARTS)))

    def replace(self, staged: StagedBlob, key: str) -> None:
        self._checked(key)
        held = self._staged(staged)
        if held.data is not None:
            self._bucket.put(key, held.data)
        else:
            self._session.beat()
            self._send(Sending(held), held, key)
        self.discard(staged)

    def discard(self, staged: StagedBlob) -> None:
        if (held := self._held.pop(staged.token, None)) is not None:
            held.close()

    def _staged(self, staged: StagedBlob) -> Held:
        if (held := self._held.get(staged.token)) is None:
            raise NotFound(kind="staged blob", id=staged.token)
        return held

    def open(self, key: str) -> BinaryIO:
        return open_range_file(self.size(key), lambda start, end: self._bucket.read(key, start, end), key)

    def stream(self, key: str) -> Iterator[bytes]:
        self._look(key)
        return self._bucket.stream(key)

    def size(self, key: str) -> int:
        return self._look(key).size

    def version(self, key: str) -> str:
        return self._look(key).version

    def _look(self, key: str) -> Meta:
        found = self._bucket.head(self._checked(key))
        if "claim" in found.notes:
            raise NotFound(kind="blob", id=key)
        return found

    def _is_taken(self, key: str) -> bool:
        try:
            self._bucket.head(key)
        except NotFound:
            return False
        return True

    def delete(self, key: str) -> bool:
        """As promised by `BlobStore`; of two that delete one key at once, both may hear that it was there. A claim
        stays where it is."""
        existed = self.has(key)
        if existed:
            self._bucket.remove(key)
        return existed

    def keys(self, prefix: str = "") -> Iterator[str]:
        return (found.key for found in self._list(prefix))

    def _list(self, prefix: str) -> Iterator[Meta]:
        folder = prefix.rstrip("/")
        found = self._bucket.list(self._checked(folder) if folder else "")
        return (meta for meta in found if not meta.key.startswith(f"{STAGING}/") and (meta.size or self.has(meta.key)))

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
        return (found.key for found in self._list(prefix) if is_settled(found))

    def tidy(self) -> None:
        for key in self._census().abandoned():
            self._bucket.remove(key)

    def close(self) -> None:
        for token in list(self._held):
            self._held.pop(token).close()
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
