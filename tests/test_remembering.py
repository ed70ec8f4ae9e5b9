"""What is kept in memory of a database: never older than the database itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from audio_storage_system.archive import Archive, open_archive
from audio_storage_system.catalogue import fulltext, passages, placement
from audio_storage_system.catalogue.bm25 import best
from audio_storage_system.catalogue.posting_cache import cache_of
from audio_storage_system.clock import Deadline
from audio_storage_system.database import Database
from audio_storage_system.database.remembering import remembered
from audio_storage_system.records import Passage
from audio_storage_system.search import Filter, Query, run
from builders import Talk, fill


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    opened = open_archive(tmp_path / "archive", create=True)
    yield opened
    opened.close()


def count(connection: Connection) -> int:
    query = text("SELECT count(*) FROM metadata")
    return remembered(connection, "count", lambda: connection.execute(query).scalar_one())


def test_what_is_remembered_is_read_again_after_any_change(archive: Archive) -> None:
    fill(archive, [Talk(["the budget"])])
    other = Database.open(archive.home / "audio_storage.db")  # as another process would
    insert = "INSERT INTO metadata (audio_file_id, key, value, value_type) VALUES (1, :key, 'x', 'text')"
    for number, database in enumerate([archive.database, other, archive.database]):
        with archive.database.read() as connection:
            assert count(connection) == number
        with database.write() as connection:
            connection.execute(text(insert), {"key": str(number)})
            assert count(connection) == number + 1
    with archive.database.read() as connection:
        assert count(connection) == 3
    with pytest.raises(ZeroDivisionError), archive.database.write() as connection:
        connection.execute(text(insert), {"key": "rolled back"})
        assert count(connection) == 4
        raise ZeroDivisionError
    with archive.database.read() as connection:
        assert count(connection) == 3
    other.close()


def test_a_filter_follows_what_another_process_changes(archive: Archive) -> None:
    first, second = fill(archive, [Talk(["the budget"], {"user": "anna"}), Talk(["the budget"], {"user": "john"})])
    other = Database.open(archive.home / "audio_storage.db")

    def found() -> list[int]:
        query = Query("budget", mode="keyword", filter=Filter({"user": "anna"}))
        return [hit.audio_id for hit in run(archive.database, archive.index, query, Deadline.after(None))]

    assert found() == [first]
    with other.write() as connection:
        connection.execute(text("UPDATE metadata SET value = 'anna' WHERE audio_file_id = 2"))
    assert found() == [first, second]
    [third] = fill(archive, [Talk(["the budget"], {"user": "anna"})])
    assert found() == [first, second, third]
    other.close()


def test_long_posting_lists_are_kept_and_follow_every_change(archive: Archive) -> None:
    fill(archive, [Talk(["zebra"] * 600)])

    def found() -> int:
        with archive.database.read() as connection:
            return len(fulltext.search(connection, "zebra", limit=10_000, admit=set))

    assert [found(), found()] == [600, 600]
    assert len(cache_of(archive.database.engine)._lists[1]) == 1
    fill(archive, [Talk(["zebra"])])
    assert found() == 601
    with archive.database.write() as connection:
        fulltext.remove(connection, [1, 2])
    assert found() == 599
    with archive.database.write() as connection:
        fulltext.rebuild(connection)
    assert found() == 601


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.integers(0, 30))
def test_passages_written_in_turns_are_placed_with_their_transcript(
    tmp_path_factory: pytest.TempPathFactory, turns: list[int], early: int
) -> None:
    archive = open_archive(tmp_path_factory.mktemp("a") / "archive", create=True)
    fill(archive, [Talk([f"first of {n}"]) for n in range(4)])
    owner = {number: number + 1 for number in range(4)}
    belongs = {number + 1: owner[number] for number in range(4)}
    for position, number in enumerate(turns):
        if position == early:  # known already; what follows comes later
            with archive.database.read() as connection:
                placement.of_passages(connection)
        with archive.database.write() as connection:
            row = Passage(position + 1, owner[number], owner[number], 0, 1, "more")
            more = passages.add(
                connection, [row], transcript_id=owner[number], audio_id=owner[number], owner_id=1, language="en"
            )
        belongs[more[0]] = owner[number]
    with archive.database.read() as connection:
        placed = placement.of_passages(connection)
    for wanted in range(1, 5):
        chosen = placed.runs(np.array([wanted]), None, placement.NO_IDS)
        expected = sorted(id_ for id_, of in belongs.items() if of == wanted)
        listed = placed.listed(chosen, 1000)
        assert listed is not None and listed.tolist() == expected
        ids = np.arange(0, len(belongs) + 3)
        assert ids[placed.members(chosen, ids)].tolist() == expected
        assert placed.listed(chosen, len(expected) - 1) is None
    archive.close()


@given(st.lists(st.sampled_from([0.25, 0.5, 1.0, 3.0]) | st.floats(0.01, 9), min_size=1), st.integers(1, 50))
def test_the_best_are_those_of_sorting_everything(scores: list[float], wanted: int) -> None:
    found = best(np.array(scores), wanted).tolist()
    assert found == sorted(range(len(scores)), key=lambda n: (-scores[n], n))[:wanted]
