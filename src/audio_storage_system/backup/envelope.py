"""What packs and manifests are wrapped in: compressed and named by their hash; of an encrypted archive also sealed, and
named by a keyed hash, so that nobody without the key can tell what is in them."""

from __future__ import annotations

import hashlib
import hmac
import os
import zlib
from abc import ABC, abstractmethod

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from audio_storage_system.keys import ArchiveKeys
from audio_storage_system.keys.wrapping import KEY_BYTES

NONCE_BYTES = 12
LEVEL = 4
# No pack is as large: what claims to be is no pack.
MAX_BYTES = 1 << 31


def stored_at_most(size: int) -> int:
    """How large a pack with so many bytes of text can be: zlib makes none much longer, sealing adds nonce and tag."""
    return size + size // 1_000 + 1_000


class Rotten(Exception):
    """Why the bytes of an object are not what was written."""


class Envelope(ABC):
    """How the objects of one archive are wrapped. key_id: of the key; empty where there is none."""

    key_id: str = ""

    @abstractmethod
    def name(self, payload: bytes) -> str:
        """What an object with this content is called: 64 hex digits."""

    @abstractmethod
    def seal(self, context: str, data: bytes) -> bytes:
        """Data as it is stored, bound to its `context`."""

    @abstractmethod
    def unseal(self, context: str, data: bytes) -> bytes:
        """The reverse. Raises `Rotten`."""

    def wrap(self, name: str, payload: bytes) -> bytes:
        """A pack as it is stored."""
        return self.seal(name, zlib.compress(payload, LEVEL))

    def unwrap(self, name: str, data: bytes, most: int = MAX_BYTES) -> bytes:
        """The reverse, of at most so many bytes. Raises `Rotten` for anything but what was wrapped under this name."""
        payload = _inflated(self.unseal(name, data), most)
        if self.name(payload) != name:
            raise Rotten("its content does not have the hash that it is named by")
        return payload


class Plain(Envelope):
    """For an archive that is not encrypted."""

    def name(self, payload: bytes) -> str:
        return hashlib.sha256(payload).hexdigest()

    def seal(self, context: str, data: bytes) -> bytes:
        return data

    def unseal(self, context: str, data: bytes) -> bytes:
        return data


class Sealed(Envelope):
    """AES-256-GCM under the archive's key for backups: a random nonce of 12 bytes, then the ciphertext with its tag,
    bound to the archive and to the name."""

    def __init__(self, keys: ArchiveKeys) -> None:
        root = keys.derive("backup")
        self._archive_id = keys.archive_id
        self._cipher = AESGCM(_expand(root, b"seal"))
        self._naming = _expand(root, b"name")
        self.key_id = _expand(root, b"id").hex()[:16]

    def name(self, payload: bytes) -> str:
        return hmac.new(self._naming, payload, hashlib.sha256).hexdigest()

    def seal(self, context: str, data: bytes) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, data, self._bound(context))

    def unseal(self, context: str, data: bytes) -> bytes:
        try:
            return self._cipher.decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], self._bound(context))
        except (InvalidTag, ValueError) as error:
            raise Rotten("it is not what was sealed under this name") from error

    def _bound(self, context: str) -> bytes:
        return f"{self._archive_id}/{context}".encode()


def envelope_of(keys: ArchiveKeys | None) -> Envelope:
    """How the sets of an archive with these keys are wrapped."""
    return Sealed(keys) if keys is not None and keys.encrypted else Plain()


def _expand(root: bytes, purpose: bytes) -> bytes:
    return HKDFExpand(SHA256(), KEY_BYTES, purpose).derive(root)


def _inflated(data: bytes, most: int) -> bytes:
    inflater = zlib.decompressobj()
    try:
        payload = inflater.decompress(data, most + 1)
    except zlib.error as error:
        raise Rotten(f"it cannot be decompressed ({error})") from error
    if len(payload) > most:
        raise Rotten(f"there is more in it than {most:,} bytes")
    if not inflater.eof or inflater.unused_data:
        raise Rotten("it is cut short, or longer than it was")
    return payload
