"""The names that writers give to what they read and then change: see `Database.write`."""

from __future__ import annotations

from sqlalchemy import Connection, text

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


def hold_passages(connection: Connection) -> None:
    """Let nobody add or remove a passage until this transaction ends; those who have begun to are waited for.

    Take it before anything else that others may wait for. On SQLite a transaction that writes is alone anyway.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(_HOLD_PASSAGES)


_HOLD_PASSAGES = text("LOCK TABLE passages IN SHARE MODE")
