"""How a spool lies on the disk: as it is, or in an encrypted archive sealed with each write.

A sealed spool has a key of its own, HKDF-SHA256 of the archive's key for spools with the spool's id (16 random bytes)
as salt. Everything in it is sealed by AES-256-GCM for a place that is never used a second time: the number of a piece
(32 bits) and of a record within it (64 bits), big-endian. The place is the nonce, and with the spool's id it is the
associated data, so nothing can be moved to another place or another spool. Piece 0 is text: the manifest is its record
0, the lines of the journal are the records that follow.
"""

from __future__ import annotations

import json
import struct
from abc import ABC, abstractmethod
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any, ClassVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

ID_BYTES = 16
_TEXTS = 0
_INFO = b"audio-storage/spool/2"
_PLACE = struct.Struct(">IQ")
_HEAD = struct.Struct(">QI")  # of a record: its number, how many bytes follow


class Writing(ABC):
    """How a spool is written. `version` is that of its format, `head` what its manifest begins with."""

    version: ClassVar[int]

    @property
    def head(self) -> Mapping[str, Any]:
        return {"version": self.version}

    @abstractmethod
    def text(self, number: int, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """What is written for these values: the manifest (0) or a line of the journal. No two have one number."""

    @abstractmethod
    def read(self, text: Mapping[str, Any]) -> dict[str, Any]:
        """The values that were written so. Raises `ValueError` or `KeyError` for any other text."""

    @abstractmethod
    def record(self, piece: int, number: int, sound: bytes) -> bytes:
        """What is appended to a piece for this sound. No two records of a piece have one number."""

    @abstractmethod
    def sound(self, piece: int, stored: bytes) -> tuple[bytes, int]:
        """The sound of a piece as far as it is whole, and how many bytes at the end are not."""


class Plain(Writing):
    """Everything as it is."""

    version = 1

    def text(self, number: int, values: Mapping[str, Any]) -> Mapping[str, Any]:
        return values

    def read(self, text: Mapping[str, Any]) -> dict[str, Any]:
        return dict(text)

    def record(self, piece: int, number: int, sound: bytes) -> bytes:
        return sound

    def sound(self, piece: int, stored: bytes) -> tuple[bytes, int]:
        return stored, 0


class Sealed(Writing):
    """Only the key opens it. key: of the archive, for spools. spool_id: `ID_BYTES` random bytes for a new one."""

    version = 2

    def __init__(self, key: bytes, spool_id: bytes) -> None:
        self._id = spool_id
        self._cipher = AESGCM(HKDF(SHA256(), 32, salt=spool_id, info=_INFO).derive(key))

    @property
    def head(self) -> Mapping[str, Any]:
        return {**super().head, "spool_id": self._id.hex()}

    def text(self, number: int, values: Mapping[str, Any]) -> Mapping[str, Any]:
        sealed = self._seal(_TEXTS, number, json.dumps(values).encode())
        return {"number": number, "sealed": b64encode(sealed).decode()}

    def read(self, text: Mapping[str, Any]) -> dict[str, Any]:
        opened = self._open(_TEXTS, int(text["number"]), b64decode(text["sealed"]))
        if opened is None:
            raise ValueError("it was sealed with another key, or changed since")
        return dict(json.loads(opened))

    def record(self, piece: int, number: int, sound: bytes) -> bytes:
        sealed = self._seal(piece, number, sound)
        return _HEAD.pack(number, len(sealed)) + sealed

    def sound(self, piece: int, stored: bytes) -> tuple[bytes, int]:
        whole, at, least = [], 0, 0
        while at + _HEAD.size <= len(stored):
            number, size = _HEAD.unpack_from(stored, at)
            start, end = at + _HEAD.size, at + _HEAD.size + size
            opened = self._open(piece, number, stored[start:end]) if number >= least else None
            if opened is None:
                break
            whole.append(opened)
            at, least = end, number + 1
        return b"".join(whole), len(stored) - at

    def _seal(self, piece: int, number: int, data: bytes) -> bytes:
        nonce = _PLACE.pack(piece, number)
        return self._cipher.encrypt(nonce, data, self._id + nonce)

    def _open(self, piece: int, number: int, sealed: bytes) -> bytes | None:
        """What was sealed for this place; `None` for anything else."""
        try:
            nonce = _PLACE.pack(piece, number)
            return self._cipher.decrypt(nonce, sealed, self._id + nonce)
        except (InvalidTag, ValueError, struct.error):  # another key or place, damaged, too short for a tag
            return None


def reading(manifest: Mapping[str, Any], key: bytes | None) -> Writing:
    """How the spool with this manifest was written. Raises `ValueError` where that is not known, `KeyError`."""
    if manifest["version"] == Plain.version:
        return Plain()
    if manifest["version"] != Sealed.version:
        raise ValueError(f"version {manifest['version']} is not known")
    if key is None:
        raise ValueError("it is sealed, and this archive has no key")
    return Sealed(key, bytes.fromhex(manifest["spool_id"]))
