"""Opening a database, and its two kinds of transaction: read and write."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.exc import DBAPIError, PendingRollbackError, StatementError, TimeoutError

from audio_storage_system.clock import NEVER, Deadline
from audio_storage_system.database.dialect import Dialect, Pool
from audio_storage_system.database.postgresql import PostgreSQL
from audio_storage_system.database.sqlite import SQLite
from audio_storage_system.errors import ArchiveBusy, AudioStorageSystemError, DatabaseUnavailable, InvalidInput
from audio_storage_system.locations import redacted

DEFAULT_POOL = Pool()
_ENDS = f"{__name__}.ends"


class Ending(Enum):
    """How a transaction that writes ended. `UNKNOWN`: the commit failed, and may have happened all the same."""

    COMMITTED = auto()
    ROLLED_BACK = auto()
    UNKNOWN = auto()


def on_end(connection: Connection, tell: Callable[[Ending], None]) -> None:
    """Have `tell` called once the write transaction of this connection has ended, in the thread that it belongs to. It
    asks nothing of the database and raises nothing."""
    connection.info[_ENDS].append(tell)


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """What the reads of a thread have in common, and when the one that is under way has to end."""

    connection: Connection
    deadline: Deadline

    def until(self, deadline: Deadline) -> _Snapshot:
        """The same, ending at this deadline if that is earlier."""
        return _Snapshot(self.connection, self.deadline.earlier(deadline))


class Database:
    """One database. Safe to share between threads; after a fork the child opens connections of its own."""

    def __init__(self, dialect: Dialect, place: str) -> None:
        self.dialect = dialect
        self.engine: Engine = dialect.create()
        self.place = place
        self.writes = 0  # how many write transactions this process has ended: a replica asks for it
        self._of_thread = threading.local()
        reopen_after_fork(self.engine)

    @classmethod
    def open(cls, path: Path, key: bytes | None = None) -> Database:
        """The SQLite database in this file, made when missing; encrypted with `key` (32 bytes) where there is one."""
        return cls(SQLite(path, key), str(path))

    @classmethod
    def connect(cls, url: str, pool: Pool = DEFAULT_POOL) -> Database:
        """The PostgreSQL database at this address, which must exist. Raises `InvalidSetting`, `DatabaseUnavailable`."""
        return cls(PostgreSQL(url, pool), redacted(url))

    @contextmanager
    def read(self, deadline: Deadline = NEVER) -> Iterator[Connection]:
        """A connection that sees one state of the database throughout; its queries end at `deadline`.

        Inside a `snapshot` of this thread it is that one, and the earlier of the two deadlines holds. Raises
        `DeadlineExceeded`, `Cancelled`, or the `StorageFailed` that fits what the database says.
        """
        if (outer := self._snapshot) is not None:
            with self._joined(outer, deadline) as connection:
                yield connection
            return
        with (
            self.translated(deadline),
            self._connect(deadline) as connection,
            self.dialect.reading(connection, deadline),
        ):
            yield connection

    @contextmanager
    def snapshot(self, deadline: Deadline = NEVER) -> Iterator[None]:
        """One transaction for every `read` of this thread in the block: all see the state in which it begins, and none
        waits for a connection of its own. For what consists of many small reads; nothing is written in it, and no model
        or service asked. After an error of the database it can read nothing more, save for one inside `attempt`.
        """
        if self._snapshot is not None:
            yield
            return
        with self.read(deadline) as connection, self._within(_Snapshot(connection, deadline)):
            yield

    @contextmanager
    def attempt(self, deadline: Deadline = NEVER) -> Iterator[Connection]:
        """As `read`, for what may fail: the `snapshot` around it goes on after an error. What is set for the
        transaction in the block is undone with it."""
        outer = self._snapshot
        if outer is None:
            with self.read(deadline) as connection:
                yield connection
            return
        inner = outer.until(deadline)
        with (
            self.translated(inner.deadline),
            self.dialect.attempting(outer.connection, inner.deadline, outer.deadline),
            self._within(inner),
        ):
            yield inner.connection

    @contextmanager
    def _joined(self, outer: _Snapshot, deadline: Deadline) -> Iterator[Connection]:
        """The connection of a snapshot, whose statements end at the earlier deadline until the block does."""
        inner = outer.until(deadline)
        with self.translated(inner.deadline):
            if inner.deadline.ends:
                self.dialect.limit(inner.connection, inner.deadline)
            with self._within(inner):
                yield inner.connection
            if inner.deadline is not outer.deadline:
                self.dialect.limit(outer.connection, outer.deadline)

    @contextmanager
    def _within(self, snapshot: _Snapshot | None) -> Iterator[None]:
        before, self._of_thread.snapshot = self._snapshot, snapshot
        try:
            yield
        finally:
            self._of_thread.snapshot = before

    @property
    def in_snapshot(self) -> bool:
        """Whether this thread is inside a `snapshot`, which sees nothing of what is written meanwhile."""
        return self._snapshot is not None

    @property
    def _snapshot(self) -> _Snapshot | None:
        """What the reads of this thread are part of."""
        found: _Snapshot | None = getattr(self._of_thread, "snapshot", None)
        return found

    @contextmanager
    def write(self, *names: str) -> Iterator[Connection]:
        """A transaction that commits when the block ends and rolls back when it raises. Keep it short: on SQLite there
        is one writer at a time.

        Where writers run side by side, those that give the same name wait for each other: what one has read stays true
        until it has written. `names` are of the form `recording:17`; those who give one as `Shared` wait only for those
        who do not. Nobody waits in a circle as long as every transaction keeps to the order in `catalogue/locks.py`, so
        a deadlock is a mistake there: it ends as `ArchiveBusy`, and the step may be repeated, but not by itself here.
        """
        ending, ends = Ending.ROLLED_BACK, list[Callable[[Ending], None]]()
        try:
            with (
                self.translated(NEVER),
                self._connect(NEVER) as connection,
                self.dialect.writing(connection, sorted(names)),
            ):
                connection.info[_ENDS] = ends
                yield connection
                ending = Ending.UNKNOWN
            ending = Ending.COMMITTED
        finally:
            for tell in ends:
                tell(ending)
        self.writes += 1

    @contextmanager
    def alone(self, name: str) -> Iterator[Connection | None]:
        """For long work on a server that no transaction may contain: each statement is one of its own. `None` when
        somebody else has the name already.

        The name is held by a transaction on a second connection, which ends with it whatever happens; a lock of the
        session would be lost where a pooler hands every statement to another session.
        """
        with self.translated(NEVER), self._connect(NEVER) as guard, guard.begin():
            key = func.hashtextextended(name, 0)
            if not guard.execute(select(func.pg_try_advisory_xact_lock(key))).scalar_one():
                yield None
                return
            # The answer to a query holds a snapshot until the next statement, and some work waits for these to go.
            guard.exec_driver_sql("SET LOCAL lock_timeout = 0")
            with self._connect(NEVER) as connection:
                yield connection.execution_options(isolation_level="AUTOCOMMIT")

    def clean(self) -> bool:
        """Let go of what deleted rows have left in the database's files; whether that is done, as others may be in the
        way. Slow on a server, where it looks through whole tables. Raises the `StorageFailed` that fits."""
        with self.translated(NEVER):
            return self.dialect.clean(self.engine)

    def _connect(self, deadline: Deadline) -> Connection:
        """A connection, waited for until the deadline where all are in use, but no longer than for a lock.

        Whoever holds one must not ask for a second: all could be held by others who do the same.
        """
        patience = Deadline.after(self.dialect.patience_seconds)
        while True:
            try:
                return self.engine.connect()
            except TimeoutError as error:
                deadline.check()
                if patience.expired:
                    raise ArchiveBusy(place=self.place) from error

    @contextmanager
    def translated(self, deadline: Deadline = NEVER, place: str | None = None) -> Iterator[None]:
        """Raises what the database's driver says as the `StorageFailed` that fits, or `DeadlineExceeded`. place: what
        they are to name instead of this database."""
        place = place or self.place
        try:
            yield
        except DBAPIError as error:
            raise self.dialect.translate(error, place, deadline) from error
        except PendingRollbackError as error:  # the connection was lost by a statement before
            raise DatabaseUnavailable(place=place, reason="the connection was lost") from error
        except StatementError as error:  # what our own column types refuse
            raise error.orig if isinstance(error.orig, AudioStorageSystemError) else error from error
        except OverflowError as error:
            raise InvalidInput(reason="a number is too large for the catalogue") from error

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()


def reopen_after_fork(engine: Engine) -> None:
    """A connection must not be used on both sides of a fork: the child forgets the parent's without closing them."""
    if not hasattr(os, "register_at_fork"):
        return
    reference = weakref.ref(engine)

    def forget() -> None:
        if (inherited := reference()) is not None:
            inherited.dispose(close=False)

    os.register_at_fork(after_in_child=forget)
