"""The index that any vector database can be: it proposes neighbours, and the catalogue decides.

A search asks the database for more than it wants, takes those that pass, compares their true vectors, and goes deeper
until enough have passed. What the database does not hold yet is compared exactly, so nothing is ever missed; and while
it cannot be reached, everything is.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection

from audio_storage_system.clock import Deadline
from audio_storage_system.database import Database
from audio_storage_system.database.remembering import remembered
from audio_storage_system.errors import (
    AudioStorageSystemError,
    DeadlineExceeded,
    NotFound,
    VectorIndexMismatch,
    VectorIndexUnavailable,
)
from audio_storage_system.records import Space
from audio_storage_system.vectors import log, standing, stored
from audio_storage_system.vectors.base import Candidates, Difference, Ids, IndexState, Match, Scope, VectorIndex
from audio_storage_system.vectors.engines import Collection, Found, VectorEngine
from audio_storage_system.vectors.exact import Comparison
from audio_storage_system.vectors.filling import STEP_ROWS, Filler
from audio_storage_system.vectors.standing import Standing

logger = logging.getLogger(__name__)

# When so few embeddings pass that they can be listed, they are compared exactly: no database is as quick.
FEW = 2_000
# How many more than wanted are asked for at once, at least, and how much deeper each further question goes.
MARGIN = 16
DEEPER = 4
# Of a filter that lets a smaller share pass, what passes is listed and compared as a whole, by a database that can; and
# no smaller share is searched for at once.
FEW_OF_ALL, LEAST_SHARE = 0.05, 0.02
# Beyond this, equally near vectors are no longer all looked at to order them by id.
TIES = 2_000
# For how long a database that failed is not asked again.
PAUSE_SECONDS = 5.0
# How long to wait for an answer before looking whether it is still wanted.
TURN_SECONDS = 0.05
# Changes that are read to tell what an index has not followed yet from what it lacks.
MOST_CHANGES = 1_000_000


class EngineIndex(VectorIndex):
    """A vector database as the index of an archive. Safe to share between threads."""

    def __init__(
        self, database: Database, engine: VectorEngine, archive_id: str, *, few: int = FEW, step_rows: int = STEP_ROWS
    ) -> None:
        self.name = engine.address
        self.capabilities = engine.capabilities
        self.engine = engine
        self.database = database
        self._filler = Filler(database, engine, archive_id, step_rows)
        self._few = few
        self.failures: dict[int, tuple[AudioStorageSystemError, float]] = {}
        self._following = threading.Lock()
        _renew_lock_after_fork(self)

    def query(
        self, space: Space, vector: npt.NDArray[np.float32], *, limit: int, within: Candidates, deadline: Deadline
    ) -> list[Match]:
        unit = stored.checked(space, vector)
        deadline.check()
        if limit < 1:
            return []
        together = self.asks_only(self.database)
        with self.database.snapshot(deadline) if together else nullcontext():
            return self._nearest(Comparison(self.database, space, unit, limit, within, deadline))

    def _nearest(self, comparison: Comparison) -> list[Match]:
        space, within = comparison.space, comparison.within
        if (listed := within.ids(self._few)) is not None:
            return comparison.of_passing(listed.tolist())
        if not self._fits(space):
            return comparison.best_of_all()
        try:
            return self._asking(comparison)
        except (VectorIndexUnavailable, VectorIndexMismatch, NotFound) as error:
            self._note_failure(space, error)
            return self._by_itself(comparison, error)

    def follow(self, space: Space) -> None:
        """As promised; while the database cannot be reached it says so in the log, and leaves it at that."""
        with self._following:
            try:
                if self._fits(space):
                    self._filler.follow(space)
                self.failures.pop(space.id, None)
            except (VectorIndexUnavailable, NotFound) as error:  # not found: another process makes it anew
                self._note_failure(space, error)

    def rebuild(self, space: Space) -> IndexState:
        """As promised. Raises `VectorIndexUnavailable`."""
        with self._following:
            if self._fits(space):
                self._filler.start_over(space)
                self._filler.follow(space)
            self.failures.pop(space.id, None)
        return self.state(space)

    def forget(self, space: Space) -> None:
        with self._following:
            self._filler.forget(space)
        self.failures.pop(space.id, None)

    def state(self, space: Space) -> IndexState:
        with self.database.read() as connection:
            total = stored.count(connection, space)
            found = standing.searched(standing.find(connection, space, self.engine.address))
            missing = total if found is None else len(standing.newer(connection, space, found))
        return IndexState(total - missing, total)

    def differences(self, space: Space, *, deep: bool = False) -> Difference:
        """As promised; what each vector is, only the database itself knows. Raises `VectorIndexUnavailable`."""
        if not self._fits(space):
            return Difference()
        with self.database.read() as connection:
            found = standing.searched(standing.find(connection, space, self.engine.address))
            if found is None or found.loaded == 0:
                return Difference()
            if not log.reaches(connection, found.cursor):
                return Difference(reason="it has missed changes that are no longer in the log")
        try:
            held = [*self.engine.ids(self._filler.collection(space, found.number))]
        except NotFound:
            return Difference(reason="its collection is gone")
        return self._differing(space, found, np.concatenate(held) if held else np.empty(0, dtype=np.int64))

    def _differing(self, space: Space, found: Standing, held: Ids) -> Difference:
        """What is held against what ought to be; what has changed since the index last followed counts as neither."""
        with self.database.read() as connection:
            there = stored.ids_of(connection, space)
            open_ = log.changed(connection, found.cursor, MOST_CHANGES).embedding_ids
            behind = [*standing.newer(connection, space, found), *open_]
        twice = "" if len(held) == len(np.unique(held)) else "it holds an embedding twice"
        missing, surplus = np.setdiff1d(there, held), np.setdiff1d(held, there)
        return Difference(np.setdiff1d(missing, behind), np.setdiff1d(surplus, behind), twice)

    def lag(self, space: Space) -> IndexState | None:
        with self.database.read() as connection:
            found, newer = self._standing(connection, space)
        state = self.state(space) if found is None or newer else None
        return state if state and state.indexed < state.total else None

    def asks_only(self, database: Database) -> bool:
        return database is self.database and self.engine.asks_only(database)

    def close(self) -> None:
        self.engine.close()

    def _asking(self, comparison: Comparison) -> list[Match]:
        """The answer with the database's help; asked again when a collection was replaced in the meantime."""
        failure, at = self.failures.get(comparison.space.id, (None, 0))
        if failure and time.monotonic() < at + PAUSE_SECONDS:
            raise failure
        try:
            answer = self._once(comparison)
        except NotFound:
            answer = self._once(comparison)
        self.failures.pop(comparison.space.id, None)
        return answer

    def _once(self, comparison: Comparison) -> list[Match]:
        space = comparison.space
        with self.database.read(comparison.deadline) as connection:
            found, newer = self._standing(connection, space)
            if found is None:
                newer = stored.ids_of(connection, space).tolist()
        best = comparison.best_of(newer)
        if found is None or found.loaded == 0:
            return best
        collection, within = self._filler.collection(space, found.number), comparison.within
        scope, compares = within.scope(), self.capabilities.compares
        if compares and scope.share < FEW_OF_ALL and (listed := within.ids(compares)) is not None:
            return self._compared(collection, comparison, best, listed, scope)
        return self._deeper(collection, comparison, best, self._worth_asking(scope))

    def _standing(self, connection: Connection, space: Space) -> tuple[Standing | None, list[int]]:
        """The generation that searches ask, and which embeddings it may lack."""

        def find() -> tuple[Standing | None, list[int]]:
            found = standing.searched(standing.find(connection, space, self.engine.address))
            return found, standing.newer(connection, space, found) if found else []

        return remembered(connection, ("standing", self.engine.address, space.id), find)

    def _worth_asking(self, scope: Scope) -> Scope:
        """What the database is told of it; `share` is then that of what it answers."""
        if not self.capabilities.filters:
            return Scope(share=scope.share)
        if scope.audio_ids is not None and self.capabilities.worth_filtering < scope.share < 1:
            scope = replace(scope, audio_ids=None)
        return replace(scope, share=1.0) if scope.limits else scope

    def _compared(
        self, collection: Collection, comparison: Comparison, best: list[Match], listed: Ids, scope: Scope
    ) -> list[Match]:
        """The best of `best` and of all that pass, which the database compares."""
        depth = _spared(comparison.limit)
        compare = partial(self.engine.compare, collection, comparison.vector, listed, depth, scope)
        found = self._by_deadline(compare, comparison.deadline)
        best = comparison.merged(best, comparison.of_passing(found.ids.tolist()))
        if len(found.ids) < depth or _enough(best, found, comparison.limit, self.capabilities.precision):
            return best
        return comparison.merged(best, comparison.of_passing(listed.tolist()))

    def _deeper(self, collection: Collection, comparison: Comparison, best: list[Match], scope: Scope) -> list[Match]:
        """The best of `best` and of what the database finds, asking for more until enough of it passes."""
        most = self.capabilities.max_results
        depth = min(most, math.ceil(_spared(comparison.limit) / max(scope.share, LEAST_SHARE)))
        seen: set[int] = set()
        while depth <= most:
            search = partial(self.engine.search, collection, comparison.vector, depth, scope)
            found = self._by_deadline(search, comparison.deadline)
            fresh = [id_ for id_ in found.ids.tolist() if id_ not in seen]
            best = comparison.merged(best, comparison.of_passing(comparison.within.admit(fresh)))
            seen.update(fresh)
            if len(found.ids) < depth or _enough(best, found, comparison.limit, self.capabilities.precision):
                return best
            depth = most if depth < most < DEEPER * depth else DEEPER * depth
        return comparison.best_of_all()

    def _by_deadline(self, ask: Callable[[], Found], deadline: Deadline) -> Found:
        """What the database answers. Raises `DeadlineExceeded`."""
        if not self.engine.asks_only(self.database):
            return _by_deadline(ask, deadline)
        try:  # in the snapshot, which ends by the deadline
            return ask()
        except VectorIndexUnavailable:
            deadline.check()
            raise

    def _by_itself(self, comparison: Comparison, error: AudioStorageSystemError) -> list[Match]:
        """The answer without the database."""
        try:
            return comparison.best_of_all()
        except DeadlineExceeded as late:
            reason = (
                "So every vector had to be compared, and the deadline passed. Check the database, or allow more time"
            )
            raise DeadlineExceeded(
                f"{str(error).rstrip('.')}. {reason}.", seconds=comparison.deadline.seconds
            ) from late

    def _note_failure(self, space: Space, error: AudioStorageSystemError) -> None:
        """Say it once, until the database has answered again."""
        before = self.failures.get(space.id)
        if before is None:
            logger.warning("%s. Until it answers, searches compare every vector.", str(error).rstrip("."))
        if before is None or error is not before[0]:
            self.failures[space.id] = error, time.monotonic()

    def _fits(self, space: Space) -> bool:
        """Whether the database takes vectors as long as these; others are compared exactly."""
        return space.dimension <= self.capabilities.max_dimension


def _spared(limit: int) -> int:
    """How many neighbours are asked for to get `limit`."""
    return limit + max(MARGIN, limit // 4)


def _enough(best: list[Match], found: Found, limit: int, precision: float) -> bool:
    """Whether nothing that the database has not shown yet can belong to the `limit` best."""
    full = len(best) == limit
    return full and (found.similarities[-1] < best[-1].similarity - precision or len(found.ids) >= TIES + 2 * limit)


def _by_deadline(call: Callable[[], Found], deadline: Deadline) -> Found:
    """What `call` returns, or what the deadline raises once it has come: a request cannot be broken off, but left."""
    if not deadline.ends:
        return call()
    answer: Future[Found] = Future()

    def run() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    while not wait([answer], min(deadline.left, TURN_SECONDS)).done:
        deadline.check()
    return answer.result()


def _renew_lock_after_fork(index: EngineIndex) -> None:
    """Another thread of the parent may hold the lock at the moment of the fork; in the child nobody would let it go."""
    if not hasattr(os, "register_at_fork"):
        return
    reference = weakref.ref(index)

    def renew() -> None:
        if (inherited := reference()) is not None:
            inherited._following = threading.Lock()

    os.register_at_fork(after_in_child=renew)
