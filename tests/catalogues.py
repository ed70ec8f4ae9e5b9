"""Both catalogues for the tests that must hold on either: a folder is prepared, and what is opened there is on SQLite
or on PostgreSQL."""

from __future__ import annotations

import json
import sqlite3
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event

from audio_storage_system import AudioStorageSystem
from audio_storage_system.database import Database, migrations
from audio_storage_system.database.migrations import migrate
from postgres_server import Server

FILE = "audio-storage.toml"


@dataclass(frozen=True)
class Catalogues:
    """Makes places for archives. `server` is `None` where they are on SQLite; `template` is a migrated database.
    `encrypted`: an encrypted archive is made in the place, whose settings say where its key is."""

    server: Server | None = None
    template: str = ""
    encrypted: bool = False

    @property
    def name(self) -> str:
        return "postgresql" if self.server else "sqlite"

    @contextmanager
    def at(self, home: Path) -> Iterator[Path]:
        """A folder where an archive can be made; on PostgreSQL with the address of its database in its settings."""
        with ExitStack() as kept:
            if self.server:
                url = kept.enter_context(self.server.fresh_database(self.template))
                home.mkdir(parents=True, exist_ok=True)
                (home / FILE).write_text(f"database_url = {json.dumps(url)}\n")
            if self.encrypted:
                home.mkdir(parents=True, exist_ok=True)
                (home / FILE).write_text(f"key_file = {json.dumps(str(home.with_suffix('.key')))}\n")
                AudioStorageSystem(home, encryption=True).close()
            yield home

    @contextmanager
    def database(self, home: Path) -> Iterator[Database]:
        """A migrated database without an archive."""
        with self.at(home), closing(open_database(home)) as database:
            yield database


def database_url(home: Path) -> str:
    """Where the catalogue of a prepared folder is; empty on SQLite."""
    file = home / FILE
    return str(tomllib.loads(file.read_text()).get("database_url", "")) if file.exists() else ""


def open_database(home: Path) -> Database:
    """The catalogue of a prepared folder, migrated."""
    url = database_url(home)
    if not url:
        home.mkdir(parents=True, exist_ok=True)
    database = Database.connect(url) if url else Database.open(home / "audio_storage.db")
    migrate(database)
    return database


def plain_sql(home: Path, query: str, *values: object) -> list[tuple[object, ...]]:
    """The rows of a query sent to the catalogue by any other program; `?` stands for a value."""
    if url := database_url(home):
        import psycopg

        with psycopg.connect(url, autocommit=True) as connection:
            cursor = connection.execute(query.replace("%", "%%").replace("?", "%s"), values)
            return cursor.fetchall() if cursor.description else []
    with closing(sqlite3.connect(home / "audio_storage.db")) as connection:
        found = connection.execute(query, values).fetchall()
        connection.commit()
        return found


MIGRATE = migrations._upgrade


class Remembered:
    """Migrates as the program does, but a new SQLite database by the statements that the first one was made of: without
    working them out anew for each test."""

    def __init__(self) -> None:
        self._statements: list[tuple[str, Any]] = []

    def __call__(self, connection: Connection) -> None:
        if connection.dialect.name != "sqlite" or self._holds_anything(connection):
            MIGRATE(connection)
        elif self._statements:
            for statement, values in self._statements:
                connection.exec_driver_sql(statement, values)
        else:
            self._statements = self._heard(connection)

    def _holds_anything(self, connection: Connection) -> bool:
        return bool(connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar())

    def _heard(self, connection: Connection) -> list[tuple[str, Any]]:
        heard: list[tuple[str, Any]] = []

        def hear(_connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
            if not statement.lstrip().startswith(("SELECT", "PRAGMA")):
                heard.append((statement, values))

        event.listen(connection, "before_cursor_execute", hear)
        try:
            MIGRATE(connection)
        finally:
            event.remove(connection, "before_cursor_execute", hear)
        return heard


@pytest.fixture(scope="session", autouse=True)
def remembered_schema() -> Iterator[None]:
    """Most tests make an archive; what migrations do is tried where they are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(migrations, "_upgrade", Remembered())
        yield


@pytest.fixture
def migrated_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every database of the test is migrated by the program alone."""
    monkeypatch.setattr(migrations, "_upgrade", MIGRATE)


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def catalogues(request: pytest.FixtureRequest) -> Catalogues:
    """Each kind of catalogue in turn."""
    if request.param == "sqlite":
        return Catalogues()
    return Catalogues(request.getfixturevalue("postgres_server"), request.getfixturevalue("postgres_template"))


# Where the catalogue makes no difference.
ON_SQLITE = pytest.mark.parametrize("catalogues", ["sqlite"], indirect=True)


@pytest.fixture
def home(catalogues: Catalogues, tmp_path: Path, scripted_engine: object) -> Iterator[Path]:
    """A folder for an archive on either catalogue, whose engine may be the scripted one."""
    with catalogues.at(tmp_path / "archive") as home:
        yield home


@pytest.fixture
def storage(home: Path) -> Iterator[AudioStorageSystem]:
    """An archive on either catalogue, whose engine is the scripted one."""
    with AudioStorageSystem(home, transcriber="scripted") as opened:
        yield opened
