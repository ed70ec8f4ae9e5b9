"""The derived tables of the SQLite index: generations of codes in blocks, and how far each has followed the catalogue.

A generation is one coding and the codes made with it. New embeddings are found by id, since ids only grow: all up to
the generation's `watermark` are in its blocks. Deleted ones are found in the change log, up to the generation's row in
`index_cursors`, which also keeps `prune_change_log` from removing what it has not read yet. Of each space at most one
generation is complete (searched) and at most one is being built.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from sqlalchemy import Connection, Row, text

from audio_storage_system.records import Space
from audio_storage_system.vectors import log, stored
from audio_storage_system.vectors.base import Ids
from audio_storage_system.vectors.codes import Block, Codes, Coding
from audio_storage_system.vectors.stored import Vectors

SCHEMA = (
    """CREATE TABLE IF NOT EXISTS code_generations (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    space_id INTEGER NOT NULL,
    complete BOOLEAN NOT NULL,
    watermark INTEGER NOT NULL,
    trained_on INTEGER NOT NULL,
    coding BLOB NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS code_blocks (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    generation_id INTEGER NOT NULL,
    first_id INTEGER NOT NULL,
    last_id INTEGER NOT NULL,
    size INTEGER NOT NULL,
    embedding_ids BLOB NOT NULL,
    signs BLOB NOT NULL,
    remainders BLOB NOT NULL)""",
    "CREATE INDEX IF NOT EXISTS idx_code_blocks_order ON code_blocks (generation_id, first_id, last_id, size)",
)
SCHEMA_EXISTS = "SELECT count(*) FROM sqlite_master WHERE name = 'idx_code_blocks_order'"
FIND = (
    "SELECT g.id, g.watermark, g.trained_on, g.complete, g.coding, c.position FROM code_generations g"
    " JOIN index_cursors c ON c.index_name = 'codes/' || g.id AND c.space_id = g.space_id"
    " WHERE g.space_id = :space AND g.complete = :complete ORDER BY g.id DESC LIMIT 1"
)
ADD_GENERATION = (
    "INSERT INTO code_generations (space_id, complete, watermark, trained_on, coding)"
    " VALUES (:space, FALSE, 0, :trained_on, :coding) RETURNING id"
)
ADD_CURSOR = (
    "INSERT INTO index_cursors (index_name, space_id, position) VALUES ('codes/' || :generation, :space, :position)"
)
MOVE_WATERMARK = "UPDATE code_generations SET watermark = :watermark, complete = :complete WHERE id = :generation"
MOVE_CURSOR = "UPDATE index_cursors SET position = :position WHERE index_name = 'codes/' || :generation"
BLOCK_ROWS = "SELECT id, first_id, last_id, size FROM code_blocks WHERE generation_id = :generation ORDER BY first_id"
BLOCK = "SELECT embedding_ids, signs, remainders FROM code_blocks WHERE id = :id"
ADD_BLOCK = (
    "INSERT INTO code_blocks (generation_id, first_id, last_id, size, embedding_ids, signs, remainders)"
    " VALUES (:generation, :first, :last, :size, :ids, :signs, :remainders)"
)
DROP = (
    "DELETE FROM code_blocks WHERE generation_id = :generation",
    "DELETE FROM index_cursors WHERE index_name = 'codes/' || :generation",
    "DELETE FROM code_generations WHERE id = :generation",
)
GENERATIONS = "SELECT id FROM code_generations WHERE space_id = :space"
SOME_ROWS = "SELECT id, embedding_data FROM embeddings WHERE space_id = :space LIMIT :limit"
# The plus keeps SQLite from the index on the space, which would read and sort the whole space.
ROWS_AFTER = (
    "SELECT id, embedding_data FROM embeddings WHERE id > :after AND +space_id = :space ORDER BY id LIMIT :limit"
)
LOG_END = "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'change_log'), 0)"
DELETED = (
    "SELECT row_id FROM change_log WHERE id > :after AND id <= :upto AND table_name = 'embeddings' AND op = 'delete'"
)


@dataclass(frozen=True, slots=True, eq=False)
class Generation:
    """One row of `code_generations`; `position` is its cursor in the change log."""

    id: int
    watermark: int
    trained_on: int
    complete: bool
    position: int
    coding: Coding

    @property
    def stamp(self) -> tuple[int, int, int]:
        """Differs whenever the generation's blocks may differ."""
        return self.id, self.watermark, self.position


def find(connection: Connection, space: Space, *, complete: bool) -> Generation | None:
    """The generation of `space` that is complete, or the one being built."""
    if not _run(connection, SCHEMA_EXISTS).scalar():
        return None
    row = _run(connection, FIND, space=space.id, complete=complete).first()
    if row is None:
        return None
    coding = Coding.from_bytes(row.coding)
    return Generation(row.id, row.watermark, row.trained_on, bool(row.complete), row.position, coding)


def begin(connection: Connection, space: Space, coding: Coding, trained_on: int) -> None:
    """Start building a generation, in place of one that is being built already."""
    for statement in SCHEMA:
        _run(connection, statement)
    if (unfinished := find(connection, space, complete=False)) is not None:
        drop(connection, unfinished)
    data = coding.to_bytes()
    generation = _run(connection, ADD_GENERATION, space=space.id, trained_on=trained_on, coding=data).scalar_one()
    _run(connection, ADD_CURSOR, generation=generation, space=space.id, position=log_end(connection))


def drop(connection: Connection, generation: Generation) -> None:
    """Remove a generation, its blocks and its cursor."""
    for statement in DROP:
        _run(connection, statement, generation=generation.id)


def forget(connection: Connection, space_ids: Iterable[int]) -> None:
    """Drop every generation of these spaces: searches compare exactly until they are followed again."""
    if not _run(connection, SCHEMA_EXISTS).scalar():
        return
    for space_id in space_ids:
        for generation in _run(connection, GENERATIONS, space=space_id).scalars().all():
            for statement in DROP:
                _run(connection, statement, generation=generation)


def advance(connection: Connection, generation: Generation, watermark: int, position: int, *, complete: bool) -> None:
    """Note that all embeddings up to `watermark` are in the blocks and all deletions up to `position` are out."""
    _run(connection, MOVE_WATERMARK, watermark=watermark, complete=complete, generation=generation.id)
    _run(connection, MOVE_CURSOR, position=position, generation=generation.id)


def block_rows(connection: Connection, generation: Generation) -> Sequence[Row[Any]]:
    """(id, first_id, last_id, size) of each block, in the order of the embeddings."""
    rows: Sequence[Row[Any]] = _run(connection, BLOCK_ROWS, generation=generation.id).all()
    return rows


def size(connection: Connection, generation: Generation) -> int:
    """How many embeddings its blocks hold."""
    return sum(row.size for row in block_rows(connection, generation))


def load(connection: Connection, block_id: int) -> Block:
    """One block; its arrays share the bytes read."""
    row = _run(connection, BLOCK, id=block_id).one()
    ids = np.frombuffer(row.embedding_ids, dtype="<i8")
    signs = np.frombuffer(row.signs, dtype="<u8").reshape(-1, len(ids))
    return Block(block_id, ids, Codes(signs, np.frombuffer(row.remainders, dtype=np.uint8).reshape(len(ids), -1)))


def append(connection: Connection, generation: Generation, ids: Ids, codes: Codes, block_size: int) -> None:
    """Add codes behind all others: to the last block if they fit, else as a new one."""
    rows = block_rows(connection, generation)
    if rows and rows[-1].size + len(ids) <= block_size:
        last = load(connection, rows[-1].id)
        ids, codes = np.concatenate([last.ids, ids]), Codes.joined([last.codes, codes])
        _remove_block(connection, last.id)
    _add_block(connection, generation, ids, codes)


def remove(connection: Connection, generation: Generation, ids: Ids) -> None:
    """Take these embeddings out of the blocks that hold them."""
    for row in block_rows(connection, generation):
        if not np.any((ids >= row.first_id) & (ids <= row.last_id)):
            continue
        block = load(connection, row.id)
        kept = ~np.isin(block.ids, ids)
        if not kept.all():
            _remove_block(connection, block.id)
            _add_block(connection, generation, block.ids[kept], block.codes[kept])


def _add_block(connection: Connection, generation: Generation, ids: Ids, codes: Codes) -> None:
    if len(ids):
        first, last, size = int(ids[0]), int(ids[-1]), len(ids)
        signs, remainders = codes.signs.astype("<u8").tobytes(), codes.remainders.tobytes()
        data = {"ids": ids.astype("<i8").tobytes(), "signs": signs, "remainders": remainders}
        _run(connection, ADD_BLOCK, generation=generation.id, first=first, last=last, size=size, **data)


def _remove_block(connection: Connection, block_id: int) -> None:
    _run(connection, "DELETE FROM code_blocks WHERE id = :id", id=block_id)


def some_rows(connection: Connection, space: Space, limit: int) -> tuple[Ids, Vectors]:
    """Up to `limit` embeddings of `space`, ascending, whatever else the archive holds."""
    rows = _run(connection, SOME_ROWS, space=space.id, limit=limit).all()
    return stored.arrays(connection, space, sorted(rows))


def rows_after(connection: Connection, space: Space, after: int, limit: int) -> tuple[Ids, Vectors]:
    """The first `limit` embeddings of `space` with an id beyond `after`. Takes time for rows of other spaces too."""
    rows = _run(connection, ROWS_AFTER, after=after, space=space.id, limit=limit).all()
    return stored.arrays(connection, space, rows)


def newest_id(connection: Connection) -> int:
    """The highest embedding id of any space, 0 when there is none."""
    return int(_run(connection, "SELECT coalesce(max(id), 0) FROM embeddings").scalar_one())


def log_end(connection: Connection) -> int:
    """The id of the last change ever logged, pruned or not."""
    return int(_run(connection, LOG_END).scalar_one())


def log_reaches(connection: Connection, position: int) -> bool:
    """Whether every change after `position` is still in the log, and `position` is not beyond its end."""
    oldest = _run(connection, "SELECT min(id) FROM change_log").scalar()
    return position == log_end(connection) if oldest is None else oldest - 1 <= position <= log_end(connection)


def deleted(connection: Connection, after: int, upto: int) -> Ids:
    """The embeddings, of any space, whose deletion was logged in this range."""
    rows = _run(connection, DELETED, after=after, upto=upto).all()
    return np.fromiter((row[0] for row in rows), dtype=np.int64, count=len(rows))


def prune_change_log(connection: Connection) -> int:
    """Delete what every index has read; how many rows. Nothing is deleted while no index follows the log."""
    return log.prune(connection)


def _run(connection: Connection, statement: str, **parameters: Any) -> Any:
    return connection.execute(_parsed(statement), parameters)


_parsed = cache(text)
