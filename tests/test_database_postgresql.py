"""The schema and its migrations on PostgreSQL."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, insert, select, text

from audio_storage_system import outbox
from audio_storage_system.clock import Deadline
from audio_storage_system.database import Database, migrations
from audio_storage_system.database.migrations import HEAD, migrate, revision_of
from audio_storage_system.database.sequences import advance
from audio_storage_system.database.tables import (
    audio_files,
    change_log,
    grants,
    metadata,
    metadata_of_schema,
    principals,
    webhook_deliveries,
    webhooks,
)
from audio_storage_system.errors import ArchiveReadOnly, DeadlineExceeded, InvalidInput, NewerFormat, StorageFailed
from audio_storage_system.outbox import Event
from postgres_server import Server

# Derived tables and Alembic's own are no part of the schema.
OURS = "c.relnamespace = 'public'::regnamespace AND c.relname !~ '^(alembic_version|passage_search|vector_collections)'"
COLUMNS = f"""SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
    pg_get_expr(d.adbin, d.adrelid), a.attidentity
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    WHERE c.relkind = 'r' AND {OURS} ORDER BY c.relname, a.attnum"""  # noqa: S608
CONSTRAINTS = f"""SELECT c.relname, k.conname, pg_get_constraintdef(k.oid) FROM pg_constraint k
    JOIN pg_class c ON c.oid = k.conrelid WHERE {OURS} ORDER BY 1, 2"""  # noqa: S608
INDEXES = f"""SELECT c.relname, pg_get_indexdef(i.indexrelid) FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
    WHERE {OURS} ORDER BY 1, 2"""  # noqa: S608


def described(connection: Connection) -> dict[str, list[tuple[Any, ...]]]:
    """Every column, constraint and index as the server has it."""
    queries = {"columns": COLUMNS, "constraints": CONSTRAINTS, "indexes": INDEXES}
    return {name: [tuple(row) for row in connection.execute(text(query))] for name, query in queries.items()}


@pytest.fixture
def database(postgres_server: Server, postgres_template: str) -> Iterator[Database]:
    with postgres_server.fresh_database(postgres_template) as url, closing(Database.connect(url)) as database:
        yield database


@pytest.fixture
def empty(postgres_url: str) -> Iterator[Database]:
    with closing(Database.connect(postgres_url)) as database:
        yield database


def test_migrations_arrive_at_the_declared_schema(database: Database, empty: Database) -> None:
    with empty.write() as connection:
        metadata_of_schema.create_all(connection)
    with database.read() as migrated, empty.read() as declared:
        found, wanted = described(migrated), described(declared)
    assert len(found["columns"]) > 100
    assert found == wanted


def test_processes_that_migrate_at_once_migrate_once(empty: Database) -> None:
    others = [Database.connect(empty.engine.url.render_as_string(hide_password=False)) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert any(pool.map(migrate, others))
    for other in others:
        other.close()
    with empty.read() as connection:
        assert revision_of(connection) == HEAD
    assert migrate(empty) is False


def test_a_database_of_the_first_revision_is_brought_up_to_date(empty: Database, database: Database) -> None:
    upgrade_to(empty, "0001")
    with empty.write() as connection:
        connection.execute(text("INSERT INTO principals (id, name, kind) VALUES (1, 'owner', 'user')"))
        connection.execute(text("INSERT INTO change_log (table_name, row_id, op) VALUES ('x', 1, 'insert')"))
    assert migrate(empty)
    with empty.read() as old, database.read() as new:
        assert described(old) == described(new)
        assert old.execute(select(change_log.c.row_id)).scalars().all() == [1]


def test_whose_recordings_were_by_their_metadata_is_granted_once(empty: Database, tmp_path: Path) -> None:
    """Who was named when rights came may do with a recording what owners may; it stays the archive's own."""
    with closing(Database.open(tmp_path / "old.db")) as local:
        for database in (empty, local):
            upgrade_to(database, "0003")
            with database.write() as connection:
                connection.execute(text("INSERT INTO principals (id, name, kind) VALUES (1, 'owner', 'user')"))
                advance(connection, principals)
                named = [("john", "text"), ("7", "integer"), ("john", "text"), (" ", "text")]
                for number, (value, kind) in enumerate(named, 1):
                    recording = {"file_hash": str(number), "file_path": "a", "owner_id": 1, "original_name": "a"}
                    row = {**recording, "recorded_at": datetime(2026, 1, 1, tzinfo=UTC), "status": "stored"}
                    connection.execute(insert(audio_files), row)
                    of = {"audio_file_id": number, "key": "user_id"}
                    connection.execute(insert(metadata), {**of, "value": value, "value_type": kind})
            assert migrate(database)
            with database.read() as connection:
                given = select(principals.c.name, grants.c.role, grants.c.reach, grants.c.audio_file_id)
                rows = connection.execute(given.join(principals, principals.c.id == grants.c.principal_id)).all()
                owners = set(connection.execute(select(audio_files.c.owner_id)).scalars())
            assert sorted(map(tuple, rows)) == [
                ("7", "owner", "recording", 2),
                ("john", "owner", "recording", 1),
                ("john", "owner", "recording", 3),
            ]
            assert owners == {1}


