"""The SQLite index: codes, generations, other processes, kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import rule
from sqlalchemy import event, select, text

from audio_storage_system.clock import Deadline
from audio_storage_system.database import Database
from audio_storage_system.database.tables import change_log, index_cursors
from audio_storage_system.errors import ArchiveReadOnly, DeadlineExceeded
from audio_storage_system.records import Space
from audio_storage_system.testing.vectors import (
    NEVER,
    Everything,
    Only,
    VectorArchive,
    VectorIndexContract,
    VectorIndexMachine,
    Vectors,
    draw,
    nearest,
)
from audio_storage_system.vectors import Candidates, IndexState, VectorIndex, searching
from audio_storage_system.vectors.exact import ExactIndex
from audio_storage_system.vectors.following import Sizes
from audio_storage_system.vectors.searching import Precision
from audio_storage_system.vectors.sqlite import SQLiteIndex, prune_change_log
from topics import WIDTH, topical

SMALL = Sizes(tail=16, block=32, lag=200)
EVERYTHING_COMPARED = Precision(confidence=float("inf"), most=10**9)


class TestSQLiteIndex(VectorIndexContract):
    """With the sizes of real archives: three hundred vectors need no codes."""

    def open_index(self, database: Database) -> VectorIndex:
        return SQLiteIndex(database)


class TestSQLiteIndexWithCodes(VectorIndexContract):
    """With sizes so small that nearly everything is in blocks, and everything that passes is compared."""

    def open_index(self, database: Database) -> VectorIndex:
        return SQLiteIndex(database, SMALL, EVERYTHING_COMPARED)


class SQLiteMachine(VectorIndexMachine):
    def open_index(self, database: Database) -> VectorIndex:
        return SQLiteIndex(database, SMALL, EVERYTHING_COMPARED)

    @rule()
    def prune(self) -> None:
        with self.archive.database.write() as connection:
            prune_change_log(connection)

    @rule()
    def lose_the_log(self) -> None:
        with self.archive.database.write() as connection:
            connection.execute(change_log.delete())


TestSQLiteMachine = SQLiteMachine.TestCase
TestSQLiteMachine.settings = settings(
    max_examples=30, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)


ROWS = 16_000


class Large:
    """An archive that needs codes, with its vectors at hand."""

    def __init__(self, folder: Path, offset: float) -> None:
        self.archive = VectorArchive.create(folder / "archive.db")
        self.space = self.archive.space(WIDTH)
        self.vectors = topical(ROWS, seed=1, offset=offset)
        self.ids = np.array(self.archive.add(self.space, self.vectors))
        self.queries = topical(25, seed=2, offset=offset)
        self.index = SQLiteIndex(self.archive.database)
        self.index.catch_up(self.space)

    def found(self, query: Vectors, within: Candidates) -> set[int]:
        matches = self.index.query(self.space, query, limit=10, within=within, deadline=NEVER)
        return {match.embedding_id for match in matches}

    def wanted(self, query: Vectors, passing: np.ndarray) -> set[int]:
        similarities = self.vectors[passing] @ query
        return set(self.ids[passing][np.argsort(-similarities)[:10]].tolist())

    def recall(self, passing: np.ndarray) -> float:
        """Of the ten nearest that pass, how many are found, over all queries."""
        within = Only(self.ids[passing])
        hits = [len(self.found(query, within) & self.wanted(query, passing)) for query in self.queries]
        return sum(hits) / (10 * len(hits))


@pytest.fixture(scope="module", params=[0.0, 2.0], ids=["clustered", "offset"])
def large(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Large]:
    large = Large(tmp_path_factory.mktemp("large"), request.param)
    yield large
    large.archive.database.close()


def test_almost_all_of_the_nearest_are_found(large: Large) -> None:
    assert large.recall(np.arange(ROWS)) >= 0.98


@pytest.mark.parametrize("share", [0.5, 0.1, 0.02])
def test_broad_filters_find_almost_all_that_filtering_first_would(large: Large, share: float) -> None:
    passing = np.flatnonzero(np.random.default_rng(3).random(ROWS) < share)
    assert large.recall(passing) >= 0.98


@pytest.mark.parametrize("count", [150, 20, 3, 1])
def test_narrow_filters_find_exactly_what_filtering_first_would(large: Large, count: int) -> None:
    passing = np.sort(np.random.default_rng(4).choice(ROWS, size=count, replace=False))
    assert large.recall(passing) == min(count, 10) / 10


@pytest.mark.parametrize("count", [1, 5, 150, 2000])
def test_filters_against_the_query_find_what_filtering_first_would(large: Large, count: int) -> None:
    recalls = []
    for query in large.queries[:10]:
        passing = np.sort(np.argsort(large.vectors @ query)[:count])
        found, wanted = large.found(query, Only(large.ids[passing])), large.wanted(query, passing)
        assert len(found) == len(wanted)
        recalls.append(len(found & wanted) / len(wanted))
    assert sum(recalls) / len(recalls) >= (1 if count <= 150 else 0.95)


def test_a_narrow_filter_is_not_asked_about_the_whole_archive(large: Large) -> None:
    within = Only(large.ids[5:8])
    large.found(large.queries[0], within)
    assert within.asked < 300


def test_a_large_page_is_filled_without_asking_about_too_many_at_once(large: Large) -> None:
    class Counting(Only):
        most = 0

        def admit(self, ids: Sequence[int]) -> set[int]:
            self.most = max(self.most, len(ids))
            return super().admit(ids)

    within = Counting(large.ids[::2].tolist())
    matches = large.index.query(large.space, large.queries[0], limit=7000, within=within, deadline=NEVER)
    assert len(matches) == 7000
    assert within.most <= 32_766 - 100


def test_after_asking_in_vain_all_that_pass_are_listed(large: Large, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "PATIENCE", 2000)
    monkeypatch.setattr(searching, "LISTING_GAIN", 0)
    query = large.queries[0]
    passing = np.sort(np.argsort(large.vectors @ query)[: ROWS // 20])
    within = Only(large.ids[passing])
    assert large.found(query, within) <= set(large.ids[passing].tolist())
    assert within.asked < ROWS / 3


def test_what_is_deleted_during_a_search_is_left_out(archive: VectorArchive, space: Space) -> None:
    rows = draw(300)
    vectors = dict(zip(archive.add(space, rows), rows, strict=True))
    index = small_index(archive)
    index.catch_up(space)
    query = draw(1, seed=13)[0]
    best = [match.embedding_id for match in nearest(vectors, query, 20)]

    class Deleting(Everything):
        def admit(self, ids: Sequence[int]) -> set[int]:
            archive.delete(best)
            return set(ids)

    found = index.query(space, query, limit=10, within=Deleting(), deadline=NEVER)
    left = {i: v for i, v in vectors.items() if i not in best}
    assert [m.embedding_id for m in found] == [m.embedding_id for m in nearest(left, query, 10)]


def test_several_following_at_once_code_everything_once(archive: VectorArchive, space: Space) -> None:
    ids = archive.add(space, draw(1500))
    with ThreadPoolExecutor(4) as pool:
        states = list(pool.map(lambda _: small_index(archive).catch_up(space), range(4)))
    assert states == [IndexState(1500, 1500)] * 4
    with archive.database.read() as connection:
        assert connection.execute(text("SELECT sum(size) FROM code_blocks")).scalar() == 1500
    assert codes_of(archive) == set(ids)


def test_a_deadline_stops_a_search_that_is_under_way(large: Large) -> None:
    deadline, late = Deadline.after(0.12), list[bool]()

    class Slow(Everything):
        def admit(self, ids: object) -> set[int]:
            late.append(deadline.expired)
            time.sleep(0.05)
            return set()

    with pytest.raises(DeadlineExceeded):
        large.index.query(large.space, large.queries[0], limit=10, within=Slow(), deadline=deadline)
    assert late.count(True) <= 1


def codes_of(archive: VectorArchive) -> set[int]:
    """Every embedding that has a code."""
    with archive.database.read() as connection:
        blocks = connection.execute(text("SELECT embedding_ids FROM code_blocks")).scalars().all()
    return {int(i) for block in blocks for i in np.frombuffer(block, "<i8")}


def has_codes(archive: VectorArchive) -> bool:
    with archive.database.read() as connection:
        return bool(connection.execute(text("SELECT count(*) FROM sqlite_master WHERE name LIKE 'code_%'")).scalar())


@pytest.fixture
def archive(tmp_path: Path) -> VectorArchive:
    return VectorArchive.create(tmp_path / "archive.db")


@pytest.fixture
def space(archive: VectorArchive) -> Space:
    return archive.space()


def small_index(archive: VectorArchive) -> SQLiteIndex:
    return SQLiteIndex(archive.database, SMALL, EVERYTHING_COMPARED)


def test_a_small_space_gets_no_codes(archive: VectorArchive, space: Space) -> None:
    archive.add(space, draw(500))
    SQLiteIndex(archive.database).catch_up(space)
    assert not has_codes(archive)


def test_the_codes_of_deleted_embeddings_go(archive: VectorArchive, space: Space) -> None:
    ids = archive.add(space, draw(200))
    index = small_index(archive)
    index.catch_up(space)
    assert codes_of(archive) == set(ids)
    archive.delete(ids[50:90])
    index.catch_up(space)
    assert codes_of(archive) == set(ids) - set(ids[50:90])


def test_within_a_snapshot_it_writes_nothing_and_finds_all_the_same(archive: VectorArchive, space: Space) -> None:
    vectors, index = draw(300), small_index(archive)
    ids = archive.add(space, vectors[:200])
    with archive.database.snapshot():
        before = index.query(space, vectors[0], limit=5, within=Everything(), deadline=NEVER)
        with ThreadPoolExecutor(1) as pool:  # goes on meanwhile, and sees what comes after
            later = pool.submit(archive.add, space, vectors[200:]).result()
            own = pool.submit(index.query, space, vectors[250], limit=1, within=Everything(), deadline=NEVER).result()
        again = index.query(space, vectors[0], limit=5, within=Everything(), deadline=NEVER)
    assert own[0].embedding_id == later[50]
    assert before == again and {match.embedding_id for match in again} <= set(ids)
    now = index.query(space, vectors[250], limit=1, within=Everything(), deadline=NEVER)
    assert now == own and has_codes(archive)


def test_a_space_that_grew_gets_a_new_mean(archive: VectorArchive) -> None:
    space = archive.space(WIDTH)
    index = SQLiteIndex(archive.database, Sizes(tail=200, block=1000))
    archive.add(space, topical(1000, seed=1, offset=0))
    index.catch_up(space)
    vectors = topical(9000, seed=2, offset=2)
    ids = np.array(archive.add(space, vectors))
    index.catch_up(space)
    hits = 0
    for query in topical(20, seed=3, offset=2):
        found = index.query(space, query, limit=10, within=Only(ids.tolist()), deadline=NEVER)
        hits += len({match.embedding_id for match in found} & set(ids[np.argsort(-(vectors @ query))[:10]].tolist()))
    assert hits / 200 >= 0.98
    with archive.database.read() as connection:
        trained_on = connection.execute(text("SELECT trained_on FROM code_generations")).scalars().all()
    assert trained_on == [10_000]


def test_an_index_older_than_the_log_is_made_anew(archive: VectorArchive, space: Space) -> None:
    ids = archive.add(space, draw(200))
    index = small_index(archive)
    index.catch_up(space)
    archive.delete(ids[:70])
    with archive.database.write() as connection:
        connection.execute(change_log.delete())
    assert small_index(archive).catch_up(space) == IndexState(130, 130)
    assert codes_of(archive) == set(ids[70:])


def log_length(archive: VectorArchive) -> int:
    with archive.database.read() as connection:
        return len(connection.execute(select(change_log.c.id)).all())


def test_the_log_is_pruned_below_the_slowest_cursor_only(archive: VectorArchive, space: Space) -> None:
    other = archive.space(model="other")
    ids = [archive.add(each, draw(100)) for each in (space, other)]
    with archive.database.write() as connection:
        assert prune_change_log(connection) == 0
    index = small_index(archive)
    index.catch_up(space)
    archive.delete(ids[0][:5])
    index.catch_up(other)
    with archive.database.write() as connection:
        assert prune_change_log(connection) == 200
    assert log_length(archive) == 5
    index.catch_up(space)
    assert codes_of(archive) == {*ids[0][5:], *ids[1]}


def test_a_replaced_generation_leaves_nothing_behind(archive: VectorArchive, space: Space) -> None:
    ids = archive.add(space, draw(200))
    index = small_index(archive)
    index.catch_up(space)
    for _ in range(3):
        index.rebuild(space)
    with archive.database.read() as connection:
        assert connection.execute(text("SELECT count(*) FROM code_generations")).scalar() == 1
        assert len(connection.execute(select(index_cursors)).all()) == 1
        assert connection.execute(text("SELECT sum(size) FROM code_blocks")).scalar() == len(ids)


def test_an_archive_that_cannot_be_written_is_searched_exactly(archive: VectorArchive, space: Space) -> None:
    rows = draw(300)
    vectors = dict(zip(archive.add(space, rows), rows, strict=True))
    archive.database.close()

    @event.listens_for(archive.database.engine, "connect")
    def forbid(connection: object, record: object) -> None:
        connection.execute("PRAGMA query_only = ON")  # type: ignore[attr-defined]

    index = small_index(archive)
    query = draw(1, seed=9)[0]
    found = index.query(space, query, limit=10, within=Everything(), deadline=NEVER)
    assert [m.embedding_id for m in found] == [m.embedding_id for m in nearest(vectors, query, 10)]
    with pytest.raises(ArchiveReadOnly):
        index.catch_up(space)


def test_searches_go_on_while_the_index_is_made_anew(archive: VectorArchive, space: Space) -> None:
    rows = draw(600)
    vectors = dict(zip(archive.add(space, rows), rows, strict=True))
    index, other = small_index(archive), small_index(archive)
    index.catch_up(space)
    stop = threading.Event()

    def rebuild() -> None:
        while not stop.is_set():
            other.rebuild(space)

    thread = threading.Thread(target=rebuild)
    thread.start()
    try:
        for query in draw(60, seed=10):
            found = index.query(space, query, limit=10, within=Everything(), deadline=NEVER)
            assert [m.embedding_id for m in found] == [m.embedding_id for m in nearest(vectors, query, 10)]
    finally:
        stop.set()
        thread.join()


WORKER = """
import sys
from pathlib import Path
from audio_storage_system.database import Database
from audio_storage_system.records import EmbeddingKind, Space
from audio_storage_system.testing.vectors import VectorArchive, draw
from audio_storage_system.vectors.following import Sizes
from audio_storage_system.vectors.searching import Precision
from audio_storage_system.vectors.sqlite import SQLiteIndex

