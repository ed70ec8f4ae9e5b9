"""How an upload lies on the disk: as it is, or in an encrypted archive sealed with each write.

A sealed upload has a key of its own, HKDF-SHA256 of the archive's key for uploads with the upload's id (16 random
bytes) as salt and its owner in the info. Everything in it is sealed by AES-256-GCM with a random nonce of 12 bytes,
since what a crash cut off is written a second time at the same place: an upload has far less than the 2^32 messages for
which random nonces are safe under one key (NIST SP 800-38D, 8.3). The place is the associated data: the name of a text,
or the offset of a record in the content, so nothing can be moved.
"""

from __future__ import annotations

import io
import json
import os
import struct
from abc import ABC, abstractmethod
from array import array
from base64 import b64decode, b64encode
from bisect import bisect_right
from collections.abc import Mapping
from typing import Any, BinaryIO, ClassVar, cast

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from audio_storage_system.errors import ArchiveDamaged
from audio_storage_system.positioned import Positioned

RECORD = 1 << 20  # bytes of content in one write, at most
BUFFER = 64 << 10
_INFO = b"audio-storage/upload/2/"
_HEAD = struct.Struct(">I")  # of a record: how many bytes follow
_NONCE, _TAG = 12, 16


class Writing(ABC):
    """How an upload is written. `version` is that of its format."""

    version: ClassVar[int]

    @abstractmethod
    def text(self, name: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """What is written for these values into the file of this name."""

    @abstractmethod
    def read(self, name: str, text: Mapping[str, Any]) -> dict[str, Any]:
        """The values that were written so. Raises `ValueError` or `KeyError` for any other text."""

    @abstractmethod
    def record(self, offset: int, data: bytes) -> bytes:
        """What is appended to the file of the content for these bytes, which begin at `offset` in it."""

    @abstractmethod
    def opened(self, file: BinaryIO, size: int) -> BinaryIO:
        """The first `size` bytes of content in a file, to be read from any position; closing it closes the file.
        Raises `ArchiveDamaged`, at once or when it is read, for what was not written so."""


class Plain(Writing):
    """Everything as it is."""

    version = 1

    def text(self, name: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"version": self.version, **values}

    def read(self, name: str, text: Mapping[str, Any]) -> dict[str, Any]:
        if text["version"] != self.version:
            raise ValueError("it is sealed, and this archive has no key")
        return {key: value for key, value in text.items() if key != "version"}

    def record(self, offset: int, data: bytes) -> bytes:
        return data

    def opened(self, file: BinaryIO, size: int) -> BinaryIO:
        if os.fstat(file.fileno()).st_size < size:
            raise ArchiveDamaged(place=file.name, reason="it is shorter than what was acknowledged")
        return file


class Sealed(Writing):
    """Only the key opens it. key: of the archive, for uploads. upload_id: its id, in hex; owner: whose it is."""

    version = 2

    def __init__(self, key: bytes, upload_id: str, owner: str) -> None:
        salt, info = bytes.fromhex(upload_id), _INFO + owner.encode()
        self._cipher = AESGCM(HKDF(SHA256(), 32, salt=salt, info=info).derive(key))

    def text(self, name: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
        sealed = self._seal(json.dumps(values).encode(), name.encode())
        return {"version": self.version, "sealed": b64encode(sealed).decode()}

    def read(self, name: str, text: Mapping[str, Any]) -> dict[str, Any]:
        opened = self.open(b64decode(text["sealed"]), name.encode())
        if opened is None:
            raise ValueError("it was sealed with another key, or changed since")
        return dict(json.loads(opened))

    def record(self, offset: int, data: bytes) -> bytes:
        sealed = self._seal(data, _place(offset))
        return _HEAD.pack(len(sealed)) + sealed

    def opened(self, file: BinaryIO, size: int) -> BinaryIO:
        return cast(BinaryIO, io.BufferedReader(_Records(self, file, size), buffer_size=BUFFER))

    def open(self, sealed: bytes, place: bytes) -> bytes | None:
        """What was sealed for this place; `None` for anything else."""
        try:
            return self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], place)
        except (InvalidTag, ValueError):
            return None

    def _seal(self, data: bytes, place: bytes) -> bytes:
        nonce = os.urandom(_NONCE)
        return nonce + self._cipher.encrypt(nonce, data, place)


def _place(offset: int) -> bytes:
    return struct.pack(">Q", offset)


class _Records(Positioned):
    """The content of a row of sealed records; the one read last is kept. For one thread."""

    def __init__(self, sealed: Sealed, file: BinaryIO, size: int) -> None:
        self._sealed, self._file, self._size = sealed, file, size
        self._starts, self._places = array("Q"), array("Q")  # of each record: in the content, and in the file
        self._number, self._content = -1, b""
        self._find()

    def _find(self) -> None:
        start = place = 0
        while start < self._size:
            length = self._length_at(place)
            self._starts.append(start)
            self._places.append(place)
            start, place = start + length - _NONCE - _TAG, place + _HEAD.size + length
        if start != self._size:
            raise self._damaged()

    def _length_at(self, place: int) -> int:
        self._file.seek(place)
        head = self._file.read(_HEAD.size)
        length = int(_HEAD.unpack(head)[0]) if len(head) == _HEAD.size else 0
        if not _NONCE + _TAG < length <= _NONCE + _TAG + RECORD:
            raise self._damaged()
        return length

    def readinto(self, buffer: Any, /) -> int:
        """As of `io.RawIOBase`."""
        view = memoryview(buffer).cast("B")
        if self._position >= self._size or not view:
            return 0
        number = bisect_right(self._starts, self._position) - 1
        piece = memoryview(self._record(number))[self._position - self._starts[number] :][: len(view)]
        view[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    def _record(self, number: int) -> bytes:
        if number != self._number:
            length = self._length_at(self._places[number])
            opened = self._sealed.open(self._file.read(length), _place(self._starts[number]))
            if opened is None:
                raise self._damaged()
            self._number, self._content = number, opened
        return self._content

    def _damaged(self) -> ArchiveDamaged:
        return ArchiveDamaged(place=self._file.name, reason="it is not what was written there")

    def close(self) -> None:
        """Let go of the file."""
        if not self.closed:
            self._file.close()
        super().close()


def writing_of(key: bytes | None, upload_id: str, owner: str) -> Writing:
    """How an upload is written, sealed where there is a key."""
    return Plain() if key is None else Sealed(key, upload_id, owner)
