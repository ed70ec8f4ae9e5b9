"""Many rows at once, on either catalogue: what is written is what is read, in order, or nothing at all."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Table, func, select

from audio_storage_system.database import Database, bulk
from audio_storage_system.database.tables import annotations, audio_files, embedding_spaces, embeddings, principals
from audio_storage_system.database.tables import transcripts as versions
from audio_storage_system.errors import InvalidInput, StorageFailed
from catalogues import Catalogues

MANY = 3 * bulk.LEAST_STREAMED
EAST = timezone(timedelta(hours=5, minutes=30))


@pytest.fixture
def database(catalogues: Catalogues, tmp_path: Path) -> Iterator[Database]:
    with catalogues.database(tmp_path / "archive") as database:
        with database.write() as connection:
            bulk.write(connection, principals, [{"id": 1, "name": "archive", "kind": "archive"}])
        yield database


def recording(number: int) -> dict[str, Any]:
    """A row of every kind of value: text in many scripts, whole and large numbers, fractions, instants, nothing."""
    return {
        "owner_id": 1,
        "file_hash": f"hash {number}",
        "file_path": "a\tb\\c\n'ö' 预算 🎙 {1,2}",
        "file_size": 2**40 + number,
        "duration": 0.1 + number,
        "sample_rate": None,
        "original_name": "",
        "recorded_at": datetime(2026, 11, 22, 12, 0, number, 123_456, tzinfo=EAST),
        "status": "stored",
    }


def version(audio_id: int) -> dict[str, Any]:
    """A row with JSON and a truth value."""
    given = {"é": [1, None, "\u2028"], "deep": {"a": [True]}}
    row = {"audio_file_id": audio_id, "whisper_model": "b", "engine": "b", "parameters": given, "active": True}
    return {**row, "created_at": datetime(2026, 1, 1, tzinfo=UTC)}


def embedding(audio_id: int) -> dict[str, Any]:
    """A row with bytes."""
    of = {"audio_file_id": audio_id, "space_id": 1, "embedding_type": "audio", "model_name": "m"}
    span = {"start_seconds": 0.0, "end_seconds": 1.5, "embedding_dimension": 64}
    return {**of, **span, "embedding_data": bytes(range(256))}


def read(database: Database, table: Table, rows: list[dict[str, Any]], ids: list[int]) -> list[dict[str, Any]]:
    """What is stored under these ids, of the columns that were given."""
    with database.read() as connection:
        found = {row["id"]: row for row in connection.execute(select(table)).mappings()}
    return [{name: found[id_][name] for name in rows[0]} for id_ in ids]


@pytest.mark.parametrize("count", [1, bulk.LEAST_STREAMED - 1, bulk.LEAST_STREAMED, MANY])
def test_every_kind_of_value_comes_back_in_the_order_given(database: Database, count: int) -> None:
    space = {"id": 1, "kind": "audio", "model": "m", "dimension": 64, "spec": "m", "active": False}
    files = [recording(number) for number in range(count)]
    with database.write() as connection:
        bulk.write(connection, embedding_spaces, [space])
        ids = bulk.insert_all(connection, audio_files, files)
        texts, vectors = [version(id_) for id_ in ids], [embedding(id_) for id_ in ids]
        of_texts = bulk.insert_all(connection, versions, texts)
        of_vectors = bulk.insert_all(connection, embeddings, vectors)
    assert ids == sorted(ids)
    assert read(database, audio_files, files, ids) == files
    assert read(database, versions, texts, of_texts) == texts
    assert read(database, embeddings, vectors, of_vectors) == vectors
    with database.read() as connection:
        stored_at = connection.execute(select(audio_files.c.created_at)).scalars().all()
    assert all(moment.tzinfo for moment in stored_at)  # what was not given is the table's own default


@pytest.mark.parametrize("count", [2, MANY])
@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ({"original_name": "a\0b"}, InvalidInput),
        ({"file_size": 2**70}, InvalidInput),
        ({"recorded_at": datetime(2026, 1, 1)}, InvalidInput),
        ({"file_hash": "hash 0"}, StorageFailed),
        ({"owner_id": 99}, StorageFailed),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_one_bad_row_and_nothing_is_stored(
    database: Database, count: int, bad: dict[str, Any], error: type[Exception]
) -> None:
    rows = [recording(number) for number in range(count)]
    rows[-1] |= bad
    with pytest.raises(error), database.write() as connection:
        bulk.insert_all(connection, audio_files, rows)
    with database.write() as connection:  # and the connection is as good as before
        assert connection.execute(select(func.count()).select_from(audio_files)).scalar_one() == 0
        assert len(bulk.insert_all(connection, audio_files, [recording(number) for number in range(count)])) == count


def test_nothing_is_no_error(database: Database) -> None:
    with database.write() as connection:
        bulk.write(connection, annotations, [])
        assert bulk.insert_all(connection, annotations, []) == []


def test_writers_side_by_side_get_ids_of_their_own(database: Database) -> None:
    def store(writer: int) -> list[int]:
        rows = [{**recording(0), "file_hash": f"{writer}/{number}"} for number in range(200)]
        with database.write() as connection:
            ids = bulk.insert_all(connection, audio_files, rows)
        assert ids == sorted(ids)
        assert [row["file_hash"] for row in read(database, audio_files, rows, ids)] == [r["file_hash"] for r in rows]
        return ids

    with ThreadPoolExecutor(4) as pool:
        given = [id_ for ids in pool.map(store, range(4)) for id_ in ids]
    assert len(set(given)) == len(given) == 800
