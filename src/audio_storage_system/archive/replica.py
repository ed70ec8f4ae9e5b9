"""Searching on a copy of the database that follows it, without ever missing what this process has written itself."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import text

from audio_storage_system.database import Database
from audio_storage_system.errors import StorageFailed, VectorIndexUnavailable
from audio_storage_system.vectors import VectorIndex

logger = logging.getLogger(__name__)

# For how long a replica that failed is not asked again.
PAUSE_SECONDS = 5.0

_WRITTEN = text("SELECT CAST(pg_current_wal_insert_lsn() AS text)")
# A server that is no replica has replayed nothing, and lacks nothing.
_ARRIVED = text("SELECT coalesce(pg_last_wal_replay_lsn() >= CAST(:written AS pg_lsn), NOT pg_is_in_recovery())")

T = TypeVar("T")


class Replica:
    """One replica of `primary`. It is asked only once it has replayed the last write of this process, and whatever goes
    wrong there is asked of the primary instead."""

    def __init__(self, primary: Database, replica: Database, open_index: Callable[[Database], VectorIndex]) -> None:
        self._primary = primary
        self._replica = replica
        self._open_index = open_index
        self._index: VectorIndex | None = None
        self._lock = threading.Lock()
        self._noted = -1
        self._written = "0/0"
        self._arrived = False
        self._paused_until = 0.0

    def ask(self, question: Callable[[Database, VectorIndex], T]) -> T | None:
        """The replica's answer; `None` when the primary has to be asked."""
        if time.monotonic() < self._paused_until:
            return None
        try:
            if not self._has_everything():
                return None
            with self._lock:
                self._index = self._index or self._open_index(self._replica)
            return question(self._replica, self._index)
        except (StorageFailed, VectorIndexUnavailable) as error:
            logger.warning("The replica cannot be searched, the primary is: %s", error)
            self._paused_until = time.monotonic() + PAUSE_SECONDS
            return None

    def close(self) -> None:
        """Close every connection to it."""
        if self._index is not None:
            self._index.close()
        self._replica.close()

    def _has_everything(self) -> bool:
        """Whether it has replayed what this process had written until now."""
        with self._lock:
            if self._noted != self._primary.writes:
                self._noted, self._arrived = self._primary.writes, False
                with self._primary.read() as connection:
                    self._written = str(connection.execute(_WRITTEN).scalar_one())
            if not self._arrived:
                with self._replica.read() as connection:
                    self._arrived = bool(connection.execute(_ARRIVED, {"written": self._written}).scalar_one())
            return self._arrived
