"""Chroma: a server (`chroma+http://host:8000`), or a folder (`chroma:PATH`).

The token of a server is `CHROMA_API_KEY`, sent as `x-chroma-token`.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import chromadb
import httpx
import numpy as np
from chromadb.config import Settings
from chromadb.errors import ChromaError, NotFoundError

from audio_storage_system.errors import NotFound, VectorIndexMismatch, VectorIndexUnavailable
from audio_storage_system.vectors import addresses
from audio_storage_system.vectors.base import Capabilities, Ids, Scope
from audio_storage_system.vectors.engines import NOTHING, Collection, Found, Points, VectorEngine, document_filters
from audio_storage_system.vectors.stored import Vectors

PORT = 8000
IDS_AT_ONCE = 10_000
# How far a search walks through the graph, and how it is built: recall comes first.
HNSW = {"space": "cosine", "ef_search": 300, "ef_construction": 200, "max_neighbors": 32}


class ChromaEngine(VectorEngine):
    """Collections of one Chroma server or folder."""

    capabilities = Capabilities(filters=True, max_batch=1_000, max_results=100_000)

    def __init__(self, url: str, home: Path) -> None:
        self._server = addresses.server(url, PORT)
        self._folder = None if self._server else addresses.folder(url, home)
        self.address = f"chroma:{self._server.url}" if self._server else url
        self._lock = threading.RLock()
        self._opened: tuple[int, Any] | None = None

    def names(self, prefix: str) -> set[str]:
        with self._client() as client:
            found: set[str] = set()
            while page := client.list_collections(limit=1_000, offset=len(found)):
                found.update(one.name for one in page)
            return {name for name in found if name.startswith(prefix)}

    def ensure(self, collection: Collection) -> None:
        recorded = {"model": collection.model, "dimension": collection.dimension}
        with self._client() as client:
            there = client.get_or_create_collection(
                collection.name, metadata=recorded, configuration={"hnsw": HNSW}, embedding_function=None
            )
            found = there.metadata or {}
        if (found.get("model"), found.get("dimension")) != (collection.model, collection.dimension):
            wanted = f"{collection.dimension} numbers of {collection.model}"
            is_ = f"{found.get('dimension')} numbers of {found.get('model')}"
            raise VectorIndexMismatch(place=self.address, found=is_, wanted=wanted)

    def upsert(self, collection: Collection, points: Points) -> None:
        names = ("owner_id", "audio_id", "recorded_at")
        columns = zip(points.owner_ids.tolist(), points.audio_ids.tolist(), points.recorded_at.tolist(), strict=True)
        with self._there(collection) as there:
            there.upsert(
                ids=[str(id_) for id_ in points.ids.tolist()],
                embeddings=points.vectors,
                metadatas=[dict(zip(names, row, strict=True)) for row in columns],
            )

    def delete(self, collection: Collection, ids: Ids) -> None:
        with self._there(collection) as there:
            there.delete(ids=[str(id_) for id_ in ids.tolist()])

    def search(self, collection: Collection, vector: Vectors, limit: int, scope: Scope) -> Found:
        if scope.empty:
            return NOTHING
        with self._there(collection) as there:
            if not (held := there.count()):
                return NOTHING
            size = min(limit, held)
            found = there.query(query_embeddings=[vector], n_results=size, where=_where(scope), include=["distances"])
        return Found.of([int(id_) for id_ in found["ids"][0]], [1 - float(one) for one in found["distances"][0]])

    def count(self, collection: Collection) -> int:
        with self._there(collection) as there:
            return int(there.count())

    def ids(self, collection: Collection) -> Iterator[Ids]:
        with self._there(collection) as there:
            seen = 0
            while page := there.get(limit=IDS_AT_ONCE, offset=seen, include=[])["ids"]:
                yield np.array([int(id_) for id_ in page], dtype=np.int64)
                seen += len(page)

    def drop(self, name: str) -> None:
        with self._client() as client, suppress(NotFoundError):
            client.delete_collection(name)
        self._vacuum()

    def settle(self, collection: Collection, *, deleted: bool) -> None:
        """In a folder, what was deleted leaves the SQLite file at once. The graph's own file keeps the numbers of a
        deleted vector, without saying whose they were, until the collection is made anew."""
        if deleted:
            self._vacuum()

    def close(self) -> None:
        self._opened = None

    def _vacuum(self) -> None:
        if self._folder and (file := self._folder / "chroma.sqlite3").exists():
            with suppress(sqlite3.OperationalError), closing(sqlite3.connect(file, timeout=5)) as connection:
                connection.execute("VACUUM")

    @contextmanager
    def _there(self, collection: Collection) -> Iterator[Any]:
        """The collection as the client knows it."""
        try:
            with self._client() as client:
                yield client.get_collection(collection.name, embedding_function=None)
        except NotFoundError as error:
            raise NotFound(kind="collection", id=collection.name) from error

    @contextmanager
    def _client(self) -> Iterator[Any]:
        """The client of this process, and its errors as ours."""
        try:
            yield self._connected()
        except NotFoundError:
            raise
        except (ChromaError, httpx.HTTPError, OSError, ValueError) as error:
            reason = f"there is no proper answer ({type(error).__name__}); check that it runs and can be reached"
            raise VectorIndexUnavailable(place=self.address, reason=reason) from error

    def _connected(self) -> Any:
        with self._lock:
            if self._opened is None or self._opened[0] != os.getpid():
                self._opened = os.getpid(), self._connect()
            return self._opened[1]

    def _connect(self) -> Any:
        settings = Settings(anonymized_telemetry=False)
        if self._server is None:
            return chromadb.PersistentClient(str(self._folder), settings=settings)
        key = os.environ.get("CHROMA_API_KEY")
        headers = {"x-chroma-token": key} if key else {}
        host, port, tls = self._server
        return chromadb.HttpClient(host=host, port=port, ssl=tls, headers=headers, settings=settings)


def _where(scope: Scope) -> dict[str, Any] | None:
    parts = document_filters(scope)
    return {"$and": parts} if len(parts) > 1 else next(iter(parts), None)
