"""Which passages and embeddings a search may return.

Conditions on recordings and transcripts are asked of the catalogue once: which ones pass. To which of them a candidate
belongs is known in memory (`placement`). Conditions on passages are asked in SQL, in two forms: which ids pass (found
from the filter's side), and which of these ids pass (each looked up). Left to itself, the planner of SQLite takes the
wrong side by a factor of a hundred.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from types import MappingProxyType
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Select,
    String,
    Table,
    and_,
    cast,
    exists,
    func,
    or_,
    select,
)

from audio_storage_system.catalogue import embeddings as stored
from audio_storage_system.catalogue import placement, trash
from audio_storage_system.catalogue.filters import Filter
from audio_storage_system.catalogue.placement import Placement
from audio_storage_system.catalogue.transcripts import passed_over, searched
from audio_storage_system.clock import Deadline
from audio_storage_system.database import Database
from audio_storage_system.database.queries import among, given, ids_in_order
from audio_storage_system.database.remembering import remembered
from audio_storage_system.database.tables import audio_files, embeddings, passages, transcripts
from audio_storage_system.errors import InvalidFilter
from audio_storage_system.records import Space
from audio_storage_system.vectors import Candidates, Ids, Scope

T = TypeVar("T")

# What a longer filter means is not remembered.
LONGEST_KEY = 10_000
# About how many recordings there are, at no cost: rather too many, as some are deleted.
_NEWEST = select(func.coalesce(func.max(audio_files.c.id), 0))
EVERYTHING = 2**40
# So few recordings are named one by one to a vector database that filters by itself.
FEW_RECORDINGS = 1_000


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
        with self.connect() as connection:
            found = _ids(connection, self.listing.limit(limit + 1))
        return None if len(found) > limit else found

    def admit(self, ids: Sequence[int]) -> set[int]:
        """Those of `ids` that pass."""
        with self.connect() as connection:
            return set(_ids(connection, self.probe, given(ids)).tolist())

    def scope(self) -> Scope:
        """The recordings that pass, if they are few; else when they were recorded."""
        if self.recordings is None:
            return Scope()
        with self.connect() as connection:
            return _scope(_ids(connection, self.recordings.limit(FEW_RECORDINGS + 1)), self.period)


@dataclass(frozen=True)
class PlacedCandidates:
    """Implements `vectors.Candidates` by what each id belongs to: `passing` says which runs of the placement pass."""

    placement: Placement
    passing: npt.NDArray[np.bool_]
    limits: Scope

    def ids(self, limit: int) -> Ids | None:
        """All that pass, if they are no more than `limit`."""
        return self.placement.listed(self.passing, limit)

    def admit(self, ids: Sequence[int]) -> set[int]:
        """Those of `ids` that pass."""
        asked = np.asarray(ids, dtype=np.int64)
        return set(asked[self.placement.members(self.passing, asked)].tolist())

    def scope(self) -> Scope:
        """The recordings that pass, if they are few; else when they were recorded."""
        return self.limits


@dataclass(frozen=True)
class LookedUpCandidates:
    """Implements `vectors.Candidates` where ids appear in no order: what each belongs to is looked up. `listing` lists
    what passes, if it is no more than a number."""

    connect: Callable[[], AbstractContextManager[Connection]]
    table: Table
    allowed: Allowed
    listing: Callable[[Connection, int], Ids | None]

    def ids(self, limit: int) -> Ids | None:
        """All that pass, if they are no more than `limit`."""
        with self.connect() as connection:
            return self.listing(connection, limit)

    def admit(self, ids: Sequence[int]) -> set[int]:
        """Those of `ids` that pass."""
        with self.connect() as connection:
            places = placement.looked_up(connection, self.table, ids)
        allowed = self.allowed
        chosen = places.chosen(allowed.recordings, allowed.transcripts, allowed.passed_over, allowed.trashed)
        return set(places.ids[chosen].tolist())

    def scope(self) -> Scope:
        """The recordings that pass, if they are few; else when they were recorded."""
        with self.connect() as connection:
            newest = remembered(connection, "newest recording", lambda: connection.execute(_NEWEST).scalar_one())
        recordings = self.allowed.recordings
        share = 1.0 if recordings is None else min(1.0, len(recordings) / max(newest, 1))
        return replace(_scope(recordings, self.allowed.period), share=share)


@dataclass(frozen=True, slots=True, eq=False)
class Allowed:
    """What a filter lets pass, `None` where it is anything: recordings and transcripts; and of these not the
    transcripts that search passes over, and not what is in the trash. Ids ascending."""

    recordings: Ids | None
    transcripts: Ids | None
    passed_over: Ids
    trashed: Ids
    period: tuple[datetime | None, datetime | None]

    @property
    def everything(self) -> bool:
        hidden = len(self.passed_over) or len(self.trashed)
        return self.recordings is None and self.transcripts is None and not hidden

    def of(self, placement: Placement) -> PlacedCandidates:
        """The ids of `placement` that pass."""
        passing = placement.runs(self.recordings, self.transcripts, self.passed_over, self.trashed)
        return PlacedCandidates(placement, passing, _scope(self.recordings, self.period))


def _scope(recordings: Ids | None, period: tuple[datetime | None, datetime | None]) -> Scope:
    few = recordings is not None and len(recordings) <= FEW_RECORDINGS
    audio_ids = tuple(recordings.tolist()) if few and recordings is not None else None
    return Scope(audio_ids=audio_ids, since=period[0], until=period[1])


def of_passages(connection: Connection, wanted: Filter) -> Candidates:
    """Passages of the transcripts that search follows, where the filter holds, as this connection sees them."""
    wanted = wanted.standing(connection)
    if wanted.on_passages():
        return _asked_passages(connection, wanted)
    allowed = _allowed(connection, wanted)
    if allowed.everything:
        return Everything()
    if not ids_in_order(connection):  # a placement would miss what is committed late
        listing = _lister(("passages", wanted), lambda connection: _asked_passages(connection, wanted))
        return LookedUpCandidates(lambda: nullcontext(connection), passages, allowed, listing)
    return _kept(connection, ("passages", wanted), lambda: allowed.of(placement.of_passages(connection)))


def seen_passages(connection: Connection, wanted: Filter) -> Ids | None:
    """Every passage that whoever asks might find without any other condition, ascending; `None` where it is all of
    them. Words weigh as if there were no others."""
    asking = Filter(access=wanted.access).standing(connection)
    if asking.access is None:
        return None
    return _kept(connection, ("seen", asking), lambda: of_passages(connection, asking).ids(EVERYTHING))


def hidden_passages(connection: Connection) -> Ids:
    """The passages in the trash, ascending: words weigh as if they were not there."""
    return remembered(connection, "trashed passages", lambda: _ids(connection, trash.passage_ids()))


def of_embeddings(database: Database, space: Space, wanted: Filter, deadline: Deadline) -> Candidates:
    """Embeddings of one space where the filter holds. A window of non-speech has no transcript: only conditions on its
    recording can hold for it."""
    if wanted.access is not None:
        with database.read(deadline) as connection:
            wanted = wanted.standing(connection)
    if wanted.on_passages():
        return _asked_embeddings(database, space, wanted, deadline)
    with database.read(deadline) as connection:
        allowed = _allowed(connection, wanted)
        if allowed.everything:
            return Everything()
        if not ids_in_order(connection):
            listing = _lister((space.id, wanted), lambda _: _asked_embeddings(database, space, wanted, deadline))
            return LookedUpCandidates(partial(database.read, deadline), embeddings, allowed, listing)
        return _kept(connection, (space.id, wanted), lambda: allowed.of(placement.of_embeddings(connection, space)))


def _lister(
    key: tuple[Hashable, Filter], ask: Callable[[Connection], Candidates]
) -> Callable[[Connection, int], Ids | None]:
    """Lists what passes, asking for it once while the database stays as it is."""
    return lambda connection, limit: _kept(connection, (key, limit), lambda: ask(connection).ids(limit))


def _allowed(connection: Connection, wanted: Filter) -> Allowed:
    return _kept(connection, ("allowed", wanted), lambda: _resolved(connection, wanted))


def _kept(connection: Connection, key: tuple[Hashable, ...], find: Callable[[], T]) -> T:
    """What a filter means for the database as it is; the filter goes by how it is written, types and all."""
    try:
        written = repr(key)
    except RecursionError as error:
        raise InvalidFilter(key="as a whole", reason="it is nested too deeply") from error
    return remembered(connection, written, find) if len(written) <= LONGEST_KEY else find()


def _resolved(connection: Connection, wanted: Filter) -> Allowed:
    said, recorded = wanted.on_transcripts(), wanted.on_recordings()
    return Allowed(
        _ids(connection, select(audio_files.c.id).where(*recorded)) if recorded else None,
        _ids(connection, select(transcripts.c.id).where(*said)) if said else None,
        _ids(connection, passed_over()),
        _ids(connection, trash.ids()),
        wanted.period,
    )


def _ids(connection: Connection, query: Select[int], parameters: Mapping[str, str] = MappingProxyType({})) -> Ids:
    """The ids, ascending. They come in one string: many small rows cost more to hand over than to find."""
    found = query.subquery()
    joined = select(func.aggregate_strings(cast(found.c.id, String), ","))
    text = connection.execute(joined, parameters).scalar()
    return np.sort(np.fromstring(text, dtype=np.int64, sep=",")) if text else np.zeros(0, dtype=np.int64)


def passages_of(connection: Connection, embedding_ids: Sequence[int]) -> dict[int, int]:
    """Which passage each of these embeddings, known to exist, belongs to; windows of non-speech are left out."""
    if ids_in_order(connection):
        return stored.passages_of(connection, embedding_ids)
    places = placement.looked_up(connection, embeddings, embedding_ids)
    return {
        id_: passage for id_, passage in zip(places.ids.tolist(), places.passage_ids.tolist(), strict=True) if passage
    }


def _asked_passages(connection: Connection, wanted: Filter) -> Candidates:
    said = [searched(), *wanted.on_transcripts()]
    listing = (
        select(passages.c.id)
        .join(transcripts, transcripts.c.id == passages.c.transcript_id)
        .join(audio_files, audio_files.c.id == passages.c.audio_file_id)
        .where(*said, *wanted.on_passages(), *wanted.on_recordings(), trash.outside(passages.c.audio_file_id))
    )
    probe = _given(passages).where(
        _is(transcripts, passages.c.transcript_id, said),
        _is(audio_files, passages.c.audio_file_id, wanted.on_recordings(probing=True)),
        *wanted.on_passages(),
        trash.outside(passages.c.audio_file_id),
    )
    return SQLCandidates(lambda: nullcontext(connection), listing, probe)


def _asked_embeddings(database: Database, space: Space, wanted: Filter, deadline: Deadline) -> Candidates:
    said, spoken = wanted.on_transcripts(), wanted.on_passages()
    listing = (
        select(embeddings.c.id)
        .join(audio_files, audio_files.c.id == embeddings.c.audio_file_id)
        .outerjoin(transcripts, transcripts.c.id == embeddings.c.transcript_id)
        .outerjoin(passages, passages.c.id == embeddings.c.passage_id)
        .where(embeddings.c.space_id == space.id, *said, *spoken, *wanted.on_recordings())
        .where(or_(embeddings.c.transcript_id.is_(None), searched()), trash.outside(embeddings.c.audio_file_id))
    )
    followed = _is(transcripts, embeddings.c.transcript_id, [searched(), *said])
    probe = _given(embeddings).where(
        followed if said or spoken else or_(embeddings.c.transcript_id.is_(None), followed),
        _is(audio_files, embeddings.c.audio_file_id, wanted.on_recordings(probing=True)),
        _is(passages, embeddings.c.passage_id, spoken),
        trash.outside(embeddings.c.audio_file_id),
    )
    recorded = wanted.on_recordings()
    recordings = select(audio_files.c.id).where(*recorded) if recorded else None
    return SQLCandidates(partial(database.read, deadline), listing, probe, recordings, wanted.period)


def _given(table: Table) -> Select[int]:
    """The rows of `table` whose ids are given. Every other condition is a subquery, so the planner starts here."""
    return select(table.c.id).where(among(table.c.id))


def _is(table: Table, reference: Column[int], conditions: Sequence[ColumnElement[bool]]) -> ColumnElement[bool]:
    """The row that `reference` points to meets the conditions."""
    return exists().where(table.c.id == reference, *conditions) if conditions else and_(True)
