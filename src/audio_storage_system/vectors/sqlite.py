"""The vector index of SQLite archives: no engine, the BLOBs are the truth.

A search scans codes of 1 bit per dimension, takes the closest that pass, and compares their vectors exactly. What is
newer than the codes is compared exactly in any case.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from audio_storage_system.clock import Deadline
from audio_storage_system.database import Database
from audio_storage_system.database.remembering import remembered
from audio_storage_system.errors import ArchiveBusy, ArchiveReadOnly, StorageFull
from audio_storage_system.records import Space
from audio_storage_system.vectors import generations, stored
from audio_storage_system.vectors.base import Candidates, Capabilities, Difference, IndexState, Match, VectorIndex
from audio_storage_system.vectors.differences import of_codes
from audio_storage_system.vectors.exact import ExactIndex
from audio_storage_system.vectors.following import DEFAULT_SIZES, Follower, Sizes
from audio_storage_system.vectors.generations import prune_change_log
from audio_storage_system.vectors.searching import DEFAULT_PRECISION, Precision, Search
from audio_storage_system.vectors.views import State, View, refresh

__all__ = ["SQLiteIndex", "prune_change_log"]

# How long to wait for others who bring the codes up to date before looking whether an answer is still wanted.
TURN_SECONDS = 0.05


class SQLiteIndex(VectorIndex):
    """Safe to share between threads; sees what other processes add and delete at the next query."""

    name = "sqlite"
    capabilities = Capabilities()

    def __init__(
        self, database: Database, sizes: Sizes = DEFAULT_SIZES, precision: Precision = DEFAULT_PRECISION
    ) -> None:
        self._database = database
        self._sizes = sizes
        self._precision = precision
        self._follower = Follower(database, sizes)
        self._exact = ExactIndex(database)
        self._views: dict[int, View] = {}
        self._renew_locks()
        _renew_locks_after_fork(self)

    def _renew_locks(self) -> None:
        self._viewing = threading.Lock()
        self._following = threading.Lock()

    def query(
        self, space: Space, vector: npt.NDArray[np.float32], *, limit: int, within: Candidates, deadline: Deadline
    ) -> list[Match]:
        unit = stored.checked(space, vector)
        if limit < 1:
            return []
        view = self._view(space, deadline)
        if view.overfull:  # and could not be indexed here
            return self._exact.query(space, unit, limit=limit, within=within, deadline=deadline)
        return Search(self._database, space, view, unit, limit, within, deadline, self._precision).run()

    def asks_only(self, database: Database) -> bool:
        return database is self._database

    def prepare(self, space: Space, deadline: Deadline) -> None:
        self._view(space, deadline)

    def follow(self, space: Space) -> None:
        with self._following:
            self._follower.follow(space, Deadline.after(None), refine=True)

    def rebuild(self, space: Space) -> IndexState:
        with self._following:
            self._follower.start_over(space)
            self._follower.follow(space, Deadline.after(None), refine=True)
        return self.state(space)

    def forget(self, space: Space) -> None:
        with self._following, self._database.write() as connection:
            generations.forget(connection, [space.id])
        self._views.pop(space.id, None)

    def state(self, space: Space) -> IndexState:
        """Embeddings newer than the codes count as indexed while there are so few that searches compare them all."""
        with self._database.read() as connection:
            total = stored.count(connection, space)
            generation = generations.find(connection, space, complete=True)
            coded = generations.size(connection, generation) if generation else 0
        return IndexState(total if total - coded <= self._sizes.tail else min(coded, total), total)

    def differences(self, space: Space, *, deep: bool = False) -> Difference:
        with self._database.read() as connection:
            return of_codes(connection, space, deep=deep)

    def _view(self, space: Space, deadline: Deadline) -> View:
        with self._database.read(deadline) as connection:
            state = remembered(connection, ("vectors", space.id), lambda: State.read(connection, space))
        view = self._views.get(space.id)
        if view is not None and not view.overfull and view.state.stamp == state.stamp:
            return view
        view = self._refreshed(space, deadline)
        behind = view.overfull or view.state.lag > self._sizes.lag
        if behind and not self._database.in_snapshot and self._folded(space, deadline):
            view = self._refreshed(space, deadline)
        return view

    def _refreshed(self, space: Space, deadline: Deadline) -> View:
        with self._database.read(deadline) as connection, _held(self._viewing, deadline):
            view = refresh(connection, space, self._views.get(space.id), most=self._sizes.tail)
            self._views[space.id] = view
        return view

    def _folded(self, space: Space, deadline: Deadline) -> bool:
        """Encode what is new; whether that could be written."""
        try:
            with _held(self._following, deadline):
                self._follower.follow(space, deadline, refine=False)
        except (ArchiveReadOnly, ArchiveBusy, StorageFull):
            return False
        return True


def _renew_locks_after_fork(index: SQLiteIndex) -> None:
    """Another thread of the parent may hold a lock at the moment of the fork; in the child nobody would let it go."""
    if not hasattr(os, "register_at_fork"):
        return
    reference = weakref.ref(index)

    def renew() -> None:
        if (inherited := reference()) is not None:
            inherited._renew_locks()

    os.register_at_fork(after_in_child=renew)


@contextmanager
def _held(lock: threading.Lock, deadline: Deadline) -> Iterator[None]:
    while not lock.acquire(timeout=min(deadline.left, TURN_SECONDS)):
        deadline.check()
    try:
        yield
    finally:
        lock.release()
