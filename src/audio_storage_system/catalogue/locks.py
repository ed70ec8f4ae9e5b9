"""The names that writers give to what they read and then change: see `Database.write`.

On PostgreSQL writers run side by side, and none may end in waiting for one who waits for it. The order of each:

1. Its names, all of them at once, when it begins; `Database.write` sorts them.
2. The whole table of passages, for whoever holds it (`hold_passages`).
3. Room in a partitioned `passage_search` (`make_room`), for all rows that it is going to put there.
4. Rows. Those of one recording are written under its name, so two writers meet in rows of one recording only where one
   of them goes over many: making the full text anew and copying. These have a name of their own, which a deletion
   shares, because it takes rows from the children to the parents and they the other way round. Freeing a space passes
   over rows that somebody else is deleting.

A transaction that has written to `passage_search` does not ask for a lock on the table such as `ANALYZE` or `ALTER
TABLE` take: whoever makes an index holds that, and waits for every such transaction. Indexes are made and removed one
at a time, see `vectors/pgvector.py`. Tests: `test_postgresql_locks.py`.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

from audio_storage_system.database import Shared

FOUNDING = "founding"
SPACES = "spaces"
FULL_TEXT = "full text"
COPYING = "copying"
WORKERS = "workers"
HOLDS = "legal holds"
KEYS = "keys"
PRINCIPALS = "principals"


def of_recording(audio_id: int) -> str:
    """A recording, with everything made from it."""
    return f"recording:{audio_id}"


def of_deletion(audio_id: int) -> tuple[str, ...]:
    """A recording that goes, and, together with other deletions, what others do to the rows of many recordings, and
    the placing of legal holds."""
    return Shared(COPYING), Shared(FULL_TEXT), Shared(HOLDS), of_recording(audio_id)


def of_purge(key: str) -> tuple[str, ...]:
    """A blob without a row that goes for good, and the placing of legal holds."""
    return Shared(HOLDS), of_blob(key)


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
