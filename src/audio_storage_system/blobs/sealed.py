"""Blobs that nobody can read without the archive's keys: a wrapper around any other store.

Each blob has a random data key of its own, kept elsewhere (`DataKeys`); its bytes are a stream of `stream_seal`, whose
associated data names the archive and the blob. A blob is called after the salt in its header. It counts only where its
data key says that it belongs: one put in the place of another, cut, changed, or an earlier one of the same place is
refused. What an archive needs before its keys are at hand stays readable: `READABLE`.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, BinaryIO, cast

from audio_storage_system.blobs import stream_seal
from audio_storage_system.blobs.base import BlobStore, StagedBlob, read_up_to
from audio_storage_system.blobs.stream_seal import HEADER, Broken, Sealing, StreamKey
from audio_storage_system.errors import NotFound, SealBroken, Unavailable
from audio_storage_system.keys import ArchiveKeys, DataKeys

READABLE = frozenset({"metadata.json", "keys.json", "filling.json"})
BUFFER = 64 << 10


@dataclass
class _Staged:
    """The key of a staged blob. `kept`: the catalogue has it."""

    blob_id: str
    data_key: bytes
    kept: bool = False


class SealedBlobStore(BlobStore):
    """`store`, with everything in it encrypted. Hashes and sizes are those of the content; `fingerprint` is not the
    SHA-256 itself, which would tell whoever reads the catalogue which files are there.

    The data key is durable before the blob has its key, so that what a crash leaves can be read. Raises `SealBroken`.
    """

    def __init__(self, store: BlobStore, keys: ArchiveKeys, data_keys: DataKeys) -> None:
        self.url = store.url
        self._store, self._data_keys = store, data_keys
        self._archive_id, self._hash_key = keys.archive_id, keys.derive("hashes")
        self._staged: dict[str, _Staged] = {}

    @property
    def remote(self) -> bool:  # type: ignore[override] # as the store within
        return self._store.remote

    def fingerprint(self, sha256: str) -> str:
        return hmac.new(self._hash_key, bytes.fromhex(sha256), hashlib.sha256).hexdigest()

    def stage(self, source: BinaryIO, *, name: str = "", hashed: bool = True) -> StagedBlob:
        data_key, header = os.urandom(stream_seal.KEY), stream_seal.new_header()
        sealing = Sealing(source, self._stream_key(data_key, header))
        staged = self._store.stage(cast(BinaryIO, sealing), name=name, hashed=False)
        blob_id = stream_seal.salt_of(header)
        self._staged[staged.token] = _Staged(blob_id, data_key)
        return StagedBlob(staged.token, sealing.sha256, sealing.size, blob_id)

    def publish(self, staged: StagedBlob, key: str) -> str:
        self._keep_key(staged)
        key = self._store.publish(staged, key)
        self._staged.pop(staged.token, None)
        return key

    def replace(self, staged: StagedBlob, key: str) -> None:
        """As promised by `BlobStore`: until it has happened, both the old and the new blob belong there."""
        self._keep_key(staged, key)
        self._store.replace(staged, key)
        self._staged.pop(staged.token, None)
        self._data_keys.settle(staged.blob_id, key)

    def _keep_key(self, staged: StagedBlob, path: str | None = None) -> None:
        held = self._staged.get(staged.token)
        if held is None:
            raise NotFound(kind="staged blob", id=staged.token)
        if not held.kept:
            self._data_keys.add(held.blob_id, held.data_key, path)
            held.kept = True

    def put(self, key: str, data: bytes) -> None:
        if key in READABLE:
            self._store.put(key, data)
        else:
            super().put(key, data)

    def discard(self, staged: StagedBlob) -> None:
        self._staged.pop(staged.token, None)
        self._store.discard(staged)

    def open(self, key: str) -> BinaryIO:
        file = self._store.open(key)
        if key in READABLE:
            return file
        try:
            with _named(key):
                size = stream_seal.plain_size(file.seek(0, os.SEEK_END))
                file.seek(0)
                content = _Content(file, size, self._key_of(read_up_to(file, HEADER), key), key)
        except BaseException:
            file.close()
            raise
        return io.BufferedReader(content, buffer_size=BUFFER)

    def stream(self, key: str) -> Iterator[bytes]:
        return self._store.stream(key) if key in READABLE else self._content(key, [])

    def _content(self, key: str, header: list[bytes]) -> Iterator[bytes]:
        """The content, and once it has begun the header."""

        def key_of(found: bytes) -> StreamKey:
            header.append(found)
            return self._key_of(found, key)

        with _named(key):
            yield from stream_seal.opened(self._store.stream(key), key_of)

    def describe(self, key: str) -> StagedBlob:
        if key in READABLE:
            return self._store.describe(key)
        header: list[bytes] = []
        digest, size = hashlib.sha256(), 0
        for block in self._content(key, header):
            digest.update(block)
            size += len(block)
        return StagedBlob(key, digest.hexdigest(), size, stream_seal.salt_of(header[0]))

    def size(self, key: str) -> int:
        size = self._store.size(key)
        if key in READABLE:
            return size
        with _named(key):
            return stream_seal.plain_size(size)

    def version(self, key: str) -> str:
        return self._store.version(key)

    def has(self, key: str) -> bool:
        return self._store.has(key)

    def delete(self, key: str) -> bool:
        return self._store.delete(key)

    def keys(self, prefix: str = "") -> Iterator[str]:
        return self._store.keys(prefix)

    def url_for(self, key: str, expires: timedelta) -> str:
        reason = "the archive is encrypted, so a URL would give what nobody can read; use open_audio"
        raise Unavailable(reason=reason)

    def crashed(self) -> bool:
        return self._store.crashed()

    def settled(self, prefix: str = "") -> Iterator[str]:
        return self._store.settled(prefix)

    def tidy(self) -> None:
        self._store.tidy()

    def close(self) -> None:
        self._store.close()

    def _key_of(self, header: bytes, key: str) -> StreamKey:
        if len(header) != HEADER or header[0] != HEADER:
            raise Broken("its header is not one")
        data_key = self._data_keys.find(stream_seal.salt_of(header), key)
        if data_key is None:
            raise Broken("it does not belong there, or its key was destroyed")
        return self._stream_key(data_key, header)

    def _stream_key(self, data_key: bytes, header: bytes) -> StreamKey:
        about = f"{self._archive_id}/{stream_seal.salt_of(header)}"
        return StreamKey(data_key, header, about.encode())


class _Content(stream_seal.SealedFile):
    """A sealed file whose errors name the blob."""

    def __init__(self, file: BinaryIO, size: int, key: StreamKey, name: str) -> None:
        super().__init__(file, size, key)
        self.name = name

    def readinto(self, buffer: Any, /) -> int:
        with _named(self.name):
            return super().readinto(buffer)


@contextmanager
def _named(key: str) -> Iterator[None]:
    try:
        yield
    except Broken as error:
        raise SealBroken(key=key, reason=str(error)) from error
