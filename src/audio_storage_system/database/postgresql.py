"""What is special about PostgreSQL: its pool, its kinds of transaction, and its error codes."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError

from audio_storage_system.clock import Deadline
from audio_storage_system.database.dialect import Dialect, Pool, Shared
from audio_storage_system.errors import (
    ArchiveBusy,
    ArchiveDamaged,
    ArchiveReadOnly,
    AudioStorageSystemError,
    DatabaseRefused,
    DatabaseUnavailable,
    InvalidInput,
    InvalidSetting,
    MissingExtra,
    StorageFailed,
    StorageFull,
)
from audio_storage_system.locations import redacted

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_SECONDS = 5
LOCK_TIMEOUT = "30s"
# Between two requests to break off a statement.
AGAIN_SECONDS = 0.2
# How long to wait for a connection in use before looking at the clock again.
TURN_SECONDS = 0.1
# A parameter of the address that is not libpq's but the driver's: poolers such as PgBouncer ask for it.
PREPARE = "prepare_threshold"
SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")

# Where a connection has the deadline of its read, if that can be brought about.
_DEADLINE = f"{__name__}.deadline"
_READING = text("SELECT set_config('statement_timeout', :milliseconds, true)")
_WRITING = text("SELECT set_config('lock_timeout', :lock_timeout, true)")
_SNAPSHOT = text("SELECT CAST(pg_current_snapshot() AS text)")
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")
_LOCK_SHARED = text("SELECT pg_advisory_xact_lock_shared(hashtextextended(:name, 0))")


_VACUUM = (
    "VACUUM audio_files, transcripts, transcription_windows, segments, passages, embeddings, metadata,"
    " metadata_history, annotations, jobs, trash, grants, data_keys"
)
_VACUUM_SEARCH = "VACUUM passage_search"


class PostgreSQL(Dialect):
    """A database on a server. Reads see one snapshot; writers run side by side unless they name the same thing."""

    name = "postgresql"

    def __init__(self, url: str, pool: Pool) -> None:
        self._url = _parsed(url)
        self._pool = pool
        self.patience_seconds = pool.timeout

    def create(self) -> Engine:
        given = self._url.query
        defaults = {"connect_timeout": CONNECT_TIMEOUT_SECONDS, "application_name": "audio-storage"}
        arguments: dict[str, Any] = {name: value for name, value in defaults.items() if name not in given}
        if PREPARE in given:
            arguments[PREPARE] = _threshold(str(given[PREPARE]))
        try:
            engine = create_engine(
                self._url.difference_update_query([PREPARE]),
                connect_args=arguments,
                pool_size=self._pool.size,
                max_overflow=self._pool.overflow,
                pool_timeout=TURN_SECONDS,
                pool_recycle=int(self._pool.recycle),
                pool_pre_ping=self._pool.pre_ping,
                pool_use_lifo=True,  # the connection used last knows most: statements, and facts that still hold
            )
        except ModuleNotFoundError as error:
            raise MissingExtra(what="PostgreSQL", extra="postgres") from error
        event.listen(engine, "before_cursor_execute", _look)
        return engine

    @contextmanager
    def reading(self, connection: Connection, deadline: Deadline) -> Iterator[None]:
        connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        with connection.begin():
            if deadline.timed:
                self.limit(connection, deadline)
            with _cancelled_by(deadline, connection):
                yield

    def limit(self, connection: Connection, deadline: Deadline) -> None:
        connection.execute(_READING, {"milliseconds": _milliseconds(deadline)})

    @contextmanager
    def attempting(self, connection: Connection, deadline: Deadline, before: Deadline) -> Iterator[None]:
        """Going back to where it began undoes what was set, the time-out too, and lets the transaction live on."""
        connection.exec_driver_sql(f"SAVEPOINT attempt; SET LOCAL statement_timeout = {_milliseconds(deadline)}")
        try:
            yield
        finally:
            if not connection.invalidated:
                connection.exec_driver_sql("ROLLBACK TO SAVEPOINT attempt")

    @contextmanager
    def writing(self, connection: Connection, names: Sequence[str]) -> Iterator[None]:
        """Each statement sees what others have committed by then, so what is read under a name is true."""
        connection.execution_options(writes=True)
        with connection.begin():
            connection.execute(_WRITING, {"lock_timeout": LOCK_TIMEOUT})
            for name in names:  # in one order everywhere, so that no two wait for each other
                connection.execute(_LOCK_SHARED if isinstance(name, Shared) else _LOCK, {"name": str(name)})
            yield

    def clean(self, engine: Engine) -> bool:
        """The room of deleted rows is given free, to be written over. A table of somebody else's is left to them."""
        with engine.connect() as connection:
            connection = connection.execution_options(isolation_level="AUTOCOMMIT")
            for statement in (_VACUUM, _VACUUM_SEARCH):
                try:
                    connection.exec_driver_sql(statement)
                except DBAPIError as error:  # the second table may have been dropped: it is made anew
                    logger.warning("What was deleted is left to autovacuum: %s", _reason(error))
                    return False
        return True

    def translate(self, error: DBAPIError, place: str, deadline: Deadline) -> AudioStorageSystemError:
        reason, state = _reason(error), getattr(error.orig, "sqlstate", None) or ""
        if state == "57014":
            return deadline.error
        if state in ("40001", "40P01", "55P03", "53300"):
            return ArchiveBusy(place=place)
        if state == "22003":
            return InvalidInput(reason="a number is too large for the catalogue")
        if state == "53100":
            return StorageFull(place=place)
        if state == "25006":
            return ArchiveReadOnly(place=place, reason=reason)
        if state in ("XX001", "XX002"):
            return ArchiveDamaged(place=place, reason=reason)
        if state.startswith("28") or state in ("3D000", "42501") or _is_refusal(reason):
            return DatabaseRefused(place=place, reason=reason)
        if state.startswith(("08", "57P")) or error.connection_invalidated or _is_lost(error):
            return DatabaseUnavailable(place=place, reason=reason)
        return StorageFailed(reason=reason)


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # whose words may hold what the address holds
        raise InvalidSetting(name="database_url", reason=f"{redacted(url)} is no address of a database") from None
    if parsed.drivername not in SCHEMES:
        raise InvalidSetting(name="database_url", reason=f"{redacted(url)} does not begin with postgresql://")
    return parsed.set(drivername="postgresql+psycopg")


