"""Qdrant: a server (`qdrant+http://host:6333`), or its client's own storage in a folder (`qdrant:PATH`).

A folder belongs to one process at a time; others find it in use. The key of a server is `QDRANT_API_KEY`.
"""

from __future__ import annotations

import atexit
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ApiException, UnexpectedResponse

from audio_storage_system.errors import InvalidSetting, NotFound, VectorIndexMismatch, VectorIndexUnavailable
from audio_storage_system.vectors import addresses
from audio_storage_system.vectors.base import Capabilities, Ids, Scope
from audio_storage_system.vectors.engines import NOTHING, Collection, Found, Points, VectorEngine
from audio_storage_system.vectors.stored import Vectors

PORT = 6333
TIMEOUT_SECONDS = 10
MAX_DIMENSION = 65_536
IDS_AT_ONCE = 10_000
# How far a search walks through the graph at least; and the smallest share and number of deleted vectors to tidy up.
SEARCH_WIDTH = 128
VACUUM = models.OptimizersConfigDiff(deleted_threshold=0.001, vacuum_min_vector_number=100)

_folders: dict[Path, tuple[int, QdrantClient]] = {}
_opening = threading.Lock()


@atexit.register
def _close_folders() -> None:
    for process, client in _folders.values():
        if process == os.getpid():
            client.close()
    _folders.clear()


