"""Searching on a streaming replica: a real primary and a real standby."""

from __future__ import annotations

import logging
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from audio_storage_system import AudioStorageSystem
from postgres_server import Programs, Server, reserved_port


@pytest.fixture(scope="module")
def replica(postgres_server: Server) -> Iterator[Server]:
    """A streaming replica of the tests' own server."""
    if postgres_server.folder is None:
        pytest.skip("a replica is made of the server that the tests start, not of AUDIO_STORAGE_TEST_POSTGRES_URL")
    programs, password = Programs.found(), secrets.token_hex(8)
    postgres_server.run(f"CREATE ROLE copier REPLICATION LOGIN PASSWORD '{password}'")
    hba = postgres_server.folder / "pg_hba.conf"
    hba.write_text(f"{hba.read_text()}\nhost replication copier 127.0.0.1/32 scram-sha-256\n")
    postgres_server.run("SELECT pg_reload_conf()")
    folder = programs.make_folder()
    data = folder / "data"
    try:
        address = f"host=127.0.0.1 port={postgres_server.port} user=copier password={password}"
        programs.run("pg_basebackup", "-D", str(data), "-R", "-X", "stream", "-c", "fast", "-d", address)
        with programs.running(data) as port:
            yield Server("127.0.0.1", port, postgres_server.user, postgres_server.password, data)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def storage(
    postgres_url: str, replica: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scripted_engine: object
) -> Iterator[AudioStorageSystem]:
    monkeypatch.setenv("AUDIO_STORAGE_HOME", str(tmp_path / "here"))
    url = replica.url(postgres_url.rpartition("/")[2])
    with AudioStorageSystem(postgres_url, replica_url=url) as opened:
        yield opened


def searched(server: Server, database: str) -> int:
    """How many transactions this database has seen."""
    with psycopg.connect(server.url(database)) as connection:
        connection.execute("SELECT pg_stat_clear_snapshot()")
        query = "SELECT sum(xact_commit + xact_rollback) FROM pg_stat_database WHERE datname = %s"
        row = connection.execute(query, (database,)).fetchone()
    assert row is not None
    return int(row[0])


def wait_for_replay(primary: Server, replica: Server, seconds: float = 60.0) -> None:
    """Until all that the primary has written by now is on the replica, this database too."""
    written, until = answer(primary, "SELECT pg_current_wal_lsn()"), time.monotonic() + seconds
    while not answer(replica, "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", written):
        assert time.monotonic() < until
        time.sleep(0.1)


def answer(server: Server, query: str, *values: object) -> Any:
    """The one value of a query."""
    with psycopg.connect(server.url(), autocommit=True) as connection:
        row = connection.execute(query, values).fetchone()
    assert row is not None
    return row[0]


def replaying(server: Server, on: bool) -> None:
    server.run(f"SELECT pg_wal_replay_{'resume' if on else 'pause'}()")


def test_what_was_just_written_is_found_though_the_replica_lags(
    storage: AudioStorageSystem, replica: Server, demo: Path
) -> None:
    replaying(replica, on=False)
    try:
        audio_id = storage.add(demo / "call.flac", whisper_model="scripted")
        assert [hit.audio_id for hit in storage.search_similar_audio("spoken")] == [audio_id]
    finally:
        replaying(replica, on=True)


def test_the_replica_answers_once_it_has_caught_up(
    storage: AudioStorageSystem, postgres_server: Server, replica: Server, postgres_url: str, demo: Path
) -> None:
    audio_id = storage.add(demo / "call.flac", whisper_model="scripted")
    database = postgres_url.rpartition("/")[2]
    wait_for_replay(postgres_server, replica)
    deadline, before = time.monotonic() + 60, None
    while time.monotonic() < deadline:
        before = searched(replica, database)
        assert [hit.audio_id for hit in storage.search_similar_audio("spoken")] == [audio_id]
        time.sleep(1.2)  # the server reports what it did after a second
        if searched(replica, database) > before + 5:
            return
    pytest.fail("the replica was never asked")


def test_a_replica_that_is_gone_is_not_missed(
    postgres_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scripted_engine: object,
    demo: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("AUDIO_STORAGE_HOME", str(tmp_path / "here"))
    with reserved_port() as port:
        gone = f"postgresql://nobody:geheim@127.0.0.1:{port}/x"
        with AudioStorageSystem(postgres_url, replica_url=gone) as storage:
            audio_id = storage.add(demo / "call.flac", whisper_model="scripted")
            with caplog.at_level(logging.WARNING):
                assert [hit.audio_id for hit in storage.search_similar_audio("spoken")] == [audio_id]
    assert "replica" in caplog.text and "geheim" not in caplog.text
