"""Search by vectors at size: ours, and beside it in the same run sqlite-vec, Chroma and LanceDB.

    python bench/vectors.py --folder FOLDER                      # a million vectors, ours only
    python bench/vectors.py --folder FOLDER --rows 100000 --rivals sqlite-vec chroma lancedb --rivals-python PYTHON

Each engine runs in a fresh process, in one thread where it lets itself be told; the rivals in an interpreter that has
them and numpy. Everything that takes long to build is kept in FOLDER and used again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import text

from audio_storage_system.clock import Deadline
from audio_storage_system.database import Database
from audio_storage_system.vectors import Ids
from audio_storage_system.vectors.sqlite import SQLiteIndex
from vector_archive import SPACE, Model, build
from vector_measures import BUCKETS, FILTERS, LIMIT, Engine, Vectors, buckets_of, measure, report, stored_vectors

QUERIES = 100
SIZE = text("SELECT sum(length(embedding_ids) + length(signs) + length(remainders)) FROM code_blocks")
HERE = Path(__file__).parent
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS", "LANCE_CPU_THREADS"), "1")
NEVER = Deadline.after(None)

# One string instead of many rows: thousands of new tuples would set off Python's garbage collection, 30 ms at a time.
ADMIT = text(
    "SELECT group_concat(e.id) FROM json_each(:ids) wanted CROSS JOIN embeddings e ON e.id = wanted.value"
    " JOIN transcripts t ON t.id = e.transcript_id WHERE t.active AND e.space_id = 1"
)
ADMIT_SOME = text(
    "SELECT group_concat(e.id) FROM json_each(:ids) wanted CROSS JOIN embeddings e ON e.id = wanted.value"
    " JOIN transcripts t ON t.id = e.transcript_id WHERE t.active AND e.space_id = 1 AND EXISTS"
    " (SELECT 1 FROM metadata m WHERE m.audio_file_id = e.audio_file_id AND m.key = 'bucket'"
    " AND m.value_number < :percent)"
)
LIST = text(
    "SELECT group_concat(id) FROM (SELECT e.id FROM embeddings e JOIN transcripts t ON t.id = e.transcript_id"
    " WHERE t.active AND e.space_id = 1 LIMIT :limit)"
)
LIST_SOME = text(
    "SELECT group_concat(id) FROM (SELECT e.id FROM metadata m"
    " CROSS JOIN embeddings e ON e.audio_file_id = m.audio_file_id"
    " JOIN transcripts t ON t.id = e.transcript_id WHERE t.active AND e.space_id = 1"
    " AND m.key = 'bucket' AND m.value_number < :percent LIMIT :limit)"
)


@dataclass(frozen=True)
class InBuckets:
    """Embeddings of active transcripts, of `percent` of the recordings."""

    database: Database
    percent: int

    def ids(self, limit: int) -> Ids | None:
        with self.database.read() as connection:
            if self.percent == BUCKETS:
                found = connection.execute(LIST, {"limit": limit + 1}).scalar_one()
            else:
                found = connection.execute(LIST_SOME, {"limit": limit + 1, "percent": self.percent}).scalar_one()
        ids = np.fromstring(found or "", dtype=np.int64, sep=",")
        return None if len(ids) > limit else np.sort(ids)

    def admit(self, ids: Sequence[int]) -> set[int]:
        wanted = json.dumps(ids)
        with self.database.read() as connection:
            if self.percent == BUCKETS:
                found = connection.execute(ADMIT, {"ids": wanted}).scalar_one()
            else:
                found = connection.execute(ADMIT_SOME, {"ids": wanted, "percent": self.percent}).scalar_one()
        return set(map(int, found.split(","))) if found else set()


class Ours(Engine):
    """The SQLite index, filtered by SQL."""

    name = "audio-storage-system"

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self) -> None:
        self.database = Database.open(self.path)
        self.index = SQLiteIndex(self.database)

    def query(self, vector: Vectors, percent: int) -> list[int]:
        within = InBuckets(self.database, percent)
        found = self.index.query(SPACE, vector, limit=LIMIT, within=within, deadline=NEVER)
        return [match.embedding_id for match in found]

    def build_once(self) -> dict[str, float]:
        """Follow the catalogue from nothing, or from where an earlier run left it."""
        self.open()
        started = time.perf_counter()
        self.index.catch_up(SPACE)
        seconds = time.perf_counter() - started
        with self.database.read() as connection:
            size = connection.execute(SIZE)
            return {"build_s": seconds, "disk_mb": size.scalar_one() / 1e6}


def prepare(path: Path, rows: int) -> None:
    """The archive, and beside it the queries with their true neighbours."""
    build(path, rows)
    answers = path.with_suffix(".npz")
    if answers.exists():
        return
    queries = Model.make().draw(QUERIES, seed=10**9)
    best = {percent: (np.zeros((QUERIES, 0), np.int64), np.zeros((QUERIES, 0), np.float32)) for percent in FILTERS}
    for ids, vectors in stored_vectors(path):
        for percent in FILTERS:
            chosen = buckets_of(ids) < percent
            best[percent] = _best(*best[percent], ids[chosen], queries @ vectors[chosen].T)
    np.savez(answers, queries=queries, **{str(percent): ids for percent, (ids, _) in best.items()})


def _best(ids: Ids, cosines: Vectors, more_ids: Ids, more: Vectors) -> tuple[Ids, Vectors]:
    ids = np.concatenate([ids, np.broadcast_to(more_ids, more.shape)], axis=1)
    cosines = np.concatenate([cosines, more], axis=1)
    order = np.argsort(-cosines, axis=1)[:, :LIMIT]
    return np.take_along_axis(ids, order, axis=1), np.take_along_axis(cosines, order, axis=1)


def in_a_process(python: str, script: str, *arguments: str) -> dict[str, Any]:
    """What it reports in its last line."""
    command = [python, str(HERE / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | ONE_THREAD)
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1]}
    measured: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return measured


def compare(path: Path, rivals: Sequence[str], python: str) -> dict[str, dict[str, Any]]:
    """Every engine's measurements, ours first."""
    us = "vectors.py", "--archive", str(path)
    results = {Ours.name: in_a_process(sys.executable, *us, "--build") | in_a_process(sys.executable, *us)}
    for rival in rivals:
        built = in_a_process(python, "vector_rivals.py", rival, str(path), "build")
        results[rival] = in_a_process(python, "vector_rivals.py", rival, str(path)) | built
    return results