class QdrantEngine(VectorEngine):
    """Collections of one Qdrant server or folder."""

    capabilities = Capabilities(filters=True, max_batch=500, max_results=100_000, max_dimension=MAX_DIMENSION)

    def __init__(self, url: str, home: Path) -> None:
        self._server = addresses.server(url, PORT)
        self._folder = None if self._server else addresses.folder(url, home)
        self.address = f"qdrant:{self._server.url}" if self._server else url
        self._lock = threading.RLock()
        self._opened: tuple[int, QdrantClient] | None = None

    def names(self, prefix: str) -> set[str]:
        with self._client() as client:
            return {one.name for one in client.get_collections().collections if one.name.startswith(prefix)}

    def ensure(self, collection: Collection) -> None:
        with self._client() as client:
            if not client.collection_exists(collection.name):
                self._create(client, collection)
            config = client.get_collection(collection.name).config
        vectors, model = config.params.vectors, (config.metadata or {}).get("model")
        size = vectors.size if isinstance(vectors, models.VectorParams) else None
        if (model, size) != (collection.model, collection.dimension):
            wanted = f"{collection.dimension} numbers of {collection.model}"
            raise VectorIndexMismatch(place=self.address, found=f"{size} numbers of {model}", wanted=wanted)

    def _create(self, client: QdrantClient, collection: Collection) -> None:
        try:
            client.create_collection(
                collection.name,
                vectors_config=models.VectorParams(size=collection.dimension, distance=models.Distance.COSINE),
                optimizers_config=VACUUM if self._server else None,
                metadata={"model": collection.model},
            )
        except (UnexpectedResponse, ValueError):
            if not client.collection_exists(collection.name):  # otherwise another process was quicker
                raise
        if self._server:
            integer, real = models.PayloadSchemaType.INTEGER, models.PayloadSchemaType.FLOAT
            for name, kind in {"owner_id": integer, "audio_id": integer, "recorded_at": real}.items():
                client.create_payload_index(collection.name, name, kind, wait=True)

    def upsert(self, collection: Collection, points: Points) -> None:
        names = ("owner_id", "audio_id", "recorded_at")
        columns = zip(points.owner_ids.tolist(), points.audio_ids.tolist(), points.recorded_at.tolist(), strict=True)
        payloads: list[dict[str, Any]] = [dict(zip(names, row, strict=True)) for row in columns]
        batch = models.Batch(ids=points.ids.tolist(), vectors=points.vectors.tolist(), payloads=payloads)
        with self._client(collection) as client:
            client.upsert(collection.name, batch, wait=True)

    def delete(self, collection: Collection, ids: Ids) -> None:
        with self._client(collection) as client:
            client.delete(collection.name, models.PointIdsList(points=ids.tolist()), wait=True)

    def search(self, collection: Collection, vector: Vectors, limit: int, scope: Scope) -> Found:
        if scope.empty:
            return NOTHING
        with self._client(collection) as client:
            found = client.query_points(
                collection.name,
                query=vector.tolist(),
                query_filter=_filter(scope),
                limit=limit,
                search_params=models.SearchParams(hnsw_ef=max(SEARCH_WIDTH, limit)) if self._server else None,
                with_payload=False,
            ).points
        return Found.of([int(point.id) for point in found], [point.score for point in found])

    def count(self, collection: Collection) -> int:
        with self._client(collection) as client:
            return client.count(collection.name, exact=True).count

    def ids(self, collection: Collection) -> Iterator[Ids]:
        following: Any = None
        while True:
            with self._client(collection) as client:
                points, following = client.scroll(
                    collection.name, limit=IDS_AT_ONCE, offset=following, with_payload=False, with_vectors=False
                )
            yield np.array([int(point.id) for point in points], dtype=np.int64)
            if following is None:
                return

    def drop(self, name: str) -> None:
        with self._client() as client:
            if client.collection_exists(name):
                client.delete_collection(name)

    def settle(self, collection: Collection, *, deleted: bool) -> None:
        """A server tidies up by itself, as its collections are told to; in a folder the file is rewritten."""
        if deleted and self._folder:
            with (
                self._lock,
                closing(sqlite3.connect(self._folder / "collection" / collection.name / "storage.sqlite")) as file,
            ):
                file.execute("VACUUM")

    def close(self) -> None:
        """A folder stays open while the process lives, since other archives of the process may use it."""
        opened, self._opened = self._opened, None
        if opened and self._server:
            opened[1].close()

    @contextmanager
    def _client(self, collection: Collection | None = None) -> Iterator[QdrantClient]:
        """The client of this process, and its errors as ours."""
        try:
            if self._server:
                yield self._remote(self._server)
            else:
                with _opening:
                    yield self._local()
        except UnexpectedResponse as error:
            if error.status_code == 404 and collection:
                raise NotFound(kind="collection", id=collection.name) from error
            raise self._unavailable(f"it answered HTTP {error.status_code} {error.reason_phrase}") from error
        except (ApiException, QdrantException, httpx.HTTPError) as error:
            reason = f"there is no answer ({type(error).__name__}); check that it runs and can be reached"
            raise self._unavailable(reason) from error
        except ValueError as error:
            if collection and "not found" in str(error):
                raise NotFound(kind="collection", id=collection.name) from error
            raise

    def _remote(self, server: addresses.Server) -> QdrantClient:
        with self._lock:
            if self._opened is None or self._opened[0] != os.getpid():
                key = os.environ.get("QDRANT_API_KEY") or None
                if key and not server.tls and server.host not in ("localhost", "127.0.0.1", "::1"):
                    raise InvalidSetting(name=addresses.SETTING, reason="QDRANT_API_KEY is sent by qdrant+https: only")
                client = QdrantClient(
                    url=server.url, api_key=key, timeout=TIMEOUT_SECONDS, check_compatibility=False, trust_env=False
                )
                self._opened = os.getpid(), client
            return self._opened[1]

    def _local(self) -> QdrantClient:
        assert self._folder is not None  # noqa: S101 - for the type checker: no server, hence a folder
        opened = _folders.get(self._folder)
        if opened is None or opened[0] != os.getpid():
            try:
                opened = os.getpid(), QdrantClient(path=str(self._folder), force_disable_check_same_thread=True)
            except (RuntimeError, OSError) as error:
                raise self._unavailable("another process uses this folder, or it cannot be written") from error
            _folders[self._folder] = opened
        return opened[1]

    def _unavailable(self, reason: str) -> VectorIndexUnavailable:
        return VectorIndexUnavailable(place=self.address, reason=reason)


def _filter(scope: Scope) -> models.Filter | None:
    conditions: list[Any] = [
        models.FieldCondition(key=key, match=models.MatchAny(any=list(ids)))
        for key, ids in (("owner_id", scope.owner_ids), ("audio_id", scope.audio_ids))
        if ids is not None
    ]
    if scope.since or scope.until:
        since, until = (None if at is None else at.timestamp() for at in (scope.since, scope.until))
        conditions.append(models.FieldCondition(key="recorded_at", range=models.Range(gte=since, lt=until)))
    return models.Filter(must=conditions) if conditions else None
