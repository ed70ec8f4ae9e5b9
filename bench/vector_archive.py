"""A large archive of synthetic vectors, made by plain SQL: what `vectors.py` measures on.

The vectors resemble those of a text embedder: a common offset, a few thousand topics, and noise whose variance falls
from one direction to the next, as principal components of real embeddings do.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, text

from audio_storage_system.database import Database
from audio_storage_system.database.migrations import migrate
from audio_storage_system.records import EmbeddingKind, Space
from vector_measures import BUCKETS, PASSAGES_PER_RECORDING

DIMENSION = 384


TOPICS = 4000
BATCH_RECORDINGS = 200
WHEN = "2026-01-01 00:00:00.000000"

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Model:
    """Where vectors come from: `draw` gives unit vectors, each near one of the topics."""

    offset: Vectors
    topics: Vectors
    directions: Vectors

    @classmethod
    @cache
    def make(cls, dimension: int = DIMENSION, topics: int = TOPICS) -> Model:
        rng = np.random.default_rng(1)
        rotation = np.linalg.qr(rng.standard_normal((dimension, dimension)))[0]
        spectrum = np.arange(1, dimension + 1) ** -0.5
        directions = (rotation * (spectrum / np.linalg.norm(spectrum))[:, None]).astype(np.float32)
        centres = rng.standard_normal((topics, dimension)).astype(np.float32) @ directions
        offset = rng.standard_normal(dimension).astype(np.float32)
        return cls(0.6 * offset / np.linalg.norm(offset), centres, directions)

    def draw(self, count: int, seed: int) -> Vectors:
        rng = np.random.default_rng((2, seed))
        noise = rng.standard_normal((count, len(self.offset)), dtype=np.float32) @ self.directions
        rows = self.offset + self.topics[rng.integers(len(self.topics), size=count)] + noise
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def build(path: Path, rows: int) -> None:
    """The archive with `rows` embeddings in one space, unless it is there already."""
    if path.exists():
        return
    unfinished = path.with_suffix(".unfinished")
    unfinished.unlink(missing_ok=True)
    database = Database.open(unfinished)
    migrate(database)
    started = time.perf_counter()
    with database.write() as connection:
        _insert_parents(connection)
    for recordings in _batches(rows // PASSAGES_PER_RECORDING):
        with database.write() as connection:
            _insert_recordings(connection, recordings)
    with database.engine.connect() as connection:
        connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    unfinished.rename(path)
    print(f"built {rows:,} rows in {time.perf_counter() - started:.0f} s")


def _batches(recordings: int) -> Iterator[range]:
    for first in range(1, recordings + 1, BATCH_RECORDINGS):
        yield range(first, min(first + BATCH_RECORDINGS, recordings + 1))


def _insert_parents(connection: Connection) -> None:
    connection.execute(text("INSERT INTO principals (id, name, kind) VALUES (1, 'archive', 'archive')"))
    connection.execute(
        text(
            "INSERT INTO embedding_spaces (id, kind, model, dimension, spec, active)"
            " VALUES (1, 'transcript', 'synthetic', :dimension, 'synthetic', 1)"
        ),
        {"dimension": DIMENSION},
    )


def _insert_recordings(connection: Connection, recordings: range) -> None:
    """Recording n has transcript n, window n, segment n, and passages and embeddings (n - 1) * 50 + 1 … n * 50."""
    many = connection.connection.driver_connection.executemany  # type: ignore[union-attr]
    many(
        "INSERT INTO audio_files (id, file_hash, file_path, owner_id, original_name, recorded_at, status)"
        " VALUES (?1, 'hash' || ?1, 'audio_files/' || ?1, 1, ?1 || '.wav', ?2, 'stored')",
        [(n, WHEN) for n in recordings],
    )
    many(
        "INSERT INTO metadata (audio_file_id, key, value, value_type, value_number)"
        " VALUES (?1, 'bucket', ?2, 'integer', ?2)",
        [(n, n % BUCKETS) for n in recordings],
    )
    for table, columns, values in (
        (
            "transcripts",
            "id, audio_file_id, whisper_model, engine, parameters, outcome, active",
            "?1, ?1, 'base', 'base', '{}', 'ok', 1",
        ),
        ("transcription_windows", "id, transcript_id, sequence, start_seconds, end_seconds", "?1, ?1, 0, 0, 1000"),
        (
            "segments",
            "id, transcript_id, window_id, sequence, start_seconds, end_seconds, text, words",
            "?1, ?1, ?1, 0, 0, 1000, '', '[]'",
        ),
    ):
        many(f"INSERT INTO {table} ({columns}) VALUES ({values})", [(n,) for n in recordings])  # noqa: S608
    _insert_passages(many, recordings)


def _insert_passages(many: object, recordings: range) -> None:
    assert callable(many)
    owners = np.repeat(np.asarray(recordings), PASSAGES_PER_RECORDING).tolist()
    first = (recordings[0] - 1) * PASSAGES_PER_RECORDING + 1
    rows = [(first + i, n, i % PASSAGES_PER_RECORDING) for i, n in enumerate(owners)]
    many(
        "INSERT INTO passages (id, transcript_id, audio_file_id, owner_id, sequence, first_segment_id, last_segment_id,"
        " start_seconds, end_seconds, text) VALUES (?1, ?2, ?2, 1, ?3, ?2, ?2, ?3 * 20, ?3 * 20 + 20,"
        " 'passage ' || ?1)",
        rows,
    )
    vectors = Model.make().draw(len(rows), seed=recordings[0])
    many(
        "INSERT INTO embeddings (id, audio_file_id, transcript_id, embedding_type, space_id, passage_id, start_seconds,"
        " end_seconds, embedding_dimension, model_name, embedding_data)"
        " VALUES (?1, ?2, ?2, 'transcript', 1, ?1, ?3 * 20, ?3 * 20 + 20, length(?4) / 4, 'synthetic', ?4)",
        [(*row, vector.astype("<f4").tobytes()) for row, vector in zip(rows, vectors, strict=True)],
    )
    many(
        "INSERT INTO change_log (table_name, row_id, op) VALUES ('embeddings', ?, 'insert')",
        [(row[0],) for row in rows],
    )


SPACE = Space(1, EmbeddingKind.TRANSCRIPT, "synthetic", DIMENSION, True)
