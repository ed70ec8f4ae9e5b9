"""The keys of one archive: one for each purpose, and those that its blobs' data keys are wrapped with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from audio_storage_system.keys.wrapping import KEY_BYTES, unwrap, wrap


@dataclass(frozen=True, slots=True)
class ArchiveKeys:
    """The root key of an archive, from which one key for each purpose follows (HKDF-SHA256, RFC 5869). `encrypted`:
    whether the archive's content is encrypted, or its keys only prove what was done (audit log). wrapping: by their
    names the keys that data keys are wrapped with, of which `current` is used for new ones. rotating: not every data
    key is wrapped with that one yet. replaces: the id of the slot that goes at the end of it."""

    archive_id: str
    root: bytes = field(repr=False)
    encrypted: bool = True
    wrapping: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    current: str = ""
    rotating: bool = False
    replaces: str = ""

    def derive(self, purpose: str) -> bytes:
        """The key for a purpose: 32 bytes."""
        info = f"audio-storage/1/{purpose}".encode()
        return HKDF(SHA256(), KEY_BYTES, salt=self.archive_id.encode(), info=info).derive(self.root)

    def settled(self) -> ArchiveKeys:
        """The same keys, when every data key is wrapped with the current one."""
        return replace(self, rotating=False, replaces="")

    def wrap(self, data_key: bytes, blob_id: str) -> bytes:
        """A blob's data key, encrypted with the current wrapping key."""
        return wrap(self.wrapping[self.current], data_key, f"{self.archive_id}/{blob_id}")

    def unwrap(self, wrapped: bytes, wrapping: str, blob_id: str) -> bytes | None:
        """A blob's data key; `None` where it is not that blob's, or the wrapping key of this name is gone."""
        key = self.wrapping.get(wrapping)
        return unwrap(key, wrapped, f"{self.archive_id}/{blob_id}") if key else None


class DataKeys(Protocol):
    """Where the data keys of sealed blobs are kept."""

    def add(self, blob_id: str, data_key: bytes, path: str | None = None) -> None:
        """Keep the key of a blob, which belongs at this path or has none yet; durable when it returns."""

    def settle(self, blob_id: str, path: str) -> None:
        """Forget the keys of other blobs that belonged at this path: they were replaced."""

    def find(self, blob_id: str, path: str) -> bytes | None:
        """The key of the blob, if it belongs at this path, or has none yet and nothing else belongs there. Raises
        `SealBroken` for a key that was tampered with."""
