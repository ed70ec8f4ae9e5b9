"""How the codes follow the catalogue: in small steps, each a read and then one short write.

A step writes only if its generation stands where it was read, so any number of processes may take steps at once, and
one that is killed leaves nothing half-done.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
from sqlalchemy import Connection

from audio_storage_system.clock import Deadline
from audio_storage_system.database import Database
from audio_storage_system.records import Space
from audio_storage_system.vectors import generations, stored
from audio_storage_system.vectors.base import Ids
from audio_storage_system.vectors.codes import Codes, Coding
from audio_storage_system.vectors.generations import Generation

# The mean of this many vectors is as good as the mean of all.
SAMPLE_ROWS = 10_000
# A mean taken when the space was this many times smaller may no longer be its mean.
OUTGROWN = 4

Write: TypeAlias = Callable[[Connection], None]


@dataclass(frozen=True, slots=True)
class Sizes:
    """Measured at a million vectors; tests make them small."""

    tail: int = 4096  # embeddings newer than the codes that a search compares exactly, about 0.5 ms
    block: int = 16_384  # rows per block: its scan stays in the processor's cache, and rewriting it costs 1 MB
    lag: int = 65_536  # ids or changes behind the catalogue before a step is due even with nothing to encode


DEFAULT_SIZES = Sizes()


@dataclass(frozen=True, slots=True, eq=False)
class Extension:
    """What a generation lacks, as read in one transaction."""

    generation: Generation
    ids: Ids
    codes: Codes
    gone: Ids
    watermark: int
    position: int
    complete: bool

    def write(self, connection: Connection, space: Space, block_size: int) -> None:
        """Put it into the generation, unless another process has already."""
        was = self.generation
        now = generations.find(connection, space, complete=was.complete)
        if now is None or now.stamp != was.stamp:
            return
        if len(self.ids):
            generations.append(connection, was, self.ids, self.codes, block_size)
        if len(self.gone):
            generations.remove(connection, was, self.gone)
        if self.complete and not was.complete:
            _drop_complete(connection, space)
        generations.advance(connection, was, self.watermark, self.position, complete=self.complete)


def _drop_complete(connection: Connection, space: Space) -> None:
    if (old := generations.find(connection, space, complete=True)) is not None:
        generations.drop(connection, old)


@dataclass(frozen=True)
class Follower:
    """Takes steps for any space of one database."""

    database: Database
    sizes: Sizes

    def follow(self, space: Space, deadline: Deadline, *, refine: bool) -> None:
        """Take steps until none is worth it. With `refine`, also make a new mean for a space that outgrew its old one;
        without, only what searches need."""
        while self._step(space, deadline, refine=refine):
            deadline.check()

    def start_over(self, space: Space) -> None:
        """Begin a new generation for a space that has one; searches use the old one until `follow` completes it."""
        with self.database.read() as connection:
            if not any(generations.find(connection, space, complete=complete) for complete in (True, False)):
                return
            write = self._beginning(connection, space, replacing=True)
        with self.database.write() as connection:
            write(connection)

    def _step(self, space: Space, deadline: Deadline, *, refine: bool) -> bool:
        with self.database.read(deadline) as connection:
            write = self._next(connection, space, refine)
        if write is None:
            return False
        with self.database.write() as connection:
            write(connection)
        return True

    def _next(self, connection: Connection, space: Space, refine: bool) -> Write | None:
        complete = _healthy(connection, generations.find(connection, space, complete=True))
        building = _healthy(connection, generations.find(connection, space, complete=False))
        if refine and complete and not building and self._outgrown(connection, complete):
            return self._beginning(connection, space)
        target = building if refine and building else complete or building
        if target is not None:
            return self._extension(connection, space, target)
        if stored.count(connection, space) <= self.sizes.tail:
            return None
        return self._beginning(connection, space)

    def _outgrown(self, connection: Connection, generation: Generation) -> bool:
        return generations.size(connection, generation) >= OUTGROWN * max(1, generation.trained_on)

    def _beginning(self, connection: Connection, space: Space, *, replacing: bool = False) -> Write:
        ids = stored.ids_of(connection, space)
        sample = ids[:: max(1, len(ids) // SAMPLE_ROWS)].tolist()
        _, vectors = stored.read(connection, space, sample)
        coding = Coding.train(vectors if len(vectors) else np.zeros((1, space.dimension), np.float32))
        return partial(_begin, space=space, coding=coding, trained_on=len(ids), replacing=replacing)

    def _extension(self, connection: Connection, space: Space, generation: Generation) -> Write | None:
        rows = generations.block_rows(connection, generation)
        filled = rows[-1].size if rows else 0
        room = self.sizes.block - filled if filled < self.sizes.block else self.sizes.block
        ids, vectors = generations.rows_after(connection, space, generation.watermark, room)
        more = len(ids) == room
        newest, position = generations.newest_id(connection), generations.log_end(connection)
        gone = generations.deleted(connection, generation.position, position)
        found = Extension(
            generation,
            ids,
            generation.coding.encode(vectors),
            gone,
            watermark=int(ids[-1]) if more else newest,
            position=position,
            complete=generation.complete or not more,
        )
        return partial(found.write, space=space, block_size=self.sizes.block) if self._worth(found, more) else None

    def _worth(self, found: Extension, more: bool) -> bool:
        """Whether to write: rewriting the last block for a few rows would cost more than comparing them exactly."""
        was = found.generation
        behind = max(found.watermark - was.watermark, found.position - was.position)
        removes = bool(np.any(found.gone <= was.watermark))
        return not was.complete or more or removes or len(found.ids) > self.sizes.tail // 4 or behind > self.sizes.lag


def _healthy(connection: Connection, generation: Generation | None) -> Generation | None:
    """`generation`, unless changes it has not read were pruned: then deletions may be missing from it for ever."""
    return generation if generation and generations.log_reaches(connection, generation.position) else None


def _begin(connection: Connection, space: Space, coding: Coding, trained_on: int, replacing: bool) -> None:
    building = _healthy(connection, generations.find(connection, space, complete=False))
    if replacing or building is None:
        generations.begin(connection, space, coding, trained_on)
