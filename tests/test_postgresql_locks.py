"""Writers on PostgreSQL that touch the same rows in different orders: none may end in waiting for each other. Each test
holds one of them in the middle of its work, so that the others come at the worst moment."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from audio_storage_system import AudioStorageSystem, copy_archive
from audio_storage_system.vectors.engines import Collection
from audio_storage_system.vectors.pgvector import PgvectorEngine
from catalogues import Catalogues, database_url, plain_sql
from postgres_server import Server

pytestmark = pytest.mark.usefixtures("scripted_engine")
# Longer than anything takes on a slow machine: what comes to it has failed.
PATIENCE_SECONDS = 60
# What a deletion waits for when the passages are gone, and the words and the recording itself not yet.
SEGMENTS = (
    "SELECT id FROM segments WHERE transcript_id IN (SELECT id FROM transcripts WHERE audio_file_id = {}) FOR UPDATE"
)


@pytest.fixture
def home(postgres_server: Server, postgres_template: str, tmp_path: Path) -> Iterator[Path]:
    with Catalogues(postgres_server, postgres_template).at(tmp_path / "archive") as home:
        yield home


def archive(home: Path) -> AudioStorageSystem:
    return AudioStorageSystem(home, transcriber="scripted")


@contextmanager
def held(home: Path, statement: str) -> Iterator[None]:
    """What the statement of another program locks stays so while the block runs."""
    with psycopg.connect(database_url(home)) as other:
        other.execute(statement)
        yield


def until_waiting(home: Path, tasks: list[Future[Any]], least: int) -> None:
    """Until so many of these tasks wait for a lock or have come to their end."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    end = time.monotonic() + PATIENCE_SECONDS
    while sum(task.done() for task in tasks) + int(str(plain_sql(home, query)[0][0])) < least:
        assert time.monotonic() < end, "nobody waits"
        time.sleep(0.02)


def searched(home: Path) -> list[tuple[object, ...]]:
    return plain_sql(home, "SELECT passage_id FROM passage_search WHERE space_id = 0 ORDER BY 1")


def test_a_deletion_half_done_while_the_full_text_is_made_anew(home: Path, demo: Path) -> None:
    with archive(home) as storage, archive(home) as other:
        gone, _ = [int(storage.add(path)) for path in sorted(demo.glob("*.flac"))[:2]]
        with ThreadPoolExecutor(2) as pool:
            with held(home, SEGMENTS.format(gone)):
                deleted = pool.submit(storage.delete, gone)
                until_waiting(home, [deleted], 1)
                rebuilt = pool.submit(other.reindex)
                until_waiting(home, [deleted, rebuilt], 2)
            deleted.result(PATIENCE_SECONDS), rebuilt.result(PATIENCE_SECONDS)
    said = plain_sql(home, "SELECT id FROM passages ORDER BY 1")
    assert searched(home) == said != []


def test_a_deletion_half_done_while_a_copy_fills_the_archive(home: Path, demo: Path, tmp_path: Path) -> None:
    with AudioStorageSystem(tmp_path / "original", transcriber="scripted") as original:
        gone, stays = [int(original.add(path)) for path in sorted(demo.glob("*.flac"))[:2]]
    place = home / "audio-storage.toml"
    assert copy_archive(tmp_path / "original", place).complete
    plain_sql(home, "DELETE FROM embeddings")  # as though the copy had been cut short
    with archive(home) as storage, ThreadPoolExecutor(2) as pool:
        with held(home, SEGMENTS.format(gone)):
            deleted = pool.submit(storage.delete, gone)
            until_waiting(home, [deleted], 1)
            copied = pool.submit(copy_archive, tmp_path / "original", place)
            until_waiting(home, [deleted, copied], 2)
        deleted.result(PATIENCE_SECONDS)
        assert copied.result(PATIENCE_SECONDS).kept_deleted == 1
        assert [found.id for found in storage.list_recordings()] == [stays]


@contextmanager
def without_indexes(home: Path) -> Iterator[list[Collection]]:
    """The collections of the archive, whose vectors have no index; it cannot be finished while the block runs."""
    found = plain_sql(home, "SELECT id, name, model, dimension FROM vector_collections ORDER BY id")
    for id_, *_ in found:
        plain_sql(home, f"DROP INDEX idx_passage_search_vector_{id_}")
    with held(home, "DELETE FROM passage_search WHERE space_id = -1"):
        yield [Collection(str(name), str(model), int(str(dimension))) for _, name, model, dimension in found]


def usable_indexes(home: Path) -> int:
    query = "SELECT count(*) FROM pg_index JOIN pg_class ON oid = indexrelid WHERE relname LIKE ? AND indisvalid"
    return int(str(plain_sql(home, query, "idx_passage_search_vector%")[0][0]))


def test_an_index_half_made_while_the_full_text_is_made_anew(home: Path, demo: Path) -> None:
    with archive(home) as storage, ThreadPoolExecutor(2) as pool:
        storage.add(sorted(demo.glob("*.flac"))[0])
        storage._archive.follow()
        engine = PgvectorEngine(storage._archive.database)
        with without_indexes(home) as [first, *_]:
            built = pool.submit(engine.settle, first, deleted=False)
            until_waiting(home, [built], 1)
            rebuilt = pool.submit(storage.reindex)
            time.sleep(0.5)
        built.result(PATIENCE_SECONDS), rebuilt.result(PATIENCE_SECONDS)
    assert len(searched(home)) > 0


def test_indexes_of_two_collections_are_made_one_after_the_other(home: Path, demo: Path) -> None:
    with archive(home) as storage, ThreadPoolExecutor(3) as pool:
        storage.add(sorted(demo.glob("*.flac"))[0])
        storage._archive.follow()
        engine = PgvectorEngine(storage._archive.database)
        with without_indexes(home) as collections:
            tasks = [pool.submit(engine.settle, collections[0], deleted=False)]
            until_waiting(home, tasks, 1)
            tasks += [pool.submit(engine.settle, other, deleted=False) for other in collections]
            time.sleep(0.5)
        for task in tasks:
            task.result(PATIENCE_SECONDS)
        assert usable_indexes(home) == len(collections) > 1


def test_a_collection_is_dropped_while_the_index_of_another_is_made(home: Path, demo: Path) -> None:
    with archive(home) as storage, ThreadPoolExecutor(2) as pool:
        storage.add(sorted(demo.glob("*.flac"))[0])
        storage._archive.follow()
        engine = PgvectorEngine(storage._archive.database)
        with without_indexes(home) as [first, second, *_]:
            built = pool.submit(engine.settle, first, deleted=False)
            until_waiting(home, [built], 1)
            dropped = pool.submit(engine.drop, second.name)
            time.sleep(0.5)
        built.result(PATIENCE_SECONDS), dropped.result(PATIENCE_SECONDS)
        assert first.name in engine.names("") and second.name not in engine.names("")
        assert usable_indexes(home) == 1
