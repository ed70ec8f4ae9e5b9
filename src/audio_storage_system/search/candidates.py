"""Which passages and embeddings a search may return, asked of the catalogue in SQL.

The same question in two forms: which ids pass (found from the filter's side), and which of these ids pass (each looked
up). Left to itself, the planner of SQLite takes the wrong side by a factor of a hundred.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import numpy as np
from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Select,
    String,
    Table,
    and_,
    bindparam,
    cast,
    exists,
    func,
    or_,
    select,
)

from audio_storage_system.catalogue.transcripts import all_followed, searched
from audio_storage_system.clock import Deadline
from audio_storage_system.database import Database
from audio_storage_system.database.queries import as_list, listed
from audio_storage_system.database.tables import audio_files, embeddings, passages, transcripts
from audio_storage_system.records import Space
from audio_storage_system.search.filters import Filter
from audio_storage_system.vectors import Candidates, Ids, Scope

# So few recordings are named one by one to a vector database that filters by itself.
FEW_RECORDINGS = 1_000
GIVEN = listed(bindparam("given", type_=String))


class Everything:
    """Implements `vectors.Candidates` where nothing is held back."""

    def ids(self, limit: int) -> Ids | None:
        """As promised; there are too many to list."""
        return None

    def admit(self, ids: Sequence[int]) -> set[int]:
        """All of them."""
        return set(ids)

    def scope(self) -> Scope:
        """No limit."""
        return Scope()


@dataclass(frozen=True)
class SQLCandidates:
    """Implements `vectors.Candidates`: `listing` selects all ids that pass, `probe` those of the bound `given`.

    `connect` gives the connection to ask on: who holds one already must not wait for a second. `recordings`, the ones
    that pass, and `period`, when these were recorded, are what `scope` is made of.
    """

    connect: Callable[[], AbstractContextManager[Connection]]
    listing: Select[int]
    probe: Select[int]
    recordings: Select[int] | None = None
    period: tuple[datetime | None, datetime | None] = (None, None)

    def ids(self, limit: int) -> Ids | None:
        """All that pass, if they are no more than `limit`."""
        found = self._read(self.listing.limit(limit + 1), {})
        return None if len(found) > limit else np.sort(found)

    def admit(self, ids: Sequence[int]) -> set[int]:
        """Those of `ids` that pass."""
        return set(self._read(self.probe, {"given": as_list(ids)}).tolist())

    def scope(self) -> Scope:
        """The recordings that pass, if they are few; else when they were recorded."""
        since, until = self.period
        found = None if self.recordings is None else self._read(self.recordings.limit(FEW_RECORDINGS + 1), {})
        few = None if found is None or len(found) > FEW_RECORDINGS else tuple(found.tolist())
        return Scope(audio_ids=few, since=since, until=until)

    def _read(self, query: Select[int], parameters: dict[str, str]) -> Ids:
        """The ids in one string: many small rows cost more to hand over than to find."""
        found = query.subquery()
        joined = select(func.aggregate_strings(cast(found.c.id, String), ","))
        with self.connect() as connection:
            text = connection.execute(joined, parameters).scalar()
        return np.array(text.split(","), dtype=np.int64) if text else np.zeros(0, dtype=np.int64)


def of_passages(connection: Connection, wanted: Filter) -> Candidates:
    """Passages of the transcripts that search follows, where the filter holds, as this connection sees them."""
    if not wanted.limits and all_followed(connection):
        return Everything()
    said = [searched(), *wanted.on_transcripts()]
    listing = (
        select(passages.c.id)
        .join(transcripts, transcripts.c.id == passages.c.transcript_id)
        .join(audio_files, audio_files.c.id == passages.c.audio_file_id)
        .where(*said, *wanted.on_passages(), *wanted.on_recordings())
    )
    probe = _given(passages).where(
        _is(transcripts, passages.c.transcript_id, said),
        _is(audio_files, passages.c.audio_file_id, wanted.on_recordings(probing=True)),
        *wanted.on_passages(),
    )
    return SQLCandidates(lambda: nullcontext(connection), listing, probe)


def of_embeddings(database: Database, space: Space, wanted: Filter, deadline: Deadline) -> Candidates:
    """Embeddings of one space where the filter holds. A window of non-speech has no transcript: only conditions on its
    recording can hold for it."""
    if not wanted.limits and _all_followed(database, deadline):
        return Everything()
    said, spoken = wanted.on_transcripts(), wanted.on_passages()
    listing = (
        select(embeddings.c.id)
        .join(audio_files, audio_files.c.id == embeddings.c.audio_file_id)
        .outerjoin(transcripts, transcripts.c.id == embeddings.c.transcript_id)
        .outerjoin(passages, passages.c.id == embeddings.c.passage_id)
        .where(embeddings.c.space_id == space.id, *said, *spoken, *wanted.on_recordings())
        .where(or_(embeddings.c.transcript_id.is_(None), searched()))
    )
    followed = _is(transcripts, embeddings.c.transcript_id, [searched(), *said])
    probe = _given(embeddings).where(
        followed if said or spoken else or_(embeddings.c.transcript_id.is_(None), followed),
        _is(audio_files, embeddings.c.audio_file_id, wanted.on_recordings(probing=True)),
        _is(passages, embeddings.c.passage_id, spoken),
    )
    recordings = select(audio_files.c.id).where(*wanted.on_recordings()) if wanted.limits else None
    return SQLCandidates(partial(database.read, deadline), listing, probe, recordings, wanted.period)


def _all_followed(database: Database, deadline: Deadline) -> bool:
    with database.read(deadline) as connection:
        return all_followed(connection)


def _given(table: Table) -> Select[int]:
    """The rows of `table` whose ids are given. Every other condition is a subquery, so the planner starts here."""
    return select(table.c.id).where(table.c.id.in_(GIVEN))


def _is(table: Table, reference: Column[int], conditions: Sequence[ColumnElement[bool]]) -> ColumnElement[bool]:
    """The row that `reference` points to meets the conditions."""
    return exists().where(table.c.id == reference, *conditions) if conditions else and_(True)
