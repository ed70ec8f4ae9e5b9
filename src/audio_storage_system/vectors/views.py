"""What a process keeps in memory of one space: the codes, and the vectors that are newer than them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sqlalchemy import Connection

from audio_storage_system.records import Space
from audio_storage_system.vectors import generations
from audio_storage_system.vectors.base import Ids
from audio_storage_system.vectors.codes import Block
from audio_storage_system.vectors.generations import Generation
from audio_storage_system.vectors.stored import Vectors

NO_IDS: Ids = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """Where the database stands, cheap to ask before every query."""

    generation: Generation | None
    newest_id: int
    log_end: int

    @classmethod
    def read(cls, connection: Connection, space: Space) -> State:
        """As of now."""
        generation = generations.find(connection, space, complete=True)
        return cls(generation, generations.newest_id(connection), generations.log_end(connection))

    @property
    def watermark(self) -> int:
        return self.generation.watermark if self.generation else 0

    @property
    def lag(self) -> int:
        """How many ids of any space the generation is behind: what reading the tail costs a fresh process."""
        return self.newest_id - self.generation.watermark if self.generation else 0

    @property
    def stamp(self) -> tuple[tuple[int, int, int] | None, int, int]:
        """Differs whenever what a search may find may differ."""
        return self.generation.stamp if self.generation else None, self.newest_id, self.log_end


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """One space at one moment. It never changes, so searches in several threads share it.

    Up to the watermark embeddings are in `blocks`, whose ids joined are `coded_ids`; all later ones are in `tail`.
    """

    state: State
    blocks: tuple[Block, ...]
    coded_ids: Ids
    tail_ids: Ids
    tail: Vectors
    overfull: bool


def refresh(connection: Connection, space: Space, old: View | None, *, most: int) -> View:
    """The view of this moment, reusing what `old` has. With more than `most` embeddings newer than the codes it is
    `overfull`, and its tail is not all of them."""
    state = State.read(connection, space)
    blocks, coded_ids = _blocks(connection, state, old)
    if old is not None and (old.overfull or not generations.log_reaches(connection, old.state.log_end)):
        old = None  # also where it is of a later moment than this transaction
    tail_ids, tail = _tail(connection, space, state, old, most)
    return View(state, blocks, coded_ids, tail_ids, tail, len(tail_ids) > most)


def _blocks(connection: Connection, state: State, old: View | None) -> tuple[tuple[Block, ...], Ids]:
    if state.generation is None:
        return (), NO_IDS
    if old is not None and old.state.stamp[0] == state.stamp[0]:
        return old.blocks, old.coded_ids
    known = {block.id: block for block in old.blocks} if old else {}
    rows = generations.block_rows(connection, state.generation)
    blocks = tuple(known.get(row.id) or generations.load(connection, row.id) for row in rows)
    return blocks, np.concatenate([NO_IDS, *(block.ids for block in blocks)])


def _tail(connection: Connection, space: Space, state: State, old: View | None, most: int) -> tuple[Ids, Vectors]:
    if old is None or old.state.watermark > state.watermark:
        if state.generation is None:
            return generations.some_rows(connection, space, most + 1)
        return generations.rows_after(connection, space, state.watermark, most + 1)
    gone = generations.deleted(connection, old.state.log_end, state.log_end)
    kept = (old.tail_ids > state.watermark) & ~np.isin(old.tail_ids, gone)
    seen = max(old.state.newest_id, state.watermark)
    new_ids, new = generations.rows_after(connection, space, seen, most + 1)
    return np.concatenate([old.tail_ids[kept], new_ids]), np.concatenate([old.tail[kept], new])
