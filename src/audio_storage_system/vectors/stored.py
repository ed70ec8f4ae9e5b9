"""The embeddings of the catalogue as arrays: what every index reads, compares and orders in the same way."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, text

from audio_storage_system.errors import ArchiveDamaged, InvalidVector
from audio_storage_system.records import Space
from audio_storage_system.vectors.base import Ids, Match

Vectors = npt.NDArray[np.float32]

# The order of SQLite's join is fixed (CROSS): one look-up per wanted id, never a scan of the table.
BY_ID = {
    "sqlite": text(
        "SELECT e.id, e.embedding_data FROM json_each(:ids) wanted CROSS JOIN embeddings e ON e.id = wanted.value"
        " WHERE e.space_id = :space"
    ),
    "postgresql": text(
        "SELECT e.id, e.embedding_data FROM unnest(CAST(:ids AS bigint[])) WITH ORDINALITY wanted(id, place)"
        " JOIN embeddings e ON e.id = wanted.id WHERE e.space_id = :space ORDER BY wanted.place"
    ),
}
IDS_OF_SPACE = text("SELECT id FROM embeddings WHERE space_id = :space")
COUNT = text("SELECT count(*) FROM embeddings WHERE space_id = :space")


def checked(space: Space, vector: npt.ArrayLike) -> Vectors:
    """`vector` as the unit vector of `space` that points the same way.

    Raises `InvalidVector` for another dimension, for a number that is not finite and for the zero vector.
    """
    array = np.asarray(vector, dtype=np.float64)
    if array.shape != (space.dimension,):
        reason = f"its shape is {array.shape}, and vectors of this space have {space.dimension} numbers"
        raise InvalidVector(model=space.model, reason=reason)
    norm = float(np.linalg.norm(array))
    if not np.isfinite(norm) or norm == 0:
        raise InvalidVector(model=space.model, reason="it has no direction: all zero, or not finite")
    return (array / norm).astype(np.float32)


def cosines(vectors: Vectors, vector: Vectors) -> Vectors:
    """The cosine of each row with `vector`; equal rows give equal numbers wherever they stand, as ties need."""
    products: Vectors = np.vecdot(vectors, vector)
    return np.clip(products, -1, 1)


def nearest(ids: Ids, similarities: Vectors, limit: int) -> list[Match]:
    """The `limit` best as matches: highest similarity first, ties by ascending id."""
    order = np.lexsort((ids, -similarities))[:limit]
    return [Match(int(ids[i]), float(similarities[i])) for i in order]


def read(connection: Connection, space: Space, ids: Iterable[int]) -> tuple[Ids, Vectors]:
    """Those of `ids` that exist in `space`, with their vectors, in the order given."""
    name, wanted = connection.dialect.name, list(ids)
    given = wanted if name == "postgresql" else json.dumps(wanted)
    rows = connection.execute(BY_ID[name], {"ids": given, "space": space.id}).all()
    return arrays(connection, space, rows)


def arrays(connection: Connection, space: Space, rows: Sequence[Any]) -> tuple[Ids, Vectors]:
    """Rows of (id, BLOB) as two arrays.

    Raises `ArchiveDamaged` when a BLOB is not a vector of this space.
    """
    width = 4 * space.dimension
    for row in rows:
        if len(row[1]) != width:
            reason = f"embedding {row[0]} has {len(row[1])} bytes instead of {width}"
            raise ArchiveDamaged(place=connection.engine.url.database, reason=reason)
    ids = np.fromiter((row[0] for row in rows), dtype=np.int64, count=len(rows))
    data = np.frombuffer(b"".join(row[1] for row in rows), dtype="<f4")
    return ids, data.reshape(len(rows), space.dimension).astype(np.float32, copy=False)


def ids_of(connection: Connection, space: Space) -> Ids:
    """Every embedding id of `space`, ascending."""
    rows = connection.execute(IDS_OF_SPACE, {"space": space.id}).all()
    return np.sort(np.fromiter((row[0] for row in rows), dtype=np.int64, count=len(rows)))


def count(connection: Connection, space: Space) -> int:
    """How many embeddings `space` has."""
    return int(connection.execute(COUNT, {"space": space.id}).scalar_one())
