"""PostgreSQL with pgvector as the vector database: beside a catalogue of any kind, and by itself of one on PostgreSQL.

Vectors are kept as `halfvec` in the derived table `passage_search`, each collection with an HNSW index of its own (a
partial one: an index has one dimension). Scans are iterative, so a filter never starves a result. Rows of a collection
carry its number in `space_id`; which number stands for what is in the table `vector_collections`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from audio_storage_system.clock import Deadline
from audio_storage_system.database import Database, bulk, passage_search
from audio_storage_system.database.remembering import remembered
from audio_storage_system.errors import (
    ArchiveBusy,
    DeadlineExceeded,
    MissingExtension,
    NotFound,
    StorageFailed,
    VectorIndexMismatch,
    VectorIndexUnavailable,
)
from audio_storage_system.locations import without_user
from audio_storage_system.vectors.base import Capabilities, Ids, Scope
from audio_storage_system.vectors.engines import Collection, Found, Points, VectorEngine
from audio_storage_system.vectors.stored import Vectors

# The most numbers that an HNSW index over halfvec takes; longer vectors are compared exactly.
MOST_DIMENSIONS = 4_000
# Numbers of 16 bits have a step of 2⁻¹¹, and both vectors are written in them.
PRECISION = 1e-3
# A search that takes longer is not worth waiting for: what it was to narrow down is then compared exactly.
PATIENCE_SECONDS = 60.0
# How many neighbours HNSW looks at, at least; and how many rows an iterative scan may visit for a filter.
# 240 finds .96 of the ten nearest among a million, 100 finds .92.
LEAST_SEARCHED, MOST_SEARCHED, MOST_SCANNED = 240, 1_000, 1_000_000
# Comparing so many takes as long as looking for them in HNSW; and a filter that lets more than a tenth pass makes HNSW
# slower than going a few times deeper without it.
MOST_COMPARED, WORTH_FILTERING = 20_000, 0.1

# What only one process at a time makes or removes, how often to look whether it is done, and how long one who removes
# something waits for that.
INDEXES, TURN_SECONDS, TURN_PATIENCE_SECONDS = "indexes of passage_search", 0.2, 30.0
IDS_AT_ONCE = 100_000

_EXTENSION = text("SELECT count(*) FROM pg_extension WHERE extname = 'vector'")
_COLUMN = text(
    "SELECT count(*) FROM pg_attribute WHERE attrelid = to_regclass('passage_search') AND attname = 'vector'"
)
_PREPARE = (
    "ALTER TABLE passage_search ADD COLUMN IF NOT EXISTS vector halfvec",
    """CREATE TABLE IF NOT EXISTS vector_collections (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE, model text NOT NULL, dimension integer NOT NULL)""",
)
_NAMES = text("SELECT name FROM vector_collections WHERE starts_with(name, :prefix)")
_FIND = text("SELECT id, model, dimension FROM vector_collections WHERE name = :name")
_ADD = text(
    "INSERT INTO vector_collections (name, model, dimension) VALUES (:name, :model, :dimension)"
    " ON CONFLICT (name) DO NOTHING"
)
_FORGET = text("DELETE FROM vector_collections WHERE id = :id")
_CLEAR = text("DELETE FROM passage_search WHERE space_id = :id")
_DELETE = text("DELETE FROM passage_search WHERE space_id = :id AND embedding_id = ANY(CAST(:ids AS bigint[]))")
_COPY = (
    "COPY passage_search (space_id, owner_id, recorded_at, embedding_id, audio_id, vector) FROM STDIN (FORMAT BINARY)"
)
_USABLE = text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)")
# PostgreSQL's own format for that: https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format".
_COPY_BEGIN, _COPY_END = b"PGCOPY\n\xff\r\n\0" + bytes(8), b"\xff\xff"
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC).timestamp()
_COUNT = text("SELECT count(*) FROM passage_search WHERE space_id = :id")
_IDS_AFTER = text(
    "SELECT embedding_id FROM passage_search WHERE space_id = :id AND embedding_id > :after"
    " ORDER BY embedding_id LIMIT :limit"
)
_SETTINGS = text(
    "SELECT set_config('hnsw.iterative_scan', 'relaxed_order', true), set_config('hnsw.ef_search', :depth, true),"
    " set_config('hnsw.max_scan_tuples', :scanned, true), set_config('jit', 'off', true)"  # compiling takes longer
)


class PgvectorEngine(VectorEngine):
    """The vectors of any number of archives in one PostgreSQL database."""

    capabilities = Capabilities(
        filters=True,
        max_batch=1_000,
        max_dimension=MOST_DIMENSIONS,
        precision=PRECISION,
        compares=MOST_COMPARED,
        worth_filtering=WORTH_FILTERING,
    )

    def __init__(self, database: Database, address: str = "pgvector", *, owned: bool = False) -> None:
        self.address = address
        self._database = database
        self._owned = owned

    @classmethod
    def at(cls, url: str, home: Path) -> PgvectorEngine:
        """In the database at this address."""
        return cls(Database.connect(url), f"pgvector:{without_user(url)}", owned=True)

    def prepare(self) -> None:
        """Make the extension and the tables unless they are there. Raises `MissingExtension`."""
        with self._database.read() as connection:
            if connection.execute(_COLUMN).scalar_one():
                return
        self.extend()
        with self._database.write("passage_search") as connection:
            passage_search.create(connection)
            for statement in _PREPARE:
                connection.exec_driver_sql(statement)

    def extend(self) -> None:
        """Make the extension unless the database has it. Raises `MissingExtension`."""
        with self._database.read() as connection:
            if connection.execute(_EXTENSION).scalar_one():
                return
        try:
            with self._database.write("passage_search") as connection:
                connection.exec_driver_sql("CREATE EXTENSION IF NOT EXISTS vector")
        except StorageFailed as error:
            reason = str(error.__cause__.orig) if isinstance(error.__cause__, DBAPIError) else str(error)
            raise MissingExtension(place=self._database.place, reason=reason.splitlines()[0]) from error

    def names(self, prefix: str) -> set[str]:
        with self._reaching():
            self.prepare()
            with self._database.read() as connection:
                return set(connection.execute(_NAMES, {"prefix": prefix}).scalars())

    def ensure(self, collection: Collection) -> None:
        with self._reaching():
            self.prepare()
            with self._database.write("passage_search") as connection:
                wanted = {"name": collection.name, "model": collection.model, "dimension": collection.dimension}
                connection.execute(_ADD, wanted)
                row = connection.execute(_FIND, {"name": collection.name}).one()
        if (row.model, row.dimension) != (collection.model, collection.dimension):
            raise VectorIndexMismatch(
                place=self.address,
                found=f"{row.model} with {row.dimension} dimensions",
                wanted=f"{collection.model} with {collection.dimension}",
            )

    def upsert(self, collection: Collection, points: Points) -> None:
        moments = [datetime.fromtimestamp(seconds, UTC) for seconds in points.recorded_at.tolist()]
        with self._reaching(), self._database.write(collection.name) as connection:
            id_ = _number(connection, collection)
            passage_search.make_room(connection, moments)
            connection.execute(_DELETE, {"id": id_, "ids": points.ids.tolist()})
            with bulk.stream(connection, _COPY) as copy:  # as texts in SQL they take twenty times as long
                copy.write(_encoded(id_, points))

    def delete(self, collection: Collection, ids: Ids) -> None:
        with self._reaching(), self._database.write(collection.name) as connection:
            connection.execute(_DELETE, {"id": _number(connection, collection), "ids": ids.tolist()})

    def search(self, collection: Collection, vector: Vectors, limit: int, scope: Scope) -> Found:
        depth = min(max(LEAST_SEARCHED, limit), MOST_SEARCHED)
        with self._reaching(), self._database.attempt(Deadline.after(PATIENCE_SECONDS)) as connection:
            id_ = remembered(connection, ("collection", collection), lambda: _number(connection, collection))
            connection.execute(_SETTINGS, {"depth": str(depth), "scanned": str(MOST_SCANNED)})
            query, parameters = _nearest(id_, collection.dimension, scope)
            rows = connection.execute(text(query), {"vector": _written(vector), "limit": limit, **parameters}).all()
        return Found.of([row[0] for row in rows], [1 - row[1] for row in rows])

    def compare(self, collection: Collection, vector: Vectors, ids: Ids, limit: int, scope: Scope) -> Found:
        given = f"{{{','.join(map(str, ids.tolist()))}}}"  # as one text: a list is handed over number by number
        with self._reaching(), self._database.attempt(Deadline.after(PATIENCE_SECONDS)) as connection:
            id_ = remembered(connection, ("collection", collection), lambda: _number(connection, collection))
            query, parameters = _nearest(id_, collection.dimension, replace(scope, audio_ids=None), among=given)
            rows = connection.execute(text(query), {"vector": _written(vector), "limit": limit, **parameters}).all()
        return Found.of([row[0] for row in rows], [1 - row[1] for row in rows])

    def asks_only(self, database: Database) -> bool:
        return database is self._database

    def count(self, collection: Collection) -> int:
        with self._reaching(), self._database.read() as connection:
            return int(connection.execute(_COUNT, {"id": _number(connection, collection)}).scalar_one())

    def ids(self, collection: Collection) -> Iterator[Ids]:
        last = 0
        while True:
            with self._reaching(), self._database.read() as connection:
                after = {"id": _number(connection, collection), "after": last, "limit": IDS_AT_ONCE}
                found = np.array(connection.execute(_IDS_AFTER, after).scalars().all(), dtype=np.int64)
            if not len(found):
                return
            yield found
            last = int(found[-1])

    def drop(self, name: str) -> None:
        with self._reaching():
            with self._database.read() as connection:
                row, cut = connection.execute(_FIND, {"name": name}).first(), passage_search.partitioning(connection)
            if row is None:
                return
            if not cut:
                self._unindex(row.id)
            with self._database.write("passage_search") as connection:
                connection.exec_driver_sql(f"DROP INDEX IF EXISTS {_index_name(row.id)}")
                connection.execute(_CLEAR, {"id": row.id})
                connection.execute(_FORGET, {"id": row.id})

    def settle(self, collection: Collection, *, deleted: bool) -> None:
        """Make the HNSW index once the first vectors are in: many at once take a fraction of the time of one by one."""
        if collection.dimension > MOST_DIMENSIONS:
            return
        with self._reaching():
            usable = None
            while usable is None:  # else another process is at it
                with self._database.read() as connection:
                    id_ = _number(connection, collection)
                    usable = _usable(connection, id_)
                if usable or self._indexed(id_, collection.dimension):
                    return
                time.sleep(TURN_SECONDS)

    def _indexed(self, id_: int, dimension: int) -> bool:
        """Make the index, unless another one is being made or removed: two of one table at once would wait for each
        other. Whoever waits for that looks again and again, each time in a transaction of its own, because who makes an
        index waits for the end of those that have seen anything."""
        with self._database.alone(INDEXES) as connection:
            if connection is not None and not _usable(connection, id_):
                _build_index(connection, id_, dimension)
            return connection is not None

    def _unindex(self, id_: int) -> None:
        """Remove the index without stopping those who search meanwhile."""
        patience = Deadline.after(TURN_PATIENCE_SECONDS)
        while True:
            with self._database.alone(INDEXES) as connection:
                if connection is not None:
                    connection.exec_driver_sql(f"DROP INDEX CONCURRENTLY IF EXISTS {_index_name(id_)}")
                    return
            if patience.expired:
                raise ArchiveBusy(place=self._database.place)
            time.sleep(TURN_SECONDS)

    def close(self) -> None:
        if self._owned:
            self._database.close()

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """Whatever the database refuses is a vector index that cannot be used now."""
        try:
            yield
        except (StorageFailed, DeadlineExceeded) as error:
            raise VectorIndexUnavailable(place=self.address, reason=str(error)) from error


def _usable(connection: Connection, id_: int) -> bool | None:
    """Whether searches can use the index of a collection; `None` where there is none, not even one being made."""
    usable: bool | None = connection.execute(_USABLE, {"name": _index_name(id_)}).scalar()
    return usable


def _build_index(connection: Connection, id_: int, dimension: int) -> None:
    """Others go on writing meanwhile, except where the table is partitioned, which PostgreSQL cannot do."""
    name, concurrently = _index_name(id_), "" if passage_search.partitioning(connection) else "CONCURRENTLY"
    connection.exec_driver_sql(f"DROP INDEX IF EXISTS {name}")  # what an attempt cut short has left
    connection.exec_driver_sql(
        f"CREATE INDEX {concurrently} {name} ON passage_search"
        f" USING hnsw ((vector::halfvec({int(dimension)})) halfvec_cosine_ops) WHERE space_id = {int(id_)}"
    )


def _number(connection: Connection, collection: Collection) -> int:
    row = connection.execute(_FIND, {"name": collection.name}).first()
    if row is None:
        raise NotFound(kind="vector collection", id=collection.name)
    return int(row.id)


def _nearest(id_: int, dimension: int, scope: Scope, among: str = "") -> tuple[str, dict[str, Any]]:
    """The query, in which only numbers of our own are written out: the planner takes a partial index only for what it
    can see. With `among`, the nearest of these ids, all compared: an order that is computed keeps HNSW out of it."""
    conditions = [f"space_id = {int(id_)}"]
    parameters: dict[str, Any] = {}
    if scope.owner_ids is not None:
        conditions.append("owner_id = ANY(CAST(:owners AS bigint[]))")
        parameters["owners"] = list(scope.owner_ids)
    if scope.audio_ids is not None:
        conditions.append("audio_id = ANY(CAST(:audios AS bigint[]))")
        parameters["audios"] = list(scope.audio_ids)
    if scope.since is not None:
        conditions.append("recorded_at >= :since")
        parameters["since"] = scope.since
    if scope.until is not None:
        conditions.append("recorded_at < :until")
        parameters["until"] = scope.until
    if among:
        conditions.append("embedding_id = ANY(CAST(:ids AS bigint[]))")
        parameters["ids"] = among
    distance = f"CAST(vector AS halfvec({int(dimension)})) <=> CAST(:vector AS halfvec({int(dimension)}))"
    query = f"SELECT embedding_id, {distance} AS distance FROM passage_search"  # noqa: S608
    order = f"({distance}) + 0" if among else distance
    return f"{query} WHERE {' AND '.join(conditions)} ORDER BY {order} LIMIT :limit", parameters


def _encoded(id_: int, points: Points) -> bytes:
    """The rows of these points: each a number of fields, and each field with its length before it."""
    dimension = points.vectors.shape[1]
    whole = [(name, ">i4") if name.endswith("_") else (name, ">i8") for name in _whole_fields()]
    layout = [("fields", ">i2"), *whole, ("vector_", ">i4"), ("dimension", ">i2"), ("unused", ">i2")]
    rows = np.zeros(len(points), dtype=[*layout, ("vector", ">f2", (dimension,))])
    rows["fields"] = 6
    for name in _whole_fields()[::2]:
        rows[name] = 8
    rows["space"], rows["owner"], rows["embedding"], rows["audio"] = id_, points.owner_ids, points.ids, points.audio_ids
    rows["moment"] = np.round((points.recorded_at - _EPOCH) * 1e6).astype(np.int64)
    rows["vector_"], rows["dimension"], rows["vector"] = 4 + 2 * dimension, dimension, points.vectors
    return _COPY_BEGIN + rows.tobytes() + _COPY_END


def _whole_fields() -> list[str]:
    """Each length, then its number, in the order of `_COPY`."""
    return [part for name in ("space", "owner", "moment", "embedding", "audio") for part in (f"{name}_", name)]


def _index_name(id_: int) -> str:
    return f"idx_passage_search_vector_{int(id_)}"


def _written(vector: Vectors) -> str:
    return f"[{','.join(map(str, vector.tolist()))}]"
