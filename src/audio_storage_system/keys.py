"""Keys: where they come from, and what is derived from them."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class ArchiveKeys:
    """The root key of an archive, from which one key for each purpose follows (HKDF-SHA256, RFC 5869). `encrypted`:
    whether the archive's content is encrypted, or its keys only prove what was done (audit log)."""

    archive_id: str
    root: bytes = field(repr=False)
    encrypted: bool = True

    def derive(self, purpose: str) -> bytes:
        """The key for a purpose: 32 bytes."""
        info = f"audio-storage/1/{purpose}".encode()
        return HKDF(SHA256(), KEY_BYTES, salt=self.archive_id.encode(), info=info).derive(self.root)
