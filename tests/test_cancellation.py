"""Searches that are no longer wanted: the work ends, not only the wait for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text

from audio_storage_system import AudioStorageSystem, Cancellation
from audio_storage_system.archive import Archive
from audio_storage_system.catalogue import fulltext
from audio_storage_system.clock import NEVER, Deadline
from audio_storage_system.database import Database
from audio_storage_system.errors import Cancelled, DeadlineExceeded, TooLarge
from audio_storage_system.vectors import engine_index
from builders import Talk, fill
from catalogues import open_database
from sounds import silence, wav

SLOW = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
    "postgresql": "SELECT pg_sleep(600)",
}


@contextmanager
def cancelled_after(seconds: float) -> Iterator[Cancellation]:
    cancellation = Cancellation()
    timer = threading.Timer(seconds, cancellation.cancel)
    timer.start()
    yield cancellation
    timer.cancel()


def seconds_of(call: Callable[[], Any], error: type[Exception]) -> float:
    began = time.monotonic()
    with pytest.raises(error):
        call()
    return time.monotonic() - began


@pytest.fixture
def database(home: Path) -> Iterator[Database]:
    with closing(open_database(home)) as database:
        yield database


def read_slowly(database: Database, deadline: Deadline) -> None:
    with database.read(deadline) as connection:
        connection.execute(text(SLOW[database.dialect.name]))


@pytest.mark.parametrize("seconds", [None, 60])
def test_the_statement_that_runs_is_broken_off(database: Database, seconds: float | None) -> None:
    with cancelled_after(0.2) as cancellation:
        deadline = Deadline.after(seconds, cancellation)
        assert seconds_of(lambda: read_slowly(database, deadline), Cancelled) < 60
    with database.read() as connection:
        assert connection.execute(text("SELECT 7")).scalar_one() == 7


def test_so_it_is_in_a_snapshot(database: Database) -> None:
    def inside() -> None:
        with database.snapshot(Deadline.after(60, cancellation)):
            read_slowly(database, NEVER)

    with cancelled_after(0.2) as cancellation:
        assert seconds_of(inside, Cancelled) < 60


def test_nothing_runs_on_the_server_any_more(database: Database) -> None:
    if database.dialect.name != "postgresql":
        pytest.skip("a server does the work there")
    with cancelled_after(0.2) as cancellation:
        seconds_of(lambda: read_slowly(database, Deadline.after(None, cancellation)), Cancelled)
    with database.read() as connection:
        running = text("SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(600)'")
        assert connection.execute(running).scalar_one() == 0


def test_what_is_cancelled_before_the_server_has_the_statement_ends_too(database: Database) -> None:
    """There is nothing to be broken off yet when the server is asked to."""
    cancellation = Cancellation()

    def cancel(*_: Any) -> None:
        if not cancellation.cancelled:
            cancellation.cancel()
            time.sleep(0.5)

    event.listen(database.engine, "before_cursor_execute", cancel)
    assert seconds_of(lambda: read_slowly(database, Deadline.after(None, cancellation)), Cancelled) < 60


def test_what_was_cancelled_before_does_not_begin(database: Database) -> None:
    cancellation = Cancellation()
    cancellation.cancel()
    assert seconds_of(lambda: read_slowly(database, Deadline.after(None, cancellation)), Cancelled) < 1


def test_others_are_left_alone(database: Database) -> None:
    """Connections go from one read to the next: a cancellation must not reach whoever has it now."""
    for _ in range(20):
        cancellation = Cancellation()
        with database.read(Deadline.after(5, cancellation)) as connection:
            connection.execute(text("SELECT 1"))
        cancellation.cancel()
        with database.read() as connection:
            assert connection.execute(text("SELECT 2")).scalar_one() == 2


def test_a_request_to_a_vector_database_is_left() -> None:
    gone = threading.Event()
    with cancelled_after(0.1) as cancellation:
        deadline = Deadline.after(60, cancellation)
        assert seconds_of(lambda: engine_index._by_deadline(lambda: gone.wait(600), deadline), Cancelled) < 60  # type: ignore[arg-type, return-value]
    gone.set()


def test_what_a_request_raises_is_raised() -> None:
    def late() -> Any:
        raise TimeoutError("the driver's own")

    with pytest.raises(TimeoutError):
        engine_index._by_deadline(late, Deadline.after(5))
    with pytest.raises(DeadlineExceeded):
        engine_index._by_deadline(lambda: time.sleep(1), Deadline.after(0.05))  # type: ignore[arg-type, return-value]


def test_a_search_ends_and_so_does_its_work(storage: AudioStorageSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(storage._archive, [Talk(["one two three"])])
    slow_search(monkeypatch, storage._archive)
    with cancelled_after(0.2) as cancellation:
        calls = (
            lambda: storage.search_similar_audio("two", cancellation=cancellation),
            lambda: storage.context_pack("two", cancellation=cancellation),
        )
        assert [seconds_of(call, Cancelled) < 60 for call in calls] == [True, True]


def slow_search(monkeypatch: pytest.MonkeyPatch, archive: Archive) -> None:
    """Have every search by words wait for the database for minutes."""
    found, dialect = fulltext.search, archive.database.dialect.name

    def slow(connection: Any, *given: Any, **further: Any) -> Any:
        connection.execute(text(SLOW[dialect]))
        return found(connection, *given, **further)

    monkeypatch.setattr(fulltext, "search", slow)


def test_an_example_is_not_heard_to_its_end(
    storage: AudioStorageSystem, demo: Path, scripted_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancellation, heard = Cancellation(), []

    def before(window: Any) -> None:
        heard.append(window)
        cancellation.cancel()

    monkeypatch.setattr(scripted_engine, "before", before)
    with (demo / "meeting.flac").open("rb") as file, pytest.raises(Cancelled):
        storage.search_similar_audio(audio=file, cancellation=cancellation)
    assert 1 <= len(heard) <= scripted_engine.capabilities.batch_size


@pytest.mark.parametrize("by", ["audio", "transcript", "combined"])
def test_an_example_may_be_a_stream(storage: AudioStorageSystem, call: Path, scripted_engine: Any, by: Any) -> None:
    storage.add(call)
    with call.open("rb") as file:
        streamed = storage.search_similar_audio(audio=file, by=by)
        assert not file.closed
    assert len(streamed) > 0
    named = storage.search_similar_audio(audio=call, by=by)
    assert [hit.as_dict() for hit in streamed] == [hit.as_dict() for hit in named]


def test_what_is_longer_than_ten_minutes_is_no_example(
    storage: AudioStorageSystem, tmp_path: Path, scripted_engine: Any
) -> None:
    path = tmp_path / "long.wav"
    path.write_bytes(wav(silence(601, 8_000), 8_000))
    with pytest.raises(TooLarge, match="600 s"):
        storage.search_similar_audio(audio=path, by="audio")
