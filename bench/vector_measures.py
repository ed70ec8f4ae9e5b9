"""What is measured of every vector engine, in the same way. Needs numpy only, so it also runs beside the rivals."""

from __future__ import annotations

import json
import sqlite3
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

LIMIT = 10
# Share of the recordings that a filter lets pass, in percent: all, a fifth, a hundredth.
FILTERS = (100, 20, 1)
PASSAGES_PER_RECORDING = 50
BUCKETS = 100

Vectors = npt.NDArray[np.float32]


class Engine(ABC):
    """One way to search. `queries`: how many it can be asked in bearable time."""

    name: str
    queries = 100

    @abstractmethod
    def open(self) -> None:
        """What a fresh process does before its first query."""

    @abstractmethod
    def query(self, vector: Vectors, percent: int) -> list[int]:
        """The ids of the ten nearest among this share of the recordings."""


def buckets_of(ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The metadata `bucket` of the recordings that these embeddings belong to."""
    return ((ids - 1) // PASSAGES_PER_RECORDING + 1) % BUCKETS


def stored_vectors(path: Path, batch: int = 20_000) -> Iterator[tuple[npt.NDArray[np.int64], Vectors]]:
    """All embeddings of the archive, in batches."""
    cursor = sqlite3.connect(path).execute("SELECT id, embedding_data FROM embeddings ORDER BY id")
    while rows := cursor.fetchmany(batch):
        vectors = np.frombuffer(b"".join(row[1] for row in rows), "<f4").reshape(len(rows), -1)
        yield np.array([row[0] for row in rows]), vectors


def measure(engine: Engine, queries: Vectors, truth: dict[int, npt.NDArray[np.int64]]) -> dict[str, Any]:
    """Latencies in milliseconds, recall of the ten nearest, memory in MB over what the process had before opening."""
    before = memory("VmRSS")
    started = time.perf_counter()
    engine.open()
    engine.query(queries[0], 100)
    report: dict[str, Any] = {"first_ms": 1000 * (time.perf_counter() - started)}
    for percent in FILTERS:
        report[str(percent)] = _latencies(engine, queries[: engine.queries], truth[percent], percent)
    return report | {"ram_mb": memory("VmHWM") - before}


def _latencies(engine: Engine, queries: Vectors, truth: npt.NDArray[np.int64], percent: int) -> dict[str, float]:
    engine.query(queries[-1], percent)
    wall, cpu, hits = [], [], 0
    for query, true in zip(queries, truth, strict=False):
        at_wall, at_cpu = time.perf_counter(), time.process_time()
        found = engine.query(query, percent)
        wall.append(1000 * (time.perf_counter() - at_wall))
        cpu.append(1000 * (time.process_time() - at_cpu))
        hits += len(set(found) & set(true.tolist()))
    p50, p95 = np.quantile(wall, [0.5, 0.95])
    recall = hits / (LIMIT * len(queries))
    return {"p50_ms": p50, "p95_ms": p95, "cpu_p50_ms": float(np.median(cpu)), "recall": recall}


def memory(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1000
    raise LookupError(field)


def report(measured: dict[str, Any]) -> None:
    """One line of JSON: what a process that measured one engine says."""
    print(json.dumps(measured))
