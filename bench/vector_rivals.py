"""sqlite-vec, Chroma and LanceDB on the vectors of an archive; run by `vectors.py`, with an interpreter that has them.

python vector_rivals.py chroma /folder/archive-100000.db
"""

from __future__ import annotations

import shutil
import sys
import time
from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np

from vector_measures import BUCKETS, LIMIT, Engine, Vectors, buckets_of, measure, report, stored_vectors


class Rival(Engine):
    """An engine with data of its own, built from the archive."""

    def __init__(self, archive: Path) -> None:
        self.archive = archive
        self.place = archive.with_name(f"{archive.stem}.{self.name}")

    def build_once(self) -> float:
        """Seconds it took to build; 0 when it was there."""
        if self.place.exists():
            return 0.0
        started = time.perf_counter()
        try:
            self.build()
        except BaseException:
            shutil.rmtree(self.place, ignore_errors=True)
            raise
        return time.perf_counter() - started

    @abstractmethod
    def build(self) -> None:
        """Store every vector with its bucket, and index them."""

    def megabytes(self) -> float:
        """What it takes on disk."""
        return sum(file.stat().st_size for file in self.place.rglob("*") if file.is_file()) / 1e6


class SQLiteVec(Rival):
    """Exact: a scan of all vectors."""

    name, queries = "sqlite-vec", 10

    def open(self) -> None:
        import pysqlite3 as sqlite3  # many builds of Python cannot load extensions
        import sqlite_vec

        self.connection = sqlite3.connect(self.place / "vectors.db")
        self.connection.enable_load_extension(True)
        sqlite_vec.load(self.connection)

    def build(self) -> None:
        self.place.mkdir()
        self.open()
        self.connection.execute(
            "CREATE VIRTUAL TABLE vectors USING vec0(id INTEGER PRIMARY KEY, bucket INTEGER,"
            " embedding FLOAT[384] distance_metric=cosine)"
        )
        for ids, vectors in stored_vectors(self.archive):
            rows = zip(ids.tolist(), buckets_of(ids).tolist(), (v.tobytes() for v in vectors), strict=True)
            self.connection.executemany("INSERT INTO vectors (id, bucket, embedding) VALUES (?, ?, ?)", rows)
            self.connection.commit()

    def query(self, vector: Vectors, percent: int) -> list[int]:
        where = "" if percent == BUCKETS else f" AND bucket < {percent}"
        sql = f"SELECT id FROM vectors WHERE embedding MATCH ? AND k = {LIMIT}{where}"  # noqa: S608
        return [row[0] for row in self.connection.execute(sql, (vector.tobytes(),))]


class Chroma(Rival):
    """Its default index, HNSW, in its default settings but for the metric."""

    name = "chroma"

    def open(self) -> None:
        import chromadb

        client = chromadb.PersistentClient(str(self.place), chromadb.Settings(anonymized_telemetry=False))
        configuration: Any = {"hnsw": {"space": "cosine"}}
        self.collection = client.get_or_create_collection("vectors", configuration=configuration)

    def build(self) -> None:
        self.open()
        for ids, vectors in stored_vectors(self.archive, batch=5000):
            metadatas = [{"bucket": bucket} for bucket in buckets_of(ids).tolist()]
            self.collection.add([str(i) for i in ids], embeddings=vectors, metadatas=metadatas)

    def query(self, vector: Vectors, percent: int) -> list[int]:
        where: Any = None if percent == BUCKETS else {"bucket": {"$lt": percent}}
        found = self.collection.query(query_embeddings=[vector], n_results=LIMIT, where=where, include=[])
        return [int(i) for i in found["ids"][0]]


class LanceDB(Rival):
    """IVF-PQ, refined from the stored vectors until its recall is near ours; a scalar index on the bucket."""

    name = "lancedb"

    def open(self) -> None:
        import lancedb

        self.table = lancedb.connect(str(self.place)).open_table("vectors")

    def build(self) -> None:
        import lancedb
        import pyarrow

        fields = [
            ("id", pyarrow.int64()),
            ("bucket", pyarrow.int64()),
            ("vector", pyarrow.list_(pyarrow.float32(), 384)),
        ]
        table = lancedb.connect(str(self.place)).create_table("vectors", schema=pyarrow.schema(fields))
        for ids, vectors in stored_vectors(self.archive):
            column = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(vectors.ravel()), 384)
            table.add(pyarrow.table({"id": ids, "bucket": buckets_of(ids), "vector": column}))
        table.create_index(metric="cosine", vector_column_name="vector")
        table.create_scalar_index("bucket")

    def query(self, vector: Vectors, percent: int) -> list[int]:
        search = self.table.search(vector).distance_type("cosine").limit(LIMIT).nprobes(30).refine_factor(30)
        if percent < BUCKETS:
            search = search.where(f"bucket < {percent}", prefilter=True)
        return [row["id"] for row in search.select(["id"]).to_list()]


RIVALS = {rival.name: rival for rival in (SQLiteVec, Chroma, LanceDB)}


def main() -> None:
    name, path = sys.argv[1], Path(sys.argv[2])
    rival = RIVALS[name](path)
    if len(sys.argv) > 3:  # a process for building, so that its memory is not counted as the searcher's
        report({"build_s": rival.build_once(), "disk_mb": rival.megabytes()})
        return
    with np.load(path.with_suffix(".npz")) as data:
        truth = {int(key): data[key] for key in data.files if key != "queries"}
        report(measure(rival, data["queries"], truth))


if __name__ == "__main__":
    main()