def show(results: dict[str, dict[str, Any]]) -> None:
    """A table, each number with its ratio to ours."""
    ours = results[Ours.name]
    for name, measured in results.items():
        print(f"\n{name}")
        if "failed" in measured:
            print(f"  failed: {measured['failed']}")
            continue
        for key in ("build_s", "disk_mb", "first_ms", "ram_mb"):
            print(f"  {key:10} {measured[key]:10.1f}  {measured[key] / max(ours[key], 0.1):8.2f} x")
        for percent in map(str, FILTERS):
            values, base = measured[percent], ours[percent]
            numbers = "  ".join(f"{key} {value:8.3f}" for key, value in values.items())
            print(f"  {percent:>3} %  {numbers}  {values['p50_ms'] / base['p50_ms']:8.2f} x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("bench-data"))
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rivals", nargs="*", default=[])
    parser.add_argument("--rivals-python", default=sys.executable)
    parser.add_argument("--archive", type=Path, help=argparse.SUPPRESS)  # the child processes of this script
    parser.add_argument("--build", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.archive and options.build:
        report(Ours(options.archive).build_once())
    elif options.archive:
        with np.load(options.archive.with_suffix(".npz")) as data:
            truth = {percent: data[str(percent)] for percent in FILTERS}
            report(measure(Ours(options.archive), data["queries"], truth))
    else:
        options.folder.mkdir(parents=True, exist_ok=True)
        path = options.folder / f"archive-{options.rows}.db"
        prepare(path, options.rows)
        show(compare(path, options.rivals, options.rivals_python))


if __name__ == "__main__":
    main()