def _threshold(value: str) -> int | None:
    """After how many times a statement is prepared on the server; `None`: never."""
    if value.lower() == "none":
        return None
    if not value.isdecimal():
        raise InvalidSetting(name="database_url", reason=f'its {PREPARE} is a number or "none"')
    return int(value)


@contextmanager
def _cancelled_by(deadline: Deadline, connection: Connection) -> Iterator[None]:
    """Have the server break off the statement that runs when the deadline is brought about, and begin no other. The
    request for that may reach the server late: nobody else gets a connection that was cancelled."""
    if deadline.cancellation is None:
        yield
        return
    told = connection.info
    told[_DEADLINE] = deadline
    try:
        with _breaking_off(connection.connection.driver_connection) as break_off, deadline.stopping(break_off):
            yield
    finally:
        del told[_DEADLINE]  # on what is lost, the connection itself can be asked nothing
        if deadline.cancelled and not connection.invalidated:
            connection.invalidate()


@contextmanager
def _breaking_off(driver: Any) -> Iterator[Callable[[], None]]:
    """What is called, once, to have the server asked to break off what runs on this connection. It is asked again and
    again until the block ends, from a thread: a request that comes before the statement it is about goes unheard."""
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            with suppress(Exception):  # it may have ended, or the server is gone: `check` ends the read all the same
                driver.cancel_safe(timeout=CONNECT_TIMEOUT_SECONDS)
            over.wait(AGAIN_SECONDS)

    asking = threading.Thread(target=ask, name="cancellation", daemon=True)
    try:
        yield asking.start
    finally:
        over.set()
        if asking.ident is not None:
            asking.join()


def _look(connection: Connection, *_: Any) -> None:
    """Before each statement, as SQLAlchemy calls it."""
    if (deadline := connection.info.get(_DEADLINE)) is not None:
        deadline.check()


def _milliseconds(deadline: Deadline) -> str:
    """What is left, for the server, at least 1; 0 means for ever. Rounded up: what it stops is over then."""
    if not deadline.timed:
        return "0"
    return str(max(1, math.ceil(1000 * deadline.left)))


def _reason(error: DBAPIError) -> str:
    """The first line of what the server or the driver said."""
    lines = [line.strip() for line in str(error.orig).splitlines() if line.strip()]
    return (lines[-1] if "Multiple connection attempts" in str(error.orig) else lines[0]).lstrip("- ") if lines else ""


def _is_refusal(reason: str) -> bool:
    """While connecting the driver gives no code, only the server's words."""
    words = ("authentication failed", "no password supplied", "does not exist", "no pg_hba.conf entry", "not permitted")
    return "FATAL" in reason and any(word in reason for word in words)


def _is_lost(error: DBAPIError) -> bool:
    return type(error.orig).__name__ == "OperationalError" and not getattr(error.orig, "sqlstate", None)


def version(connection: Connection) -> Hashable:
    """Equal for two moments only if no transaction that writes has begun or ended in between. Asked once in each
    transaction that reads, which sees one state throughout; one that writes is never the same twice."""
    if connection.get_execution_options().get("writes"):
        return object()
    known: tuple[object, str] = connection.info.get(__name__, (None, ""))
    transaction = connection.get_transaction()
    if known[0] is not transaction:
        known = transaction, str(connection.execute(_SNAPSHOT).scalar_one())
        connection.info[__name__] = known
    return known[1]
