"""The names that writers give to what they read and then change: see `Database.write`."""

from __future__ import annotations

FOUNDING = "founding"
SPACES = "spaces"
FULL_TEXT = "full text"
COPYING = "copying"
WORKERS = "workers"


def of_recording(audio_id: int) -> str:
    """A recording, with everything made from it."""
    return f"recording:{audio_id}"


def of_bytes(owner_id: int, file_hash: str) -> str:
    """The one recording that an owner may have of these bytes."""
    return f"bytes:{owner_id}:{file_hash}"


def of_blob(key: str) -> str:
    """Which recording the blob under a key belongs to."""
    return f"blob:{key}"
