"""The keys of sealed blobs, each wrapped, and where its blob belongs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from sqlalchemy import Connection, bindparam, delete, func, insert, or_, select, update

from audio_storage_system.database import Database
from audio_storage_system.database.tables import data_keys
from audio_storage_system.errors import SealBroken
from audio_storage_system.keys import ArchiveKeys


class StoredDataKeys:
    """What a sealed blob store asks for keys: rows of the catalogue. `keys` are those at hand; `reload` reads them
    anew, where another process has begun to wrap with one that is not among them."""

    def __init__(self, database: Database, keys: Callable[[], ArchiveKeys], reload: Callable[[], ArchiveKeys]) -> None:
        self._database, self._keys, self._reload = database, keys, reload

    def add(self, blob_id: str, data_key: bytes, path: str | None = None) -> None:
        """Keep the key of a blob, which belongs at this path or has none yet; durable when it returns."""
        keys = self._keys()
        row = {"blob_id": blob_id, "file_path": path, "wrapped": keys.wrap(data_key, blob_id), "wrapping": keys.current}
        with self._database.write() as connection:
            connection.execute(insert(data_keys), row)

    def settle(self, blob_id: str, path: str) -> None:
        """Forget the keys of other blobs that belonged at this path: they were replaced."""
        others = data_keys.c.file_path == path, data_keys.c.blob_id != blob_id
        with self._database.write() as connection:
            connection.execute(delete(data_keys).where(*others))

    def find(self, blob_id: str, path: str) -> bytes | None:
        """The key of the blob, if it belongs at this path, or has none yet and nothing else belongs there. Raises
        `SealBroken` for a key that was tampered with."""
        with self._database.read() as connection:
            rows = connection.execute(_FIND, {"blob_id": blob_id, "path": path}).all()
        own = next((row for row in rows if row.blob_id == blob_id), None)
        if own is None or own.file_path not in (None, path) or (own.file_path is None and len(rows) > 1):
            return None
        keys = self._keys()
        if own.wrapping not in keys.wrapping:
            keys = self._reload()
        data_key = keys.unwrap(own.wrapped, own.wrapping, blob_id)
        if data_key is None:
            raise SealBroken(key=path, reason="its key in the catalogue was changed")
        return data_key


_FIND = select(data_keys.c.blob_id, data_keys.c.file_path, data_keys.c.wrapped, data_keys.c.wrapping).where(
    or_(data_keys.c.blob_id == bindparam("blob_id"), data_keys.c.file_path == bindparam("path"))
)


def bind(connection: Connection, blob_id: str, path: str) -> None:
    """From now on the blob belongs at this path, in the transaction that gives its recording a row. Nothing where
    `blob_id` is empty: the blob is not sealed."""
    if blob_id:
        connection.execute(update(data_keys).where(data_keys.c.blob_id == blob_id).values(file_path=path))


def forget(connection: Connection, paths: Iterable[str]) -> int:
    """Forget the keys of the blobs at these paths: nobody can read them from then on, wherever copies are; how many."""
    return connection.execute(delete(data_keys).where(data_keys.c.file_path.in_(list(paths)))).rowcount


def forget_unbound(connection: Connection, blob_id: str) -> None:
    """Forget the key of a blob that gets no row. Nothing where `blob_id` is empty."""
    if blob_id:
        unbound = data_keys.c.blob_id == blob_id, data_keys.c.file_path.is_(None)
        connection.execute(delete(data_keys).where(*unbound))


def any_there(connection: Connection) -> bool:
    """Whether there is a sealed blob."""
    return connection.execute(select(data_keys.c.id).limit(1)).first() is not None


def by_wrapping(connection: Connection) -> dict[str, int]:
    """How many keys are wrapped with each."""
    query = select(data_keys.c.wrapping, func.count()).group_by(data_keys.c.wrapping)
    return {row[0]: row[1] for row in connection.execute(query)}


def rewrap(connection: Connection, keys: ArchiveKeys, limit: int) -> int:
    """Wrap up to `limit` keys anew, with the current one; how many were. Raises `SealBroken` for one that was tampered
    with."""
    columns = data_keys.c.id, data_keys.c.blob_id, data_keys.c.file_path, data_keys.c.wrapped, data_keys.c.wrapping
    rows = connection.execute(select(*columns).where(data_keys.c.wrapping != keys.current).limit(limit)).all()
    if rows:
        connection.execute(_REWRAP, [_rewrapped(row, keys) for row in rows])
    return len(rows)


def _rewrapped(row: Sequence[object], keys: ArchiveKeys) -> dict[str, object]:
    id_, blob_id, path, wrapped, wrapping = row
    assert isinstance(wrapped, bytes)  # noqa: S101 # as its column says
    data_key = keys.unwrap(wrapped, str(wrapping), str(blob_id))
    if data_key is None:
        raise SealBroken(key=str(path or blob_id), reason="its key in the catalogue was changed")
    return {"this": id_, "new": keys.wrap(data_key, str(blob_id)), "by": keys.current}


_REWRAP = (
    update(data_keys)
    .where(data_keys.c.id == bindparam("this"))
    .values(wrapped=bindparam("new"), wrapping=bindparam("by"))
)