def test_an_archive_from_before_webhooks_gets_their_tables_and_keeps_what_it_has(
    empty: Database, database: Database, tmp_path: Path
) -> None:
    with closing(Database.open(tmp_path / "old.db")) as local:
        for old in (empty, local):
            upgrade_to(old, "0004")
            with old.write() as connection:
                connection.execute(text("INSERT INTO principals (id, name, kind) VALUES (1, 'owner', 'user')"))
                recording = {"file_hash": "h", "file_path": "a", "owner_id": 1, "original_name": "a"}
                row = {**recording, "recorded_at": datetime(2026, 1, 1, tzinfo=UTC), "status": "stored"}
                connection.execute(insert(audio_files), row)
            assert migrate(old)
            with old.write() as connection:
                assert connection.execute(select(audio_files.c.file_hash)).scalars().all() == ["h"]
                hook = {
                    "principal_id": 1,
                    "restricted": False,
                    "name": "",
                    "url": "https://example.org",
                    "sealed": False,
                }
                connection.execute(insert(webhooks), {**hook, "events": [Event.STORED], "secret": b"s"})
                outbox.tell(connection, Event.STORED, 1)
                assert connection.execute(select(webhook_deliveries.c.audio_id)).scalars().all() == [1]
    with empty.read() as old_one, database.read() as new:
        assert described(old_one) == described(new)


def upgrade_to(database: Database, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    with database.write() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def test_an_sqlite_archive_of_the_first_revision_is_brought_up_to_date(tmp_path: Path) -> None:
    with closing(Database.open(tmp_path / "old.db")) as database:
        upgrade_to(database, "0001")
        with database.write() as connection:
            connection.execute(text("INSERT INTO principals (id, name, kind) VALUES (1, 'owner', 'user')"))
            connection.execute(
                text(
                    "INSERT INTO archive (id, archive_id, format_version, created_at) VALUES (1, 'a', 1, '2026-01-01')"
                )
            )
            connection.execute(text("INSERT INTO change_log (table_name, row_id, op) VALUES ('x', 7, 'insert')"))
        assert migrate(database)
    with closing(sqlite3.connect(tmp_path / "old.db")) as connection:
        assert connection.execute("SELECT archive_id, bound FROM archive").fetchall() == [("a", 0)]
        assert connection.execute("SELECT row_id, xid FROM change_log").fetchall() == [(7, None)]


def test_a_newer_database_is_refused(database: Database) -> None:
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(NewerFormat, match="Upgrade"):
        migrate(database)


def test_ids_are_never_reused_and_go_on_after_ids_given_by_hand(database: Database) -> None:
    row = {"table_name": "x", "row_id": 1, "op": "insert"}
    with database.write() as connection:
        first = connection.execute(insert(change_log), row).inserted_primary_key[0]
        connection.execute(change_log.delete())
        second = connection.execute(insert(change_log), row).inserted_primary_key[0]
        assert second > first
        connection.execute(insert(principals), [{"id": n, "name": str(n), "kind": "user"} for n in (1, 50)])
        advance(connection, principals)
        advance(connection, principals)
        assert connection.execute(insert(principals), {"name": "c", "kind": "user"}).inserted_primary_key[0] > 50
        connection.execute(principals.delete())
        advance(connection, principals)
        assert connection.execute(insert(principals), {"name": "d", "kind": "user"}).inserted_primary_key[0] > 51


def test_times_keep_their_instant_whatever_the_zone(database: Database) -> None:
    moment = datetime(2026, 11, 22, 12, 30, 1, 250_000, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    with database.write() as connection:
        connection.execute(text("SET LOCAL TimeZone = 'America/New_York'"))
        connection.execute(insert(principals), {"name": "a", "kind": "user", "created_at": moment})
        read = connection.execute(select(principals.c.created_at)).scalar()
    assert read == moment and read is not None and read.tzinfo == UTC


@pytest.mark.parametrize("values", [{"name": "a\0b"}, {"created_at": datetime(2026, 1, 1)}])
def test_nul_and_naive_times_are_refused(database: Database, values: dict[str, object]) -> None:
    with pytest.raises(InvalidInput), database.write() as connection:
        connection.execute(insert(principals), {"name": "c", "kind": "user", **values})


def test_a_failed_write_leaves_nothing(database: Database) -> None:
    with pytest.raises(RuntimeError), database.write() as connection:
        connection.execute(insert(principals), {"name": "d", "kind": "user"})
        raise RuntimeError
    with database.read() as connection:
        assert connection.execute(select(principals.c.id)).first() is None


def test_foreign_keys_hold(database: Database) -> None:
    row = {"file_hash": "h", "file_path": "p", "owner_id": 99, "original_name": "n", "status": "stored"}
    with pytest.raises(StorageFailed, match="foreign key"), database.write() as connection:
        connection.execute(insert(audio_files), {**row, "recorded_at": datetime.now(UTC)})


def test_nothing_is_written_while_reading(database: Database) -> None:
    with pytest.raises(ArchiveReadOnly), database.read() as connection:
        connection.execute(insert(principals), {"name": "d", "kind": "user"})


def test_a_deadline_stops_the_query_on_the_server_too(database: Database) -> None:
    started = datetime.now(UTC)
    with pytest.raises(DeadlineExceeded), database.read(Deadline.after(0.2)) as connection:
        connection.execute(text("SELECT pg_sleep(60)"))
    assert (datetime.now(UTC) - started).total_seconds() < 10
    running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%' AND state = 'active'"
    with database.read() as connection:
        assert connection.execute(text(f"{running} AND pid <> pg_backend_pid()")).scalar_one() == 0
