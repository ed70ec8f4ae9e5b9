"""`EngineIndex` over an engine in memory: what holds whatever the vector database is."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from audio_storage_system.clock import Deadline
from audio_storage_system.database import Database
from audio_storage_system.database.tables import change_log
from audio_storage_system.errors import DeadlineExceeded, InvalidSetting, VectorIndexMismatch, VectorIndexUnavailable
from audio_storage_system.testing.engines import EngineIndexContract, MemoryEngine, Store, VectorEngineContract
from audio_storage_system.testing.vectors import (
    NEVER,
    Everything,
    VectorArchive,
    VectorIndexMachine,
    Vectors,
    draw,
    nearest,
)
from audio_storage_system.vectors import (
    Collection,
    EngineIndex,
    Found,
    IndexState,
    Points,
    Scope,
    VectorEngine,
    VectorIndex,
    engine_index,
    exact,
    filling,
    log,
    open_vector_index,
)

STORES: dict[Path, Store] = {}


def open_memory_engine(folder: Path) -> MemoryEngine:
    return MemoryEngine(STORES.setdefault(folder, Store()))


class TestMemoryEngine(VectorEngineContract):
    def open_engine(self, folder: Path) -> VectorEngine:
        return open_memory_engine(folder)


class TestMemoryIndex(EngineIndexContract):
    def open_engine(self, folder: Path) -> VectorEngine:
        return open_memory_engine(folder)


class MemoryMachine(VectorIndexMachine):
    def open_index(self, database: Database) -> VectorIndex:
        return EngineIndex(database, open_memory_engine(Path(database.place)), "archive", few=-1, step_rows=16)


TestMemoryMachine = MemoryMachine.TestCase
TestMemoryMachine.settings = settings(
    max_examples=20, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[VectorArchive]:
    archive = VectorArchive.create(tmp_path / "archive.db")
    yield archive
    archive.database.close()


def test_an_outage_is_said_once_and_answers_stay_right(
    archive: VectorArchive, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_index, "PAUSE_SECONDS", 0)
    store, space, rows = Store(), archive.space(), draw(100)
    index = EngineIndex(archive.database, MemoryEngine(store), "archive", few=-1)
    vectors = dict(zip(archive.add(space, rows), rows, strict=True))
    index.catch_up(space)
    store.down = "nobody answers at port 6333"
    gone = list(vectors)[:10]
    archive.delete(gone)
    kept = {id_: row for id_, row in vectors.items() if id_ not in gone}
    for query in draw(3, seed=1):
        found = index.query(space, query, limit=5, within=Everything(), deadline=NEVER)
        assert [m.embedding_id for m in found] == [m.embedding_id for m in nearest(kept, query, 5)]
    index.catch_up(space)
    said = [record.message for record in caplog.records if "port 6333" in record.message]
    wanted = "The vector database at memory: cannot be used: nobody answers at port 6333."
    assert said == [f"{wanted} Until it answers, searches compare every vector."]
    with pytest.raises(VectorIndexUnavailable):
        index.rebuild(space)
    store.down = ""
    index.catch_up(space)
    assert [len(points) for points in store.points.values()] == [90]


def test_when_the_deadline_is_too_near_for_comparing_all_the_database_is_blamed(
    archive: VectorArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact, "BATCH_ROWS", 10)
    store, space = Store(), archive.space()
    index = EngineIndex(archive.database, MemoryEngine(store), "archive", few=-1)
    archive.add(space, draw(50))
    index.catch_up(space)
    store.down = "nobody answers"

    deadline = Deadline.after(60)

    class Slow(Everything):
        def admit(self, ids: Sequence[int]) -> set[int]:
            object.__setattr__(deadline, "at", time.monotonic())  # so long does it take
            return set(ids)

    with pytest.raises(DeadlineExceeded, match=r"nobody answers.*Check the database"):
        index.query(space, draw(1)[0], limit=5, within=Slow(), deadline=deadline)


def test_a_database_that_hangs_does_not_hold_a_search_beyond_its_deadline(archive: VectorArchive) -> None:
    space = archive.space()
    archive.add(space, draw(50))

    over = threading.Event()

    class Hanging(MemoryEngine):
        def search(self, collection: Collection, vector: Vectors, limit: int, scope: Scope) -> Found:
            over.wait(20)
            return super().search(collection, vector, limit, scope)

    index = EngineIndex(archive.database, Hanging(Store()), "archive", few=-1)
    index.catch_up(space)
    start = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        index.query(space, draw(1)[0], limit=5, within=Everything(), deadline=Deadline.after(0.1))
    assert time.monotonic() - start < 10
    over.set()


def test_a_vector_put_in_again_by_a_slow_process_after_its_deletion_is_taken_out(archive: VectorArchive) -> None:
    store, space = Store(), archive.space()
    ids = archive.add(space, draw(20))
    fast = EngineIndex(archive.database, MemoryEngine(store), "archive")
    fast.catch_up(space)
    ids += archive.add(space, draw(20, seed=1))

    class Overtaken(MemoryEngine):
        def upsert(self, collection: Collection, points: Points) -> None:
            archive.delete(ids[-5:])
            fast.catch_up(space)
            super().upsert(collection, points)

    EngineIndex(archive.database, Overtaken(store), "archive").catch_up(space)
    assert [sorted(points) for points in store.points.values()] == [ids[:-5]]


def test_searches_use_the_old_collection_until_the_new_one_is_full(archive: VectorArchive) -> None:
    store, space = Store(), archive.space()
    archive.add(space, draw(100))
    index = EngineIndex(archive.database, MemoryEngine(store), "archive", few=-1, step_rows=10)
    index.catch_up(space)
    lags = []

    class Watched(MemoryEngine):
        def upsert(self, collection: Collection, points: Points) -> None:
            lags.append(index.lag(space))
            super().upsert(collection, points)

    EngineIndex(archive.database, Watched(store), "archive", step_rows=10).rebuild(space)
    assert set(lags) == {None}
    assert len(lags) == 10
    assert len(store.collections) == 1


def test_of_many_vectors_not_every_follower_counts_them_all(
    archive: VectorArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filling, "COUNTED_ALWAYS", 99)
    counted: list[str] = []

    class Watched(MemoryEngine):
        def count(self, collection: Collection) -> int:
            counted.append(collection.name)
            return super().count(collection)

    store, space = Store(), archive.space()
    index = EngineIndex(archive.database, Watched(store), "archive")
    for _ in range(3):  # while there are few, each does
        archive.add(space, draw(33))
        index.follow(space)
    assert len(counted) == 3
    archive.add(space, draw(33))
    for _ in range(3):
        index.follow(space)
    assert len(counted) == 4
    assert index.state(space) == IndexState(132, 132)
    next(iter(store.points.values())).popitem()
    monkeypatch.setattr(filling, "COUNTED_EVERY_SECONDS", 0.0)
    index.follow(space)
    assert len(next(iter(store.points.values()))) == 132


def test_a_fill_that_is_cut_short_goes_on_where_it_was(archive: VectorArchive) -> None:
    store, space = Store(), archive.space()
    archive.add(space, draw(100))
    put: list[int] = []

    class Failing(MemoryEngine):
        def upsert(self, collection: Collection, points: Points) -> None:
            if len(put) == 3:
                self.store.down = "pulled the plug"
            super().upsert(collection, points)
            put.append(len(points))

    index = EngineIndex(archive.database, Failing(store), "archive", step_rows=10)
    assert index.catch_up(space) == IndexState(30, 100)
    store.down, put[:] = "", [0] * 5
    assert index.catch_up(space) == IndexState(100, 100)
    assert len(put) == 5 + 7


def test_a_collection_of_another_model_is_an_error_that_says_so(archive: VectorArchive) -> None:
    store, space = Store(), archive.space()
    archive.add(space, draw(10))
    index = EngineIndex(archive.database, MemoryEngine(store), "archive")
    index.catch_up(space)
    (name,) = store.collections
    store.collections[name] = Collection(name, "another", 24)
    with pytest.raises(VectorIndexMismatch, match="another"):
        index.catch_up(space)


def test_an_open_transaction_is_not_overtaken_by_those_that_commit(archive: VectorArchive) -> None:
    """On SQLite writers wait for one another, so a reader sees all or nothing of a late one."""
    store, space = Store(), archive.space()
    index = EngineIndex(archive.database, MemoryEngine(store), "archive")
    rows = draw(30)
    archive.add(space, rows[:10])
    index.catch_up(space)
    with archive.database.write() as connection:
        connection.execute(change_log.insert().values(table_name="embeddings", row_id=0, op="delete"))
        with ThreadPoolExecutor(1) as pool:
            late = pool.submit(archive.add, space, rows[10:20])
            with archive.database.read() as reader:
                before = log.end(reader)
            assert not late.done()
            reading = archive.database
            with reading.read() as reader:
                assert log.changed(reader, before, 10).embedding_ids == []
            connection.commit()
            late.result(30)
    assert index.catch_up(space) == IndexState(20, 20)
    assert [len(points) for points in store.points.values()] == [20]


@pytest.mark.parametrize(
    "url", ["qdrant+http://user:secret@host:6333", "qdrant+http://host/secret", "chroma+http://:8000", "qdrant:"]
)
def test_an_address_that_cannot_be_used_is_refused_without_telling_a_secret(
    archive: VectorArchive, tmp_path: Path, url: str
) -> None:
    pytest.importorskip("qdrant_client")
    pytest.importorskip("chromadb")
    with pytest.raises(InvalidSetting) as refused:
        open_vector_index(url, archive.database, "archive", tmp_path)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("scheme", ["qdrant+http", "chroma+http"])
def test_a_server_that_is_not_there_is_found_out_within_seconds(
    archive: VectorArchive, tmp_path: Path, scheme: str, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip({"qdrant+http": "qdrant_client"}.get(scheme, "chromadb"))
    space, rows = archive.space(), draw(20)
    ids = archive.add(space, rows)
    url = f"{scheme}://127.0.0.1:9"
    open_vector_index(url, archive.database, "archive", tmp_path).close()  # which imports the client
    start = time.monotonic()
    index = open_vector_index(url, archive.database, "archive", tmp_path)
    assert index.catch_up(space) == IndexState(0, 20)
    found = index.query(space, rows[3], limit=1, within=Everything(), deadline=NEVER)
    assert (found[0].embedding_id, time.monotonic() - start < 10) == (ids[3], True)
    assert "check that it runs" in caplog.text
    index.close()
