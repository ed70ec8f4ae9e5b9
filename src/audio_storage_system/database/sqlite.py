"""What is special about SQLite: pragmas, transactions, deadlines and its error texts."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError

from audio_storage_system.clock import NEVER, Deadline
from audio_storage_system.database.dialect import Dialect
from audio_storage_system.errors import (
    ArchiveBusy,
    ArchiveDamaged,
    ArchiveReadOnly,
    AudioStorageSystemError,
    DeadlineExceeded,
    StorageFailed,
    StorageFull,
)

BUSY_TIMEOUT_SECONDS = 30
# How long to wait for a connection in use before looking at the clock again.
TURN_SECONDS = 0.1
# How long to wait for others who read before the write-ahead log is left for another time.
CLEANING_SECONDS = 2
# How long to wait for a lock that SQLite does not wait for itself before trying again.
LOOK_AGAIN_SECONDS = 0.01
# How many instructions of SQLite's machine pass between two looks at the clock: about 0.1 ms.
STEPS_BETWEEN_CHECKS = 10_000
# With fewer bytes than this a disk is full: SQLite's files grow by 32 KiB at a time and more.
LEAST_ROOM = 1 << 18

PRAGMAS = (
    f"PRAGMA busy_timeout = {BUSY_TIMEOUT_SECONDS * 1000}",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA cache_size = -16384",
    "PRAGMA secure_delete = ON",  # what is deleted is overwritten, in the pages it was in and in those set free
)


class SQLite(Dialect):
    """A file. Reads begin lazily; writes take the write lock at once, so that they never fail half-way with "database
    is locked"."""

    name = "sqlite"
    patience_seconds = BUSY_TIMEOUT_SECONDS

    def __init__(self, path: Path) -> None:
        self._path = path

    def create(self) -> Engine:
        engine = create_engine(
            URL.create("sqlite", database=str(self._path)),
            connect_args={"check_same_thread": False, "timeout": BUSY_TIMEOUT_SECONDS},
            pool_size=8,
            max_overflow=24,
            pool_timeout=TURN_SECONDS,
            pool_use_lifo=True,  # the connection used last has its pages in memory
        )
        event.listen(engine, "connect", _prepare)
        event.listen(engine, "begin", _begin)
        return engine

    @contextmanager
    def reading(self, connection: Connection, deadline: Deadline) -> Iterator[None]:
        """A read sees one state from its first statement on; nothing of it needs to be told to the database."""
        if deadline.seconds == float("inf"):
            yield
            return
        self.limit(connection, deadline)
        try:
            yield
        finally:
            self.limit(connection, NEVER)

    def limit(self, connection: Connection, deadline: Deadline) -> None:
        ends = deadline.seconds != float("inf")
        _driver(connection).set_progress_handler((lambda: deadline.expired) if ends else None, STEPS_BETWEEN_CHECKS)

    @contextmanager
    def attempting(self, connection: Connection, deadline: Deadline, before: Deadline) -> Iterator[None]:
        """A read goes on after an error anyway."""
        self.limit(connection, deadline)
        try:
            yield
        finally:
            self.limit(connection, before)

    @contextmanager
    def writing(self, connection: Connection, names: Sequence[str]) -> Iterator[None]:
        """There is one writer at a time, whatever its names."""
        with connection.execution_options(writes=True).begin():
            yield

    def clean(self, engine: Engine) -> bool:
        """Write the log into the database and empty it. Others may read from it meanwhile, or write: then not."""
        with engine.connect() as connection:
            driver = _driver(connection)  # past SQLAlchemy, which would begin a transaction
            driver.execute(f"PRAGMA busy_timeout = {CLEANING_SECONDS * 1000}")
            try:
                busy, _, _ = driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                driver.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_SECONDS * 1000}")
        return not busy

    def translate(self, error: DBAPIError, place: str, deadline: Deadline) -> AudioStorageSystemError:
        text = str(error.orig)
        if "interrupted" in text:
            return DeadlineExceeded(seconds=deadline.seconds)
        if "locked" in text or "busy" in text:
            return ArchiveBusy(place=place)
        if "disk is full" in text or ("disk I/O error" in text and _has_no_room(self._path)):
            return StorageFull(place=place)
        if "readonly" in text or "unable to open" in text:
            return ArchiveReadOnly(place=place, reason=text)
        if "malformed" in text or "not a database" in text:
            return ArchiveDamaged(place=place, reason=text)
        return StorageFailed(reason=text)


def _prepare(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # the driver's own implicit transactions get in the way of BEGIN IMMEDIATE
    patience = Deadline.after(BUSY_TIMEOUT_SECONDS)
    for pragma in PRAGMAS:
        _insist(connection, pragma, patience)


def _insist(connection: sqlite3.Connection, pragma: str, patience: Deadline) -> None:
    """Wait for others here: of several that open a new file, SQLite lets one make it WAL and tells the rest at once
    that it is locked, whatever its own timeout."""
    while True:
        try:
            connection.execute(pragma)
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or patience.expired:
                raise
            time.sleep(LOOK_AGAIN_SECONDS)


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _has_no_room(path: Path) -> bool:
    """Whether the disk is full: SQLite calls it an I/O error where the file that its processes share cannot grow."""
    try:
        return shutil.disk_usage(path.parent).free < LEAST_ROOM
    except OSError:
        return False


def version(connection: Connection) -> Hashable:
    """Equal for two moments on one connection only if nothing that it sees has changed in between: SQLite counts the
    commits of others, the driver what this connection wrote itself."""
    driver = _driver(connection)
    return driver.execute("PRAGMA data_version").fetchone()[0], driver.total_changes


def _driver(connection: Connection) -> sqlite3.Connection:
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)  # noqa: S101 - tells the type checker what the engine guarantees
    return driver
