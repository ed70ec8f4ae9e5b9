"""How a vector database follows the catalogue: in steps, each a read, requests to the database, then one short write.

No transaction is open during a request. Every step can be repeated, so any number of processes may take the same one,
and one that is killed is taken again. What a process read and put in may have been deleted by then, and another process
have taken it out already: therefore it looks once more after putting in, and takes out what no longer exists.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from audio_storage_system.database import Database
from audio_storage_system.errors import NotFound
from audio_storage_system.records import Space
from audio_storage_system.vectors import log, standing, stored
from audio_storage_system.vectors.base import Ids
from audio_storage_system.vectors.engines import Collection, Points, VectorEngine
from audio_storage_system.vectors.standing import Standing

logger = logging.getLogger(__name__)

# Embeddings or changes per step: what a crash can make a process do again.
STEP_ROWS = 5_000
# Changes of other things than embeddings that are let lie before the cursor moves on: no write for nothing.
IDLE_CHANGES = 1_000
# How long a difference in counts must last to be one: another process may be in the middle of a request.
SETTLED_SECONDS = 0.2
# Counting takes as long as there are vectors: so few are counted whenever something is followed, more of them only so
# often in each process.
COUNTED_ALWAYS, COUNTED_EVERY_SECONDS = 10_000, 600.0


@dataclass(frozen=True)
class Filler:
    """Keeps the collections of one archive in one vector database."""

    database: Database
    engine: VectorEngine
    archive_id: str
    step_rows: int = STEP_ROWS
    _counted: dict[int, tuple[int, float]] = field(default_factory=dict)  # by space: how many, and when

    def collection(self, space: Space, number: int) -> Collection:
        """The collection of this generation."""
        return Collection(f"{self._prefix(space)}{number}", space.model, space.dimension)

    def follow(self, space: Space) -> None:
        """Take steps until the database holds what the catalogue holds. Collections that are gone, that missed changes,
        or that are found to hold another number of vectors, are made anew."""
        self._tidy(space)
        changed = False
        while self._step(space):
            changed = True
        if changed and (now := self._target(space)) is not None:
            self.engine.settle(self.collection(space, now.number), deleted=False)
        if self.engine.capabilities.counts and self._is_due(space) and self._miscounts(space):
            logger.warning("The vector index at %s differs from the catalogue: making it anew", self.engine.address)
            self.start_over(space, discard=True)
            while self._step(space):
                pass

    def start_over(self, space: Space, *, discard: bool = False) -> None:
        """Begin a new generation; searches use the old one until `follow` has filled the new one, or with `discard` not
        at all."""
        with self.database.write(self._name(space)) as connection:
            lost = standing.find(connection, space, self.engine.address) if discard else []
            standing.begin(connection, space, self.engine.address, lost)

    def forget(self, space: Space) -> None:
        """Remove every collection of this space. The catalogue forgets them first: a search that finds none compares
        exactly, while one that misses a collection it was told of would have it made anew."""
        with self.database.write(self._name(space)) as connection:
            standing.forget(connection, space, self.engine.address)
        for name in self.engine.names(self._prefix(space)):
            self.engine.drop(name)

    def _tidy(self, space: Space) -> None:
        """Remove collections that the catalogue does not know, and forget those that are not there."""
        there = self.engine.names(self._prefix(space))  # before the catalogue, which knows of each before it is made
        known = self._standings(space)
        for name in there - {self.collection(space, one.number).name for one in known}:
            self.engine.drop(name)
        lost = [one for one in known if one.loaded != 0 and self._lost(space, one, there)]
        if lost:
            logger.warning("The vector index at %s is gone or too old: making it anew", self.engine.address)
            with self.database.write(self._name(space)) as connection:
                standing.begin(connection, space, self.engine.address, lost)

    def _lost(self, space: Space, one: Standing, there: set[str]) -> bool:
        collection = self.collection(space, one.number)
        with self.database.read() as connection:
            if not log.reaches(connection, one.cursor):
                return True
        if collection.name in there:
            self.engine.ensure(collection)
            return False
        try:  # another process may have made it since
            self.engine.count(collection)
        except NotFound:
            return True
        return False

    def _step(self, space: Space) -> bool:
        """Whether there may be more to do."""
        target = self._target(space)
        if target is None:
            if not self._total(space):
                return False
            self._begin(space)
            return True
        if target.loaded is not None:
            return self._load(space, target, target.loaded)
        return self._apply(space, target)

    def _begin(self, space: Space) -> None:
        with self.database.write(self._name(space)) as connection:
            if not standing.find(connection, space, self.engine.address):
                standing.begin(connection, space, self.engine.address)

    def _load(self, space: Space, target: Standing, loaded: int) -> bool:
        collection = self.collection(space, target.number)
        if not loaded:
            self.engine.ensure(collection)
        with self.database.read() as connection:
            points = standing.points_after(connection, space, loaded, self.step_rows)
        self._put(collection, points)
        more = len(points) == self.step_rows
        with self.database.write() as connection:
            if more:
                standing.load(connection, space, self.engine.address, target, int(points.ids[-1]))
            else:
                standing.complete(connection, space, self.engine.address, target)
        if not more:
            self._drop_older(space, target)
        return True

    def _apply(self, space: Space, target: Standing) -> bool:
        collection = self.collection(space, target.number)
        with self.database.read() as connection:
            changes = log.changed(connection, target.cursor, self.step_rows)
            points = standing.points_of(connection, space, changes.embedding_ids)
            gone = _missing(changes.embedding_ids, standing.existing(connection, changes.embedding_ids))
        if not changes.embedding_ids and changes.upto.id - target.cursor.id < IDLE_CHANGES:
            return False
        self._put(collection, points)
        self._take(collection, gone)
        with self.database.write() as connection:
            standing.advance(connection, space, self.engine.address, target, changes.upto)
        return bool(changes.embedding_ids)

    def _put(self, collection: Collection, points: Points) -> None:
        for batch in points.batches(self.engine.capabilities.max_batch):
            self.engine.upsert(collection, batch)
        ids = points.ids.tolist()
        with self.database.read() as connection:
            gone = _missing(ids, standing.existing(connection, ids))
        self._take(collection, gone)

    def _take(self, collection: Collection, ids: Ids) -> None:
        size = self.engine.capabilities.max_batch
        for start in range(0, len(ids), size):
            self.engine.delete(collection, ids[start : start + size])
        if len(ids):
            self.engine.settle(collection, deleted=True)

    def _drop_older(self, space: Space, target: Standing) -> None:
        known = {self.collection(space, one.number).name for one in self._standings(space)}
        for name in self.engine.names(self._prefix(space)) - known:
            self.engine.drop(name)

    def _is_due(self, space: Space) -> bool:
        """Whether to count the vectors again."""
        count, at = self._counted.get(space.id, (0, 0.0))
        return count <= COUNTED_ALWAYS or time.monotonic() >= at + COUNTED_EVERY_SECONDS

    def _miscounts(self, space: Space) -> bool:
        """Whether the database holds another number of vectors than it should, while nobody is changing anything."""
        for _ in range(2):
            before = self._quiet(space)
            if before is None or before[1] == self.engine.count(self.collection(space, before[0].number)):
                self._counted[space.id] = before[1] if before else 0, time.monotonic()
                return False
            time.sleep(SETTLED_SECONDS)
            if self._quiet(space) != before:
                return False
        return True

    def _quiet(self, space: Space) -> tuple[Standing, int] | None:
        """The generation and the number of vectors that it must hold; `None` while there is anything to do."""
        target = self._target(space)
        if target is None or not target.complete:
            return None
        with self.database.read() as connection:
            if log.changed(connection, target.cursor, 1).embedding_ids:
                return None
            return target, stored.count(connection, space)

    def _target(self, space: Space) -> Standing | None:
        """The generation that steps go to: the newest."""
        return next(iter(self._standings(space)[-1:]), None)

    def _standings(self, space: Space) -> list[Standing]:
        with self.database.read() as connection:
            return standing.find(connection, space, self.engine.address)

    def _total(self, space: Space) -> int:
        with self.database.read() as connection:
            return stored.count(connection, space)

    def _name(self, space: Space) -> str:
        """What only one process at a time begins anew."""
        return f"vector index:{self.engine.address}:{space.id}"

    def _prefix(self, space: Space) -> str:
        return f"audio_{self.archive_id}_{space.id}_"


def _missing(ids: Sequence[int], there: set[int]) -> Ids:
    return np.array([id_ for id_ in ids if id_ not in there], dtype=np.int64)
