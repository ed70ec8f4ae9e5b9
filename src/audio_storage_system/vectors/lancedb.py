"""LanceDB: tables in a folder (`lancedb:PATH`), for any number of processes."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import lancedb
import pyarrow as pa

from audio_storage_system.errors import NotFound, VectorIndexMismatch, VectorIndexUnavailable
from audio_storage_system.vectors import addresses
from audio_storage_system.vectors.base import Capabilities, Ids, Scope
from audio_storage_system.vectors.engines import NOTHING, Collection, Found, Points, VectorEngine
from audio_storage_system.vectors.stored import Vectors

INDEX_FROM_ROWS = 100_000  # fewer are compared one by one, in some 50 ms
PROBES, REFINE = 40, 4
IDS_AT_ONCE = 100_000


class LanceDBEngine(VectorEngine):
    """Tables of one LanceDB folder."""

    capabilities = Capabilities(filters=True, max_batch=5_000)

    def __init__(self, url: str, home: Path) -> None:
        self._folder = addresses.folder(url, home)
        self.address = url
        self._lock = threading.Lock()
        self._opened: tuple[int, Any] | None = None

    def names(self, prefix: str) -> set[str]:
        with self._errors(None):
            return {name for name in self._names() if name.startswith(prefix)}

    def ensure(self, collection: Collection) -> None:
        with self._errors(collection):
            if collection.name not in self._names():
                with suppress(ValueError):  # another process made it since
                    self._database().create_table(collection.name, schema=_schema(collection))
            table = self._table(collection)
            recorded = table.schema.metadata or {}
            found = recorded.get(b"model", b"?").decode(), table.schema.field("vector").type.list_size
        if found != (collection.model, collection.dimension):
            wanted = f"{collection.dimension} numbers of {collection.model}"
            raise VectorIndexMismatch(place=self.address, found=f"{found[1]} numbers of {found[0]}", wanted=wanted)

    def upsert(self, collection: Collection, points: Points) -> None:
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(points.vectors.ravel()), collection.dimension)
        columns = [points.ids, vectors, points.owner_ids, points.audio_ids, points.recorded_at]
        rows = pa.table([pa.array(column) for column in columns], schema=_schema(collection))
        with self._errors(collection):
            merge = self._table(collection).merge_insert("id").when_matched_update_all()
            merge.when_not_matched_insert_all().execute(rows)

    def delete(self, collection: Collection, ids: Ids) -> None:
        with self._errors(collection):
            self._table(collection).delete(f"id IN {_listed(ids.tolist())}")

    def search(self, collection: Collection, vector: Vectors, limit: int, scope: Scope) -> Found:
        if scope.empty:
            return NOTHING
        with self._errors(collection):
            search = self._table(collection).search(vector).distance_type("cosine").select(["id", "_distance"])
            if scope.limits:
                search = search.where(_condition(scope), prefilter=True)
            rows = search.nprobes(PROBES).refine_factor(REFINE).limit(limit).to_arrow()
        found = Found.of(rows["id"].to_pylist(), (1 - rows["_distance"].to_numpy()).tolist())
        return found

    def count(self, collection: Collection) -> int:
        with self._errors(collection):
            return int(self._table(collection).count_rows())

    def ids(self, collection: Collection) -> Iterator[Ids]:
        with self._errors(collection):
            rows = self._table(collection).search().select(["id"]).to_batches(IDS_AT_ONCE)
            for batch in rows:
                yield batch["id"].to_numpy()

    def drop(self, name: str) -> None:
        with self._errors(None):
            self._database().drop_table(name, ignore_missing=True)

    def settle(self, collection: Collection, *, deleted: bool) -> None:
        """Joins small files into large ones. After a deletion every row is written anew, and every older version of the
        table removed at once: whoever reads one at that moment is refused, and reads anew."""
        with self._errors(collection), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # says just that
            table = self._table(collection)
            age = timedelta(0) if deleted else timedelta(hours=1)
            if deleted:  # only marked so far; compaction leaves a file alone that has lost few rows
                table.update(where="true", values_sql={"owner_id": "owner_id"})
            table.optimize(cleanup_older_than=age, delete_unverified=False)
            if not deleted and table.count_rows() >= INDEX_FROM_ROWS and not table.list_indices():
                table.create_index(metric="cosine", index_type="IVF_FLAT", vector_column_name="vector")

    def _database(self) -> Any:
        with self._lock:
            if self._opened is None or self._opened[0] != os.getpid():
                # the interval: see at once what other processes write
                opened = lancedb.connect(str(self._folder), read_consistency_interval=timedelta(0))
                self._opened = os.getpid(), opened
            return self._opened[1]

    def _names(self) -> Iterator[str]:
        token = None
        while True:
            page = self._database().list_tables(page_token=token)
            yield from page.tables
            if not (token := page.page_token):
                return

    def _table(self, collection: Collection) -> Any:
        return self._database().open_table(collection.name)

    @contextmanager
    def _errors(self, collection: Collection | None) -> Iterator[None]:
        try:
            yield
        except (ValueError, RuntimeError, OSError) as error:
            if collection and "not found" in str(error).lower():
                raise NotFound(kind="table", id=collection.name) from error
            reason = (
                f"{type(error).__name__} {str(error).splitlines()[0][:200]}" if str(error) else type(error).__name__
            )
            raise VectorIndexUnavailable(place=self.address, reason=reason) from error


def _schema(collection: Collection) -> pa.Schema:
    fields = {
        "id": pa.int64(),
        "vector": pa.list_(pa.float32(), collection.dimension),
        "owner_id": pa.int64(),
        "audio_id": pa.int64(),
        "recorded_at": pa.float64(),
    }
    return pa.schema(list(fields.items()), metadata={"model": collection.model})


def _condition(scope: Scope) -> str:
    """The scope as LanceDB's SQL; nothing but numbers goes into it."""
    parts = [
        f"{name} IN {_listed(ids)}"
        for name, ids in (("owner_id", scope.owner_ids), ("audio_id", scope.audio_ids))
        if ids is not None
    ]
    if scope.since is not None:
        parts.append(f"recorded_at >= {scope.since.timestamp():.6f}")
    if scope.until is not None:
        parts.append(f"recorded_at < {scope.until.timestamp():.6f}")
    return " AND ".join(parts)


def _listed(ids: Any) -> str:
    return f"({', '.join(str(int(id_)) for id_ in ids)})"
