"""The schema and its migrations."""

from __future__ import annotations

import re
import sqlite3
import threading
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import create_engine, insert, select, text

from audio_storage_system.clock import Deadline
from audio_storage_system.database import Database
from audio_storage_system.database.migrations import HEAD, VERSIONS, migrate, revision_of
from audio_storage_system.database.tables import audio_files, change_log, metadata_of_schema, principals
from audio_storage_system.errors import DeadlineExceeded, InvalidInput, NewerFormat, StorageFailed


@pytest.fixture
def database(tmp_path: Path) -> Database:
    database = Database.open(tmp_path / "archive.db")
    migrate(database)
    return database


def schema_of(path: Path) -> dict[str, list[str]]:
    """Every object's SQL, its white space normalised and its table constraints in one order."""
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    return {name: _parts(sql) for name, sql in rows if name != "alembic_version"}


def _parts(sql: str) -> list[str]:
    flat = re.sub(r"\s*,\s*", ", ", re.sub(r"\s+", " ", sql)).strip()
    flat = flat.removesuffix(")").rstrip() if flat.startswith("CREATE TABLE") else flat
    parts = re.split(r", (?![^()]*\))", flat)
    return [p for p in parts if not p.startswith("CONSTRAINT")] + sorted(p for p in parts if p.startswith("CONSTRAINT"))


def test_migrations_arrive_at_the_declared_schema(database: Database, tmp_path: Path) -> None:
    declared = create_engine(f"sqlite:///{tmp_path / 'declared.db'}")
    metadata_of_schema.create_all(declared)
    declared.dispose()
    migrated, wanted = schema_of(tmp_path / "archive.db"), schema_of(tmp_path / "declared.db")
    assert migrated == wanted


def test_every_revision_is_known(database: Database) -> None:
    folder = Path(__file__).parent.parent / "src/audio_storage_system/database/migrations/versions"
    assert sorted(path.name[:4] for path in folder.glob("[0-9]*.py")) == sorted(VERSIONS)
    with database.read() as connection:
        assert revision_of(connection) == HEAD == VERSIONS[-1]


def test_migrating_twice_changes_nothing(database: Database) -> None:
    assert migrate(database) is False


def test_a_newer_database_is_refused(database: Database) -> None:
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(NewerFormat, match="Upgrade"):
        migrate(database)


def test_sqlite_is_opened_for_durability(database: Database) -> None:
    with database.read() as connection:
        pragmas = {
            name: connection.execute(text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 30000}


def test_a_new_file_that_another_process_writes_to_is_waited_for(tmp_path: Path) -> None:
    """SQLite itself does not wait here, so that several who found an archive at once would fail."""
    with closing(sqlite3.connect(tmp_path / "new.db", isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("CREATE TABLE theirs (id integer)")
        release = threading.Timer(0.3, other.execute, ["COMMIT"])
        release.start()
        database = Database.open(tmp_path / "new.db")
        with database.write() as connection:
            assert connection.execute(text("SELECT count(*) FROM theirs")).scalar_one() == 0
        database.close()
        release.join()


def test_ids_are_never_reused(database: Database) -> None:
    row = {"table_name": "x", "row_id": 1, "op": "insert"}
    with database.write() as connection:
        first = connection.execute(insert(change_log), row).inserted_primary_key[0]
        connection.execute(change_log.delete())
        second = connection.execute(insert(change_log), row).inserted_primary_key[0]
    assert second > first


def test_times_are_kept_in_utc_text(database: Database) -> None:
    moment = datetime(2026, 11, 22, 12, 30, 1, 250_000, tzinfo=UTC)
    with database.write() as connection:
        connection.execute(insert(principals), {"name": "a", "kind": "user", "created_at": moment})
        stored = connection.execute(text("SELECT created_at FROM principals WHERE name = 'a'")).scalar()
        read = connection.execute(select(principals.c.created_at).where(principals.c.name == "a")).scalar()
    assert stored == "2026-11-22 12:30:01.250000"
    assert read == moment


def test_times_set_by_the_database_are_read_in_utc(database: Database) -> None:
    with database.write() as connection:
        connection.execute(insert(principals), {"name": "b", "kind": "user"})
        read = connection.execute(select(principals.c.created_at).where(principals.c.name == "b")).scalar()
    assert read is not None and abs((datetime.now(UTC) - read).total_seconds()) < 60


@pytest.mark.parametrize("values", [{"name": "a\0b"}, {"created_at": datetime(2026, 1, 1)}])
def test_nul_and_naive_times_are_refused(database: Database, values: dict[str, object]) -> None:
    with pytest.raises(Exception) as caught, database.write() as connection:
        connection.execute(insert(principals), {"name": "c", "kind": "user", **values})
    assert isinstance(caught.value, InvalidInput) or isinstance(caught.value.__cause__, InvalidInput)


def test_a_failed_write_leaves_nothing(database: Database) -> None:
    with pytest.raises(RuntimeError), database.write() as connection:
        connection.execute(insert(principals), {"name": "d", "kind": "user"})
        raise RuntimeError
    with database.read() as connection:
        assert connection.execute(select(principals.c.id).where(principals.c.name == "d")).first() is None


def test_a_deadline_stops_a_running_query(database: Database) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    with pytest.raises(DeadlineExceeded), database.read(Deadline.after(0.1)) as connection:
        connection.execute(text(endless)).scalar()


def test_foreign_keys_hold(database: Database) -> None:
    row = {
        "file_hash": "h",
        "file_path": "p",
        "owner_id": 99,
        "original_name": "n",
        "recorded_at": datetime.now(UTC),
        "status": "stored",
    }
    with pytest.raises(StorageFailed, match="FOREIGN KEY"), database.write() as connection:
        connection.execute(insert(audio_files), row)
