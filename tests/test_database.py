"""The schema and its migrations."""

from __future__ import annotations

import logging
import os
import re
import sqlite3
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import insert, select, text

from audio_storage_system.clock import Deadline
from audio_storage_system.database import Database
from audio_storage_system.database.migrations import HEAD, VERSIONS, migrate, revision_of
from audio_storage_system.database.tables import audio_files, change_log, metadata_of_schema, principals
from audio_storage_system.errors import ArchiveDamaged, DeadlineExceeded, InvalidInput, NewerFormat, StorageFailed

KEY = bytes(range(32))

pytestmark = pytest.mark.usefixtures("migrated_anew")


@pytest.fixture(params=["plain", "encrypted"])
def key(request: pytest.FixtureRequest) -> bytes | None:
    return KEY if request.param == "encrypted" else None


@pytest.fixture
def database(tmp_path: Path, key: bytes | None) -> Iterator[Database]:
    with closing(Database.open(tmp_path / "archive.db", key)) as database:
        migrate(database)
        yield database


def schema_of(database: Database) -> dict[str, list[str]]:
    """Every object's SQL, its white space normalised and its table constraints in one order."""
    with database.read() as connection:
        rows = connection.execute(text("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")).all()
    return {name: _parts(sql) for name, sql in rows if name != "alembic_version"}


def _parts(sql: str) -> list[str]:
    flat = re.sub(r"\s*,\s*", ", ", re.sub(r"\s+", " ", sql)).strip()
    flat = flat.removesuffix(")").rstrip() if flat.startswith("CREATE TABLE") else flat
    parts = re.split(r", (?![^()]*\))", flat)
    return [p for p in parts if not p.startswith("CONSTRAINT")] + sorted(p for p in parts if p.startswith("CONSTRAINT"))


def test_migrations_arrive_at_the_declared_schema(database: Database, tmp_path: Path) -> None:
    with closing(Database.open(tmp_path / "declared.db")) as declared:
        metadata_of_schema.create_all(declared.engine)
        assert schema_of(database) == schema_of(declared)


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


# Encrypted


def raw(path: Path) -> bytes:
    """All that lies on the disk."""
    return b"".join(file.read_bytes() for file in path.parent.glob(f"{path.name}*"))


@pytest.mark.parametrize("key", [KEY])
def test_nothing_is_readable_not_in_the_log_either(database: Database, key: bytes, tmp_path: Path) -> None:
    with database.write() as connection:
        connection.execute(insert(principals), {"name": "quixotic", "kind": "user"})
        connection.exec_driver_sql("CREATE VIRTUAL TABLE words USING fts5(said)")
        connection.exec_driver_sql("INSERT INTO words VALUES ('hemoglobin')")
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["archive.db", "archive.db-shm", "archive.db-wal"]
    for word in (b"quixotic", b"hemoglobin", b"principals", b"SQLite format"):
        assert word not in raw(tmp_path / "archive.db")


@pytest.mark.parametrize("key", [KEY])
def test_another_key_or_none_is_refused_and_changes_nothing(
    database: Database, key: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    database.close()
    before = raw(tmp_path / "archive.db")
    for wrong in (bytes(32), None):
        with closing(Database.open(tmp_path / "archive.db", wrong)) as other:
            with pytest.raises(ArchiveDamaged, match=r"another key|encrypted one"), other.read() as connection:
                connection.execute(select(principals.c.id))
    assert raw(tmp_path / "archive.db") == before
    assert capfd.readouterr().err == ""


def test_a_plain_database_is_not_taken_for_an_encrypted_one(tmp_path: Path) -> None:
    with closing(Database.open(tmp_path / "archive.db")) as plain:
        migrate(plain)
    with closing(Database.open(tmp_path / "archive.db", KEY)) as database:
        with pytest.raises(ArchiveDamaged, match="not encrypted"), database.read() as connection:
            connection.execute(select(principals.c.id))


@pytest.mark.parametrize("key", [KEY])
@pytest.mark.parametrize("place", [100, 4096 * 3 + 17])
def test_a_changed_bit_is_noticed(database: Database, key: bytes, tmp_path: Path, place: int) -> None:
    database.close()
    data = bytearray((tmp_path / "archive.db").read_bytes())
    data[place] ^= 1
    (tmp_path / "archive.db").write_bytes(data)
    with closing(Database.open(tmp_path / "archive.db", KEY)) as damaged:
        with pytest.raises(ArchiveDamaged), damaged.read() as connection:
            for table in metadata_of_schema.sorted_tables:
                connection.execute(select(table)).all()


@pytest.mark.parametrize("key", [KEY])
def test_the_key_is_nowhere_to_be_read(database: Database, key: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), database.read() as connection:
        shown = [repr(database.engine), repr(database.engine.url), repr(connection), repr(database.dialect)]
        pragmas = [connection.exec_driver_sql(f"PRAGMA {name}").all() for name in ("key", "cipher_settings")]
    with closing(Database.open(Path("/nowhere/at/all.db"), KEY)) as nowhere:
        with pytest.raises(StorageFailed) as caught, nowhere.read():
            raise AssertionError
    told = "".join([*shown, str(pragmas), caplog.text, *traceback.format_exception(caught.value)])
    assert KEY.hex() not in told.lower() and repr(KEY) not in told


def test_both_processes_of_a_fork_go_on(tmp_path: Path) -> None:
    if not hasattr(os, "fork"):
        pytest.skip("there is no fork here")
    script = FORKING.format(path=str(tmp_path / "archive.db"))
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "2\n", "")


FORKING = """
import os
from pathlib import Path
from sqlalchemy import text
from audio_storage_system.database import Database

database = Database.open(Path({path!r}), bytes(range(32)))
with database.write() as connection:
    connection.execute(text("CREATE TABLE t (x)"))
child = os.fork()
with database.write() as connection:
    connection.execute(text("INSERT INTO t VALUES (1)"))
if child == 0:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
with database.read() as connection:
    print(connection.execute(text("SELECT count(*) FROM t")).scalar())
"""
