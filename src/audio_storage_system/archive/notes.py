"""Notes that a program keeps for itself outside of an archive, about what is in it."""

from __future__ import annotations

import os
from base64 import b64decode, b64encode

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE_BYTES = 12


class Notes:
    """Makes notes unreadable where the archive is encrypted: AES-256-GCM with a random nonce, as base64 on one line.

    key: 32 bytes; without one notes stay as they are.
    """

    def __init__(self, key: bytes | None) -> None:
        self._cipher = AESGCM(key) if key else None

    def seal(self, text: str) -> str:
        """What may be written anywhere."""
        if self._cipher is None:
            return text
        nonce = os.urandom(NONCE_BYTES)
        return b64encode(nonce + self._cipher.encrypt(nonce, text.encode("utf-8", "surrogateescape"), None)).decode()

    def open(self, sealed: str) -> str | None:
        """The note; `None` for what was not sealed with this key, or is damaged."""
        if self._cipher is None:
            return sealed
        try:
            data = b64decode(sealed, validate=True)
            text = self._cipher.decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], None)
        except (InvalidTag, ValueError):
            return None
        return text.decode("utf-8", "surrogateescape")
