"""Encrypting something small, such as a key, with a key: AES-256-GCM (NIST SP 800-38D) with a random nonce."""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES, NONCE_BYTES = 32, 12


def new_key() -> bytes:
    """A random key of 32 bytes."""
    return os.urandom(KEY_BYTES)


def wrap(key: bytes, data: bytes, about: str) -> bytes:
    """`data` encrypted: nonce, ciphertext, tag. Only who says the same `about` can open it."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, data, about.encode())


def unwrap(key: bytes, wrapped: bytes, about: str) -> bytes | None:
    """What was wrapped; `None` where it was not with this key, about this, or was changed since."""
    try:
        return AESGCM(key).decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], about.encode())
    except (InvalidTag, ValueError):
        return None
