"""What is special about SQLite: pragmas, transactions, deadlines and its error texts."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import cast

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError

from audio_storage_system.clock import NEVER, Deadline
from audio_storage_system.database import sqlcipher
from audio_storage_system.database.dialect import Dialect
from audio_storage_system.errors import (
    ArchiveBusy,
    ArchiveDamaged,
    ArchiveReadOnly,
    AudioStorageSystemError,
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
# What a file begins with that is not encrypted.
HEAD = b"SQLite format 3\0"

PRAGMAS = (
    f"PRAGMA busy_timeout = {BUSY_TIMEOUT_SECONDS * 1000}",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA secure_delete = ON",  # what is deleted is overwritten, in the pages it was in and in those set free
)
CACHE_KIB = 16_384


class SQLite(Dialect):
    """A file, encrypted where there is a `key` of 32 bytes. Reads begin lazily; writes take the write lock at once, so
    that they never fail half-way with "database is locked"."""

    name = "sqlite"
    patience_seconds = BUSY_TIMEOUT_SECONDS

    def __init__(self, path: Path, key: bytes | None = None) -> None:
        self._path = path
        self._key = key

    def create(self) -> Engine:
        engine = create_engine(
            URL.create("sqlite", database=str(self._path)),
            **sqlcipher.options(self._path, self._key, BUSY_TIMEOUT_SECONDS),
            pool_size=8,
            max_overflow=24,
            pool_timeout=TURN_SECONDS,
            pool_use_lifo=True,  # the connection used last has its pages in memory
        )
        cache = f"PRAGMA cache_size = -{CACHE_KIB if self._key is None else sqlcipher.CACHE_KIB}"
        event.listen(engine, "connect", lambda connection, _record: _prepare(connection, (*PRAGMAS, cache)))
        event.listen(engine, "begin", _begin)
        return engine

    @contextmanager
    def reading(self, connection: Connection, deadline: Deadline) -> Iterator[None]:
        """A read sees one state from its first statement on; nothing of it needs to be told to the database."""
        if not deadline.ends:
            yield
            return
        self.limit(connection, deadline)
        try:
            yield
        finally:
            self.limit(connection, NEVER)

    def limit(self, connection: Connection, deadline: Deadline) -> None:
        looks = (lambda: deadline.expired) if deadline.ends else None
        _driver(connection).set_progress_handler(looks, STEPS_BETWEEN_CHECKS)

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
            return deadline.error
        if "locked" in text or "busy" in text:
            return ArchiveBusy(place=place)
        if "disk is full" in text or ("disk I/O error" in text and _has_no_room(self._path)):
            return StorageFull(place=place)
        if "readonly" in text or "unable to open" in text:
            return ArchiveReadOnly(place=place, reason=text)
        if "not a database" in text:
            return ArchiveDamaged(place=place, reason=_unreadable(self._path, self._key is not None))
        if "malformed" in text:
            return ArchiveDamaged(place=place, reason=text)
        return StorageFailed(reason=text)


def _prepare(connection: sqlite3.Connection, pragmas: Sequence[str]) -> None:
    connection.isolation_level = None  # the driver's own implicit transactions get in the way of BEGIN IMMEDIATE
    patience = Deadline.after(BUSY_TIMEOUT_SECONDS)
    for pragma in pragmas:
        _insist(connection, pragma, patience)


def _insist(connection: sqlite3.Connection, pragma: str, patience: Deadline) -> None:
    """Wait for others here: of several that open a new file, SQLite lets one make it WAL and tells the rest at once
    that it is locked, whatever its own timeout."""
    while True:
        try:
            connection.execute(pragma)
            return
        except connection.OperationalError as error:  # of the driver in use: SQLite's or SQLCipher's
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


def _unreadable(path: Path, encrypted: bool) -> str:
    """Why a file cannot be a database of this archive."""
    with suppress(OSError), path.open("rb") as file:
        if file.read(len(HEAD)) == HEAD and encrypted:
            return "it is not encrypted, as that of an encrypted archive has to be"
    return (
        "it is damaged, or encrypted with another key" if encrypted else "file is not a database, or an encrypted one"
    )


def version(connection: Connection) -> Hashable:
    """Equal for two moments on one connection only if nothing that it sees has changed in between: SQLite counts the
    commits of others, the driver what this connection wrote itself."""
    driver = _driver(connection)
    return driver.execute("PRAGMA data_version").fetchone()[0], driver.total_changes


def _driver(connection: Connection) -> sqlite3.Connection:
    driver = connection.connection.driver_connection
    return cast(sqlite3.Connection, driver)  # SQLCipher's driver is SQLite's, built anew
