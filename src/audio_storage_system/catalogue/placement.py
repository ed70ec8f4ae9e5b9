"""Which recording and which transcript each passage and each embedding belongs to, in memory: so that thousands of
candidates are tested against a filter without asking the database for each.

A row never changes hands and its id is never used twice, so what is known stays true; only newer ids are added. Where
ids do not become visible in order, nothing can be known of all of them: there the places of the ids asked about are
looked up, and kept.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Engine, Select, String, Table, cast, func, select

from audio_storage_system.catalogue.bm25 import contains
from audio_storage_system.database.queries import among, given
from audio_storage_system.database.remembering import remembered
from audio_storage_system.database.sequences import times_disordered
from audio_storage_system.database.tables import embeddings, passages
from audio_storage_system.records import Space

Ids: TypeAlias = npt.NDArray[np.int64]

NO_IDS: Ids = np.empty(0, dtype=np.int64)
# Up to so many new rows are read one by one; for more the whole index of the table is read again, 0.1 s per million.
FEW = 5_000
# So many single places are kept of each table, some 200 bytes each.
PLACES_KEPT = 100_000


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """Runs of consecutive ids that belong to one transcript of one recording; 0 stands for no transcript. It knows
    every id up to `newest`."""

    first: Ids
    last: Ids
    audio_ids: Ids
    transcript_ids: Ids
    newest: int

    @classmethod
    def of(cls, rows: Ids, newest: int) -> Placement:
        """From columns (first id, last id, audio id, transcript id) of runs in any order."""
        first, last, audio_ids, transcript_ids = rows[:, np.argsort(rows[0])]
        return cls(first, last, audio_ids, transcript_ids, newest)

    def runs(
        self, recordings: Ids | None, transcripts: Ids | None, but_not: Ids, hidden: Ids = NO_IDS
    ) -> npt.NDArray[np.bool_]:
        """Which runs are of these recordings and these transcripts (`None`: any), and not of those transcripts nor of
        the `hidden` recordings; all ascending."""
        return _chosen(self, recordings, transcripts, but_not, hidden)

    def members(self, chosen: npt.NDArray[np.bool_], ids: Ids) -> npt.NDArray[np.bool_]:
        """Which of `ids` are in a chosen run."""
        if not len(self.first):
            return np.zeros(len(ids), np.bool_)
        run = np.searchsorted(self.first, ids, side="right") - 1
        inside: npt.NDArray[np.bool_] = (run >= 0) & (ids <= self.last[run]) & chosen[run]
        return inside

    def listed(self, chosen: npt.NDArray[np.bool_], limit: int) -> Ids | None:
        """The ids of the chosen runs, ascending, unless they are more than `limit`."""
        sizes = (self.last - self.first + 1)[chosen]
        total = int(sizes.sum())
        if total > limit:
            return None
        before = np.cumsum(sizes) - sizes
        ids: Ids = np.arange(total) + np.repeat(self.first[chosen] - before, sizes)
        return ids


# By the table or space, and by how often its ids were disordered: what was known before that is not complete.
_known: WeakKeyDictionary[Engine, dict[Hashable, tuple[int, Placement]]] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """What each of some ids belongs to, ascending by id; 0 stands for no transcript and no passage."""

    ids: Ids
    audio_ids: Ids
    transcript_ids: Ids
    passage_ids: Ids

    def chosen(
        self, recordings: Ids | None, transcripts: Ids | None, but_not: Ids, hidden: Ids = NO_IDS
    ) -> npt.NDArray[np.bool_]:
        """As `Placement.runs`, for single ids."""
        return _chosen(self, recordings, transcripts, but_not, hidden)


_PLACES = {
    passages.name: select(
        passages.c.id, passages.c.audio_file_id, passages.c.transcript_id, passages.c.id.label("passage_id")
    ).where(among(passages.c.id)),
    embeddings.name: select(
        embeddings.c.id,
        embeddings.c.audio_file_id,
        func.coalesce(embeddings.c.transcript_id, 0),
        func.coalesce(embeddings.c.passage_id, 0),
    ).where(among(embeddings.c.id)),
}
_places: WeakKeyDictionary[Engine, dict[str, dict[int, tuple[int, ...]]]] = WeakKeyDictionary()


def looked_up(connection: Connection, table: Table, ids: Sequence[int]) -> Places:
    """The places of those of these passages or embeddings that exist, or did when they were last asked about."""
    tables = _places.setdefault(connection.engine, {})
    known = tables.setdefault(table.name, {})
    if missing := [id_ for id_ in ids if id_ not in known]:
        if len(known) + len(missing) > PLACES_KEPT:
            tables[table.name] = known = {id_: known[id_] for id_ in ids if id_ in known}
        known.update((row[0], tuple(row)) for row in connection.execute(_PLACES[table.name], given(missing)))
    rows = [known[id_] for id_ in sorted(ids) if id_ in known]
    return Places(*np.array(rows, dtype=np.int64).reshape(-1, 4).T)


def of_passages(connection: Connection) -> Placement:
    """The placement of every passage that this connection sees."""
    rows = select(passages.c.id, passages.c.audio_file_id, passages.c.transcript_id)
    return remembered(connection, "passages", lambda: _followed(connection, "passages", passages, rows, rows))


def of_embeddings(connection: Connection, space: Space) -> Placement:
    """The placement of every embedding of one space that this connection sees."""
    key, table = ("embeddings", space.id), embeddings
    rows = select(table.c.id, table.c.audio_file_id, func.coalesce(table.c.transcript_id, 0).label("transcript_id"))
    # Adding zero keeps SQLite from the index on the space, which would read the whole space for a few new rows.
    new = rows.where(table.c.space_id + 0 == space.id)
    return remembered(
        connection, key, lambda: _followed(connection, key, table, rows.where(table.c.space_id == space.id), new)
    )


def _chosen(
    places: Placement | Places, recordings: Ids | None, transcripts: Ids | None, but_not: Ids, hidden: Ids
) -> npt.NDArray[np.bool_]:
    chosen = ~contains(but_not, places.transcript_ids)
    if recordings is not None:
        chosen &= contains(recordings, places.audio_ids)
    if transcripts is not None:
        chosen &= contains(transcripts, places.transcript_ids)
    if len(hidden):
        chosen &= ~contains(hidden, places.audio_ids)
    return chosen


def _followed(connection: Connection, key: Hashable, table: Table, rows: Select[Any], new: Select[Any]) -> Placement:
    """What the process knows, and what came after it."""
    placements = _known.setdefault(connection.engine, {})
    newest = int(connection.execute(select(func.coalesce(func.max(table.c.id), 0))).scalar_one())
    disordered = times_disordered(connection)
    of, known = placements.get(key, (disordered, None))
    if known is None or of != disordered or known.newest < newest:
        placement = _extended(connection, known, table, new, newest) if known and of == disordered else None
        known = placement or Placement.of(_all_runs(connection, rows), newest)
        placements[key] = disordered, known
    return known


def _extended(
    connection: Connection, known: Placement, table: Table, new: Select[Any], newest: int
) -> Placement | None:
    """`known` with what is new, unless that is much."""
    found = connection.execute(new.where(table.c.id > known.newest).order_by(table.c.id).limit(FEW + 1)).all()
    if len(found) > FEW:
        return None
    runs = _runs(np.array([tuple(row) for row in found], dtype=np.int64).reshape(-1, 3).T)
    old = np.stack([known.first, known.last, known.audio_ids, known.transcript_ids])
    return Placement.of(np.concatenate([old, runs], axis=1), newest)


def _all_runs(connection: Connection, rows: Select[Any]) -> Ids:
    """From an index alone: the ids of most transcripts follow one another, so that the first and the last say all."""
    row = rows.subquery()
    owner = (row.c.audio_file_id, row.c.transcript_id)
    lowest, highest, count = func.min(row.c.id), func.max(row.c.id), func.count()
    groups = connection.execute(select(lowest, highest, *owner, count).group_by(*owner)).all()
    table = np.array([tuple(group) for group in groups], dtype=np.int64).reshape(-1, 5).T
    whole = table[1] - table[0] + 1 == table[4]
    runs = table[:4, whole]
    return runs if whole.all() else np.concatenate([runs, _scattered(connection, rows)], axis=1)


def _scattered(connection: Connection, rows: Select[Any]) -> Ids:
    """The runs of transcripts that were written in turns with others; their ids as text, which is read fastest."""
    row = rows.subquery()
    owner = (row.c.audio_file_id, row.c.transcript_id)
    apart = func.max(row.c.id) - func.min(row.c.id) + 1 != func.count()
    joined = func.aggregate_strings(cast(row.c.id, String), ",")
    groups = connection.execute(select(*owner, func.count(), joined).group_by(*owner).having(apart)).all()
    owners = np.array([tuple(group)[:3] for group in groups], dtype=np.int64).reshape(-1, 3)
    ids = np.fromstring(",".join(group[3] for group in groups), dtype=np.int64, sep=",")
    audio_ids, transcript_ids = np.repeat(owners[:, 0], owners[:, 2]), np.repeat(owners[:, 1], owners[:, 2])
    order = np.argsort(ids)
    return _runs(np.stack([ids[order], audio_ids[order], transcript_ids[order]]))


def _runs(rows: Ids) -> Ids:
    """Runs of columns (id, audio id, transcript id), ids ascending."""
    ids, owners = rows[0], rows[1:]
    if not len(ids):
        return np.empty((4, 0), dtype=np.int64)
    begins = np.append(True, (np.diff(ids) != 1) | np.any(np.diff(owners, axis=1) != 0, axis=0))
    ends = np.append(begins[1:], True)
    return np.stack([ids[begins], ids[ends], *owners[:, begins]])