archive = VectorArchive(Database.open(Path(sys.argv[1])))
space = Space(1, EmbeddingKind.AUDIO, "test", 24, False)
index = SQLiteIndex(archive.database, Sizes(tail=16, block=32, lag=200))
"""


def worker(archive: VectorArchive, code: str) -> list[str]:
    """A command line that runs `code` in another process, with `archive`, `space` and `index` at hand."""
    return [sys.executable, "-c", WORKER + code, archive.database.place]


def test_what_another_process_adds_and_deletes_shows_at_the_next_query(archive: VectorArchive, space: Space) -> None:
    rows = draw(200)
    vectors = dict(zip(archive.add(space, rows), rows, strict=True))
    index = small_index(archive)
    index.catch_up(space)
    query = draw(1, seed=11)[0]
    best = [m.embedding_id for m in index.query(space, query, limit=5, within=Everything(), deadline=NEVER)]
    change = f"archive.delete({best}); archive.add(space, draw(100, seed=12)); index.catch_up(space)"
    subprocess.run(worker(archive, change), check=True)
    added = draw(100, seed=12)
    vectors = {i: v for i, v in vectors.items() if i not in best}
    vectors.update(zip(range(201, 301), added, strict=True))
    found = index.query(space, query, limit=10, within=Everything(), deadline=NEVER)
    assert [m.embedding_id for m in found] == [m.embedding_id for m in nearest(vectors, query, 10)]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no kill -9")
def test_being_killed_while_following_loses_nothing(archive: VectorArchive, space: Space) -> None:
    ids = set(archive.add(space, draw(3000)))
    index = small_index(archive)
    index.catch_up(space)
    for seed in range(3):
        churn = f"""
print("started", flush=True)
while True:
    index.rebuild(space)
    archive.delete(archive.add(space, draw(50, seed={seed}))[::2])
    index.catch_up(space)
"""
        with subprocess.Popen(worker(archive, churn), stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.15 + 0.1 * seed)
            process.send_signal(signal.SIGKILL)
        query = draw(1, seed=seed)[0]
        found, wanted = (
            [m.embedding_id for m in each.query(space, query, limit=20, within=Everything(), deadline=NEVER)]
            for each in (index, ExactIndex(archive.database))
        )
        assert found == wanted
    state = index.catch_up(space)
    assert state.indexed == state.total
    assert ids <= codes_of(archive)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_searches_although_a_thread_of_its_parent_was_searching(archive: VectorArchive, space: Space) -> None:
    archive.add(space, draw(100))
    index = small_index(archive)
    with index._viewing:  # as a search in another thread would
        child = os.fork()
        if child == 0:
            found = index.query(space, draw(1)[0], limit=5, within=Everything(), deadline=Deadline.after(20))
            os._exit(0 if len(found) == 5 else 1)
    assert os.waitpid(child, 0)[1] == 0
