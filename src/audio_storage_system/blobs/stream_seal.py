"""A stream in Tink's published format AES-GCM-HKDF-Streaming, type AES256_GCM_HKDF_1MB.

    header   40, then a salt of 32 bytes and a nonce prefix of 7
    segments of 1 MiB with the tag, the first shorter by the header, the last as long as it is

Each stream has a key of its own: HKDF-SHA256 of the data key with the salt and the associated data. A segment is
encrypted with AES-256-GCM under the nonce: prefix, its number in four bytes, 1 where it is the last and else 0. So
segments can be decrypted one by one, and none can be moved, left out or cut off unnoticed. At least one is there.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from audio_storage_system.blobs.base import read_up_to
from audio_storage_system.positioned import Positioned

SEGMENT, TAG, SALT, PREFIX, KEY = 1 << 20, 16, 32, 7, 32
HEADER = 1 + SALT + PREFIX
FIRST, REST = SEGMENT - HEADER - TAG, SEGMENT - TAG


class Broken(Exception):
    """These bytes are not what was sealed."""


class StreamKey:
    """What the segments of one stream are encrypted with."""

    def __init__(self, data_key: bytes, header: bytes, associated: bytes) -> None:
        if len(header) != HEADER or header[0] != HEADER:
            raise Broken("its header is not one")
        salt = header[1 : 1 + SALT]
        self.header, self._prefix = header, header[1 + SALT :]
        self._cipher = AESGCM(HKDF(SHA256(), KEY, salt=salt, info=associated).derive(data_key))

    def seal(self, data: bytes | memoryview, number: int, *, last: bool) -> bytes:
        """A segment."""
        return self._cipher.encrypt(self._nonce(number, last), data, None)

    def open(self, segment: bytes, number: int, *, last: bool) -> bytes:
        """What is in a segment. Raises `Broken`."""
        try:
            return self._cipher.decrypt(self._nonce(number, last), segment, None)
        except (InvalidTag, ValueError) as error:
            raise Broken(f"its bytes {span(number)[0]:,} and following were changed, moved or cut off") from error

    def _nonce(self, number: int, last: bool) -> bytes:
        return self._prefix + number.to_bytes(4, "big") + bytes([last])


def new_header() -> bytes:
    """A header with a random salt and nonce prefix."""
    return bytes([HEADER]) + os.urandom(SALT + PREFIX)


def salt_of(header: bytes) -> str:
    """The salt of a header, in hex: no two streams have the same."""
    return header[1 : 1 + SALT].hex()


def span(number: int) -> tuple[int, int]:
    """Where the content of a segment begins and ends, if it is a full one."""
    return (0, FIRST) if number == 0 else (FIRST + (number - 1) * REST, FIRST + number * REST)


def plain_size(sealed: int) -> int:
    """How many bytes are in a stream of so many. Raises `Broken`."""
    rest = sealed - HEADER
    segments = max(1, -(-sealed // SEGMENT))
    if rest < TAG or sealed - (segments - 1) * SEGMENT < TAG:
        raise Broken("it is cut off")
    return rest - segments * TAG


def number_of_segments(size: int) -> int:
    """How many segments hold so many bytes."""
    return 1 if size <= FIRST else 1 + -(-(size - FIRST) // REST)


class Sealing(io.RawIOBase):
    """What `source` gives from where it stands, sealed, as a stream to be read once. `size` and `sha256` are those of
    the content, when it has been read to its end."""

    def __init__(self, source: BinaryIO, key: StreamKey) -> None:
        self.size = 0
        self._source, self._key = source, key
        self._digest = hashlib.sha256()
        self._segments = self._sealed()
        self._ready = memoryview(b"")

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        if not self._ready:
            self._ready = memoryview(next(self._segments, b""))
        count = min(len(view), len(self._ready))
        view[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _sealed(self) -> Iterator[bytes]:
        yield self._key.header
        first = self._content(FIRST)
        if len(first) < FIRST:
            yield self._key.seal(first, 0, last=True)
        else:
            yield from _ahead(self._sealed_from(first))

    def _sealed_from(self, data: bytes) -> Iterator[bytes]:
        number = 0
        while True:
            following = self._content(REST) if len(data) == (FIRST if number == 0 else REST) else b""
            yield self._key.seal(data, number, last=not following)
            if not following:
                return
            number, data = number + 1, following

    def _content(self, size: int) -> bytes:
        data = read_up_to(self._source, size)
        self._digest.update(data)
        self.size += len(data)
        return data


def _ahead(segments: Iterator[bytes]) -> Iterator[bytes]:
    """The same, each made by another thread while the one before it is written."""
    with ThreadPoolExecutor(1, "seal") as pool:
        coming = pool.submit(next, segments, b"")
        while segment := coming.result():
            coming = pool.submit(next, segments, b"")
            yield segment


def opened(blocks: Iterable[bytes], key_of: Callable[[bytes], StreamKey]) -> Iterator[bytes]:
    """The content of a stream that comes in blocks of any size, segment by segment. `key_of` is given the header.
    Raises `Broken`."""
    waiting, key, number = bytearray(), None, 0
    for block in blocks:
        waiting += block
        if key is None and len(waiting) >= HEADER:
            key = key_of(bytes(waiting[:HEADER]))
            del waiting[:HEADER]
        while key is not None and len(waiting) > (full := SEGMENT - (HEADER if number == 0 else 0)):
            yield key.open(bytes(waiting[:full]), number, last=False)
            del waiting[:full]
            number += 1
    if key is None:
        raise Broken("it is cut off")
    yield key.open(bytes(waiting), number, last=True)


class SealedFile(Positioned):
    """The content of a sealed file, readable from any position: only the segments in question are read and decrypted,
    and the one read last is kept. For one thread. Whatever is read is what was sealed there, or reading raises
    `Broken`; that a file was cut off is noticed when its end is read."""

    def __init__(self, file: BinaryIO, size: int, key: StreamKey) -> None:
        self._file, self._size, self._key = file, size, key
        self._last = number_of_segments(size) - 1
        self._position = 0
        self._number, self._content = -1, b""

    def readinto(self, buffer: Any, /) -> int:
        """As of `io.RawIOBase`."""
        view = memoryview(buffer).cast("B")
        if self._position >= self._size or not view:
            if self._size == 0:  # else a file cut off after its header would pass for an empty one
                self._segment(0)
            return 0
        number = 0 if self._position < FIRST else 1 + (self._position - FIRST) // REST
        start, _ = span(number)
        piece = memoryview(self._segment(number))[self._position - start :][: len(view)]
        view[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    def _segment(self, number: int) -> bytes:
        if number != self._number:
            self._file.seek(number * SEGMENT if number else HEADER)
            sealed = read_up_to(self._file, SEGMENT if number else SEGMENT - HEADER)
            self._content = self._key.open(sealed, number, last=number == self._last)
            self._number = number
        return self._content

    def close(self) -> None:
        """Let go of the file."""
        if not self.closed:
            self._file.close()
        super().close()
