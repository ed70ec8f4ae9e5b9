"""How the SQLite index differs from the catalogue: its blocks, id by id and, on request, code by code."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from sqlalchemy import Connection

from audio_storage_system.records import Space
from audio_storage_system.vectors import generations, stored
from audio_storage_system.vectors.base import Difference, Ids
from audio_storage_system.vectors.codes import Block
from audio_storage_system.vectors.generations import Generation

NO_IDS: Ids = np.empty(0, dtype=np.int64)


def of_codes(connection: Connection, space: Space, *, deep: bool) -> Difference:
    """How the complete generation of `space` differs from its embeddings, as one transaction sees both. Up to the
    watermark every embedding must be in a block, except those whose deletion the generation has not read yet."""
    generation = generations.find(connection, space, complete=True)
    if generation is None:
        return Difference()
    if not generations.log_reaches(connection, generation.position):
        return Difference(reason="it has missed changes that are no longer in the log")
    coded, faults = NO_IDS, set[str]()
    for number, part in _blocks(connection, generation):
        if isinstance(part, str):
            faults.add(f"block {number} {part}")
            continue
        if deep and not _codes_fit(connection, space, generation, part):
            faults.add(f"block {number} has codes that are not those of its vectors")
        coded = np.concatenate([coded, part.ids])
    if faults:
        return Difference(reason=", ".join(sorted(faults)))
    return _compared(connection, space, generation, coded)


def _compared(connection: Connection, space: Space, generation: Generation, coded: Ids) -> Difference:
    there = stored.ids_of(connection, space)
    wanted = there[there <= generation.watermark]
    gone = generations.deleted(connection, generation.position, generations.log_end(connection))
    reason = "its blocks are out of order" if np.any(np.diff(coded) <= 0) else ""
    return Difference(np.setdiff1d(wanted, coded), np.setdiff1d(np.setdiff1d(coded, there), gone), reason)


def _blocks(connection: Connection, generation: Generation) -> Iterator[tuple[int, Block | str]]:
    """Each block, or what is wrong with it."""
    for row in generations.block_rows(connection, generation):
        try:
            block = generations.load(connection, row.id)
        except ValueError:
            yield row.id, "cannot be read"
            continue
        edges = (int(block.ids[0]), int(block.ids[-1]), len(block)) if len(block) else (0, 0, 0)
        whole = block.codes.fit(len(block), len(generation.coding.mean))
        fits = whole and edges == (row.first_id, row.last_id, row.size)
        yield row.id, block if fits else "is not what its row says"


def _codes_fit(connection: Connection, space: Space, generation: Generation, block: Block) -> bool:
    """Whether the codes of the vectors that are there still are those of the block."""
    ids, vectors = stored.read(connection, space, block.ids.tolist())
    if not len(ids):
        return True
    return generation.coding.encode(vectors).same_as(block.codes[np.isin(block.ids, ids)])
