"""A search is one transaction, and has the same hits whichever way a filter is answered."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import event, text

from audio_storage_system.archive import Archive, open_archive
from audio_storage_system.catalogue import fulltext
from audio_storage_system.catalogue.query_text import Word
from audio_storage_system.clock import Deadline
from audio_storage_system.database import Database
from audio_storage_system.errors import DeadlineExceeded, StorageFailed
from audio_storage_system.search import Filter, Query, run
from audio_storage_system.vectors import EngineIndex, PgvectorEngine
from audio_storage_system.vectors.exact import ExactIndex
from builders import Talk, fill, text_space, unit

DIMENSION = 24
NEVER = Deadline.after(None)
COUNT = text("SELECT count(*) FROM audio_files")
# What a search asks on an archive that nobody is changing: it was 28, in nine transactions, when each part of it read
# by itself. A new one has to be worth half a millisecond to every caller.
MOST_STATEMENTS = 16


on_a_server = pytest.mark.parametrize("archive", ["postgresql"], indirect=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Archive]:
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else None
    with closing(open_archive(tmp_path, create=True, database_url=url)) as opened:
        yield opened


@pytest.fixture
def seen(archive: Archive) -> Iterator[list[str]]:
    """Each statement, and `BEGIN` for each transaction, that the archive's database was sent."""
    said: list[str] = []

    def statement(_connection: Any, _cursor: Any, sent: str, *_: Any) -> None:
        if sent != "BEGIN":  # told once, below
            said.append(sent)

    def begin(_connection: Any) -> None:
        said.append("BEGIN")

    engine = archive.database.engine
    event.listen(engine, "before_cursor_execute", statement)
    event.listen(engine, "begin", begin)
    yield said
    event.remove(engine, "before_cursor_execute", statement)
    event.remove(engine, "begin", begin)


def count(database: Database) -> int:
    with database.read() as connection:
        return int(connection.execute(COUNT).scalar_one())


@pytest.mark.parametrize("wanted", [Filter(), Filter({"part": {"lt": 5}}), Filter({"part": 3})], ids=str)
def test_a_search_is_one_transaction_of_few_statements(archive: Archive, seen: list[str], wanted: Filter) -> None:
    space, rng = text_space(archive, DIMENSION), np.random.default_rng(1)
    vectors = [unit(rng, DIMENSION) for _ in range(20)]
    fill(archive, [Talk([f"the budget {i}"], {"part": i % 10}, vectors=[v]) for i, v in enumerate(vectors)], space)
    archive.follow()
    query = Query("the budget", vectors[3], space, filter=wanted)
    first = run(archive.database, archive.index, query, NEVER)
    seen.clear()
    again = run(archive.database, archive.index, query, NEVER)
    assert again.hits == first.hits and again.hits
    assert seen.count("BEGIN") == 1
    assert len(seen) - 1 <= MOST_STATEMENTS, seen


@pytest.mark.parametrize("part", [{"lt": 50}, {"lt": 20}, {"lt": 8}, 3], ids=str)
@on_a_server
def test_a_filter_of_any_share_finds_what_comparing_everything_finds(archive: Archive, part: Any) -> None:
    space, rng = text_space(archive, DIMENSION), np.random.default_rng(2)
    vectors = [unit(rng, DIMENSION) for _ in range(400)]
    fill(archive, [Talk([f"number {i}"], {"part": i % 100}, vectors=[v]) for i, v in enumerate(vectors)], space)
    index = EngineIndex(archive.database, PgvectorEngine(archive.database), archive.marker.archive_id, few=-1)
    index.catch_up(space)
    late = [Talk(["late"], {"part": 3}, vectors=[unit(rng, DIMENSION)]) for _ in range(3)]
    fill(archive, late, space)  # not in the index yet
    for seed in range(5):
        wanted = unit(np.random.default_rng(seed), DIMENSION)
        query = Query("", wanted, space, "semantic", Filter({"part": part}), limit=5)
        found = run(archive.database, index, query, NEVER)
        true = run(archive.database, ExactIndex(archive.database), query, NEVER)
        assert [hit.passage_id for hit in found] == [hit.passage_id for hit in true]


def test_a_snapshot_is_one_state_for_its_thread_only(archive: Archive) -> None:
    database, others = archive.database, []
    with database.snapshot():
        assert count(database) == 0
        fill(archive, [Talk(["the budget"])])
        assert count(database) == 0
        thread = threading.Thread(target=lambda: others.append(count(database)))
        thread.start()
        thread.join()
        with database.snapshot():
            assert count(database) == 0
    assert others == [1] and count(database) == 1


@on_a_server
def test_an_attempt_that_fails_leaves_the_snapshot_as_it_was(archive: Archive) -> None:
    database = archive.database
    with database.snapshot(Deadline.after(30)):
        with pytest.raises(StorageFailed), database.attempt() as connection:
            connection.execute(text("SELECT * FROM no_such_table"))
        with pytest.raises(DeadlineExceeded), database.attempt(Deadline.after(0.1)) as connection:
            connection.execute(text("SELECT pg_sleep(5)"))
        with database.read() as connection:
            limit = connection.execute(text("SHOW statement_timeout")).scalar_one()
        assert count(database) == 0
    assert limit not in ("0", "100ms")


@on_a_server
def test_the_earlier_deadline_of_a_read_in_a_snapshot_holds_until_it_ends(archive: Archive) -> None:
    def limit() -> str:
        with archive.database.read() as connection:
            return str(connection.execute(text("SHOW statement_timeout")).scalar_one())

    with archive.database.snapshot():
        assert limit() == "0"
        with archive.database.read(Deadline.after(20)):
            assert limit() != "0"
        assert limit() == "0"
    with archive.database.snapshot(Deadline.after(0.2)), pytest.raises(DeadlineExceeded):
        with archive.database.read(Deadline.after(60)) as connection:
            connection.execute(text("SELECT pg_sleep(5)"))


@on_a_server
def test_a_search_whose_vector_table_is_broken_compares_everything(archive: Archive) -> None:
    space, rng = text_space(archive, DIMENSION), np.random.default_rng(4)
    vectors = [unit(rng, DIMENSION) for _ in range(10)]
    fill(archive, [Talk([f"number {i}"], vectors=[v]) for i, v in enumerate(vectors)], space)
    index = EngineIndex(archive.database, PgvectorEngine(archive.database), archive.marker.archive_id, few=-1)
    index.catch_up(space)
    with archive.database.write() as connection:
        connection.execute(text("ALTER TABLE passage_search DROP COLUMN vector"))
    query = Query("number", vectors[7], space)
    assert run(archive.database, index, query, NEVER)[0].passage_id == 8


@on_a_server
def test_a_frequent_word_is_not_counted_but_estimated(archive: Archive) -> None:
    fill(archive, [Talk([f"the budget {i}"]) for i in range(300)])
    with archive.database.write() as connection:
        connection.execute(text("ANALYZE passage_search"))
    with archive.database.read() as connection:
        engine = fulltext.engine_of(connection)
        assert engine.about(connection, Word(("the",)), most=50) == pytest.approx(300, rel=0.5)
        assert engine.about(connection, Word(("the",)), most=200) == 300
        assert engine.about(connection, Word(("elephant",)), most=50) == 0
