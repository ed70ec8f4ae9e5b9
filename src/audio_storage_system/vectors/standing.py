"""What the catalogue knows of a vector database: which collections it has for a space, and what is in each.

A collection is a generation of the space's index; generations are numbered. It holds everything that was stored up to
its cursor in the change log; but while it is first filled, of that only the embeddings with ids up to `loaded`. Its
rows in `index_cursors` are `<address>#<number>`, the cursor, and until it is complete `<address>#<number>+`: `loaded`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Connection, Select, select

from audio_storage_system.database.queries import among, given
from audio_storage_system.database.tables import audio_files, embeddings
from audio_storage_system.records import Space
from audio_storage_system.vectors import log, stored
from audio_storage_system.vectors.engines import Points
from audio_storage_system.vectors.log import Cursor


@dataclass(frozen=True, slots=True)
class Standing:
    """One generation: `loaded` is `None` once it is complete."""

    number: int
    cursor: Cursor
    loaded: int | None

    @property
    def complete(self) -> bool:
        return self.loaded is None


def find(connection: Connection, space: Space, address: str) -> list[Standing]:
    """Every generation of this space at this address, the newest last."""
    rows = log.cursors(connection, space, f"{address}#")
    return [
        Standing(number, rows[str(number)], rows[f"{number}+"].id if f"{number}+" in rows else None)
        for number in sorted(int(name) for name in rows if re.fullmatch(r"\d+", name))
    ]


def searched(standings: Sequence[Standing]) -> Standing | None:
    """The generation that searches ask: the newest that is complete, else the one being filled."""
    return next((standing for standing in reversed(standings) if standing.complete), next(iter(standings[-1:]), None))


def begin(connection: Connection, space: Space, address: str, lost: Sequence[Standing] = ()) -> None:
    """Start a new generation, in place of one that is being filled and of those that are `lost`."""
    standings = find(connection, space, address)
    dead = {standing.number for standing in (*lost, *standings) if standing in lost or not standing.complete}
    log.forget(connection, space, _names(address, dead))
    name = f"{address}#{max((standing.number for standing in standings), default=0) + 1}"
    log.put(connection, space, name, log.end(connection))
    log.put(connection, space, f"{name}+", Cursor(0, 0))


def forget(connection: Connection, space: Space, address: str) -> None:
    """Forget every generation of this space at this address."""
    log.forget(connection, space, _names(address, {one.number for one in find(connection, space, address)}))


def load(connection: Connection, space: Space, address: str, was: Standing, loaded: int) -> None:
    """Note that embeddings up to this id are in, unless another process has got further."""
    name = f"{address}#{was.number}+"
    log.move(connection, space, name, Cursor(0, was.loaded or 0), Cursor(0, loaded))


def complete(connection: Connection, space: Space, address: str, was: Standing) -> None:
    """Note that everything is in; older generations are no longer needed."""
    standings = find(connection, space, address)
    if any(standing.number == was.number for standing in standings):
        log.forget(connection, space, [f"{address}#{was.number}+"])
        log.forget(connection, space, _names(address, {s.number for s in standings if s.number < was.number}))


def advance(connection: Connection, space: Space, address: str, was: Standing, now: Cursor) -> None:
    """Note that the changes up to `now` are in, unless another process has noted something else."""
    log.move(connection, space, f"{address}#{was.number}", was.cursor, now)


def newer(connection: Connection, space: Space, standing: Standing) -> list[int]:
    """The embeddings of the space that this generation may lack, ascending."""
    behind = log.added(connection, space, standing.cursor)
    if standing.loaded is None:
        return behind
    unloaded = select(embeddings.c.id).where(embeddings.c.space_id == space.id, embeddings.c.id > standing.loaded)
    return sorted({*behind, *connection.execute(unloaded).scalars()})


def points_after(connection: Connection, space: Space, after: int, limit: int) -> Points:
    """The first `limit` embeddings of the space with an id beyond `after`."""
    return _points(connection, space, _select(space, embeddings.c.id > after).limit(limit))


def points_of(connection: Connection, space: Space, ids: Sequence[int]) -> Points:
    """Those of these embeddings that exist in the space."""
    return _points(connection, space, _select(space, among(embeddings.c.id)), given(ids))


def existing(connection: Connection, ids: Sequence[int]) -> set[int]:
    """Those of these embeddings that exist in any space."""
    return set(connection.execute(select(embeddings.c.id).where(among(embeddings.c.id)), given(ids)).scalars())


def _select(space: Space, condition: ColumnElement[bool]) -> Select[Any]:
    columns = embeddings.c.id, embeddings.c.embedding_data, audio_files.c.owner_id, audio_files.c.id.label("audio_id")
    joined = select(*columns, audio_files.c.recorded_at).join_from(embeddings, audio_files)
    return joined.where(embeddings.c.space_id == space.id, condition).order_by(embeddings.c.id)


def _points(
    connection: Connection, space: Space, query: Select[Any], parameters: Mapping[str, str] = MappingProxyType({})
) -> Points:
    rows = connection.execute(query, parameters).all()
    ids, vectors = stored.arrays(connection, space, rows)
    return Points(
        ids,
        vectors,
        np.array([row.owner_id for row in rows], dtype=np.int64),
        np.array([row.audio_id for row in rows], dtype=np.int64),
        np.array([row.recorded_at.timestamp() for row in rows], dtype=np.float64),
    )


def _names(address: str, numbers: set[int]) -> list[str]:
    return [f"{address}#{number}{end}" for number in numbers for end in ("", "+")]
