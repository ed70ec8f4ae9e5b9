"""Pinecone: an index of your account (`pinecone:INDEX_NAME`), one namespace for each collection.

The key is `PINECONE_API_KEY`; `PINECONE_INDEX_HOST` names the index's own address and saves asking for it. An index has
one dimension: spaces of another are compared exactly. Reads lag behind writes there, so after a write this waits until
searches have caught up with it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from pinecone import Pinecone, RetryConfig
from pinecone.errors import NotFoundError, PineconeError

from audio_storage_system.errors import InvalidSetting, NotFound, VectorIndexMismatch, VectorIndexUnavailable
from audio_storage_system.registry import split_spec
from audio_storage_system.vectors import addresses
from audio_storage_system.vectors.base import Capabilities, Ids, Scope
from audio_storage_system.vectors.engines import NOTHING, Collection, Found, Points, VectorEngine, document_filters
from audio_storage_system.vectors.stored import Vectors

TIMEOUT_SECONDS = 10.0
# For how long a write may take to be seen, and how often to look.
VISIBLE_SECONDS, LOOK_SECONDS = 30.0, 0.2
# Beside each namespace another says what it is of: a namespace itself cannot.
ABOUT = "about_"
RECORD = "about"


class PineconeEngine(VectorEngine):
    """Namespaces of one Pinecone index."""

    capabilities = Capabilities(filters=True, max_batch=100, max_results=10_000, max_dimension=20_000, counts=False)

    def __init__(self, url: str, home: Path) -> None:
        self._index_name = split_spec(url)[1]
        if not self._index_name or not self._index_name.replace("-", "").isalnum():
            raise InvalidSetting(name=addresses.SETTING, reason="after pinecone: comes the name of an index")
        self.address = url
        self._lock = threading.Lock()
        self._opened: tuple[int, Any] | None = None

    def names(self, prefix: str) -> set[str]:
        with self._index() as index:
            every = {name.removeprefix(ABOUT) for name in index.describe_index_stats().namespaces}
        return {name for name in every if name.startswith(prefix)}

    def ensure(self, collection: Collection) -> None:
        with self._index() as index:
            dimension = index.describe_index_stats().dimension
            if (about := self._about(index, collection)) is None:
                self._fit(dimension, collection)
                first = [1.0] + [0.0] * (dimension - 1)
                recorded = {"model": collection.model, "dimension": collection.dimension}
                vector = {"id": RECORD, "values": first, "metadata": recorded}
                index.upsert(vectors=[vector], namespace=ABOUT + collection.name, show_progress=False)
                about = self._until(lambda: self._about(index, collection))
        found = about.get("model"), int(about.get("dimension", 0))
        if found != (collection.model, collection.dimension):
            wanted = f"{collection.dimension} numbers of {collection.model}"
            raise VectorIndexMismatch(place=self.address, found=f"{found[1]} numbers of {found[0]}", wanted=wanted)

    def _fit(self, dimension: int, collection: Collection) -> None:
        if dimension != collection.dimension:
            reason = f"its vectors have {dimension} numbers, those of {collection.model} {collection.dimension}"
            raise self._unavailable(reason)

    def upsert(self, collection: Collection, points: Points) -> None:
        with self._there(collection) as index:
            rows = [_row(point) for point in points.batches(1)]
            written = index.upsert(vectors=rows, namespace=collection.name, show_progress=False).response_info
            committed = written.lsn_committed if written else None
            self._until(lambda: self._shows(index, collection, points, committed))

    def _shows(self, index: Any, collection: Collection, points: Points, committed: int | None) -> bool:
        """Whether searches have seen a write: by its place in the log if the service tells, else by looking for it."""
        found = index.query(top_k=1, vector=points.vectors[-1].tolist(), namespace=collection.name)
        seen = found.response_info.lsn_reconciled if found.response_info else None
        if committed is not None and seen is not None:
            return bool(seen >= committed)
        last = str(int(points.ids[-1]))
        return last in index.fetch(ids=[last], namespace=collection.name).vectors

    def delete(self, collection: Collection, ids: Ids) -> None:
        with self._there(collection) as index:
            index.delete(ids=[str(id_) for id_ in ids.tolist()], namespace=collection.name)

    def search(self, collection: Collection, vector: Vectors, limit: int, scope: Scope) -> Found:
        if scope.empty:
            return NOTHING
        with self._index() as index:
            found = index.query(
                top_k=limit, vector=vector.tolist(), namespace=collection.name, filter=_filter(scope)
            ).matches
            if not found and self._about(index, collection) is None:
                raise NotFound(kind="namespace", id=collection.name)
        return Found.of([int(match.id) for match in found], [match.score for match in found])

    def count(self, collection: Collection) -> int:
        with self._there(collection) as index:
            namespace = index.describe_index_stats().namespaces.get(collection.name)
        return int(namespace.vector_count) if namespace else 0

    def ids(self, collection: Collection) -> Iterator[Ids]:
        with self._there(collection) as index:
            for page in index.list(namespace=collection.name):
                yield np.array([int(one.id) for one in page.vectors], dtype=np.int64)

    def drop(self, name: str) -> None:
        with self._index() as index:
            for namespace in (name, ABOUT + name):
                try:
                    index.delete_namespace(name=namespace)
                except NotFoundError:
                    continue

    def close(self) -> None:
        opened, self._opened = self._opened, None
        if opened and opened[0] == os.getpid():
            opened[1].close()

    def _about(self, index: Any, collection: Collection) -> dict[str, Any] | None:
        record = index.fetch(ids=[RECORD], namespace=ABOUT + collection.name).vectors.get(RECORD)
        return None if record is None else dict(record.metadata or {})

    def _until(self, look: Any) -> Any:
        """What `look` sees once it sees anything."""
        end = time.monotonic() + VISIBLE_SECONDS
        while not (seen := look()):
            if time.monotonic() > end:
                raise self._unavailable(f"what was written could not be read for {VISIBLE_SECONDS:.0f} s")
            time.sleep(LOOK_SECONDS)
        return seen

    @contextmanager
    def _there(self, collection: Collection) -> Iterator[Any]:
        with self._index() as index:
            if self._about(index, collection) is None:
                raise NotFound(kind="namespace", id=collection.name)
            yield index

    @contextmanager
    def _index(self) -> Iterator[Any]:
        """The client of this process, and its errors as ours: never in its words, which may quote the key."""
        try:
            yield self._connected()
        except PineconeError as error:
            status = getattr(error, "status_code", None)
            reason = f"HTTP {status}" if status else f"no answer ({type(error).__name__})"
            raise self._unavailable(f"{reason}; check the index's name, PINECONE_API_KEY and the network") from error

    def _connected(self) -> Any:
        with self._lock:
            if self._opened is None or self._opened[0] != os.getpid():
                self._opened = os.getpid(), self._connect()
            return self._opened[1]

    def _connect(self) -> Any:
        key = os.environ.get("PINECONE_API_KEY")
        if not key:
            raise self._unavailable("set PINECONE_API_KEY")
        client = Pinecone(key, timeout=TIMEOUT_SECONDS, retry_config=RetryConfig(max_retries=1, max_wait=1.0))
        host = os.environ.get("PINECONE_INDEX_HOST")
        return client.index(host=host) if host else client.index(self._index_name)

    def _unavailable(self, reason: str) -> VectorIndexUnavailable:
        return VectorIndexUnavailable(place=self.address, reason=reason)


def _row(point: Points) -> dict[str, Any]:
    attributes = {
        "owner_id": int(point.owner_ids[0]),
        "audio_id": int(point.audio_ids[0]),
        "recorded_at": float(point.recorded_at[0]),
    }
    return {"id": str(int(point.ids[0])), "values": point.vectors[0].tolist(), "metadata": attributes}


def _filter(scope: Scope) -> dict[str, Any] | None:
    parts = document_filters(scope)
    return {"$and": parts} if parts else None
