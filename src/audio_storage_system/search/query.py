"""Answering a query: candidates by words and by vector, fused, cut to a page, and dressed with what belongs to them."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from audio_storage_system.catalogue import embeddings, fulltext
from audio_storage_system.catalogue import transcripts as versions
from audio_storage_system.catalogue.filters import Filter
from audio_storage_system.clock import Deadline
from audio_storage_system.database import Database
from audio_storage_system.database.remembering import remembered
from audio_storage_system.errors import InvalidInput
from audio_storage_system.records import EmbeddingKind, Space
from audio_storage_system.search import candidates
from audio_storage_system.search.dressing import Ranked, dress
from audio_storage_system.search.fusion import POOL, fuse, weight_for
from audio_storage_system.search.results import SearchResults
from audio_storage_system.vectors import VectorIndex

Mode = Literal["hybrid", "semantic", "keyword"]
MODES: tuple[Mode, ...] = ("hybrid", "semantic", "keyword")
MAX_LIMIT = 10_000
# A filter that fewer passages than this pass is answered first, and only these are searched.
SELECTIVE = 20_000
# Longer texts are cut: no passage is as long, and a book is no question.
MAX_QUERY_CHARACTERS = 10_000


@dataclass(frozen=True)
class Query:
    """What to look for. `vector` is the query in `space`; without one only words are searched.

    limit, offset: the page of hits; context: neighbouring segments on each side of a hit.
    """

    text: str = ""
    vector: npt.NDArray[np.float32] | None = None
    space: Space | None = None
    mode: Mode = "hybrid"
    filter: Filter = field(default_factory=Filter)
    limit: int = 10
    offset: int = 0
    context: int = 0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise InvalidInput(reason=f'There is no search mode "{self.mode}"; there are: {", ".join(MODES)}')
        if not 0 <= self.limit <= MAX_LIMIT or self.offset < 0 or not 0 <= self.context <= 100:
            reason = f"limit is 0…{MAX_LIMIT}, offset not negative, context 0…100"
            raise InvalidInput(reason=reason)

    @property
    def end(self) -> int:
        """How long a ranking has to be for the page."""
        return self.offset + self.limit


def run(database: Database, index: VectorIndex, query: Query, deadline: Deadline) -> SearchResults:
    """Search; hits are as if the filter came first. Raises `InvalidFilter`, `DeadlineExceeded`."""
    query = replace(query, text=query.text[:MAX_QUERY_CHARACTERS])
    with one_state(database, index, query, deadline):
        return _results(database, index, standing(database, query, deadline), deadline)


def standing(database: Database, query: Query, deadline: Deadline) -> Query:
    """The same as whoever asks is entitled to it now."""
    if query.filter.access is None:
        return query
    with database.read(deadline) as connection:
        return replace(query, filter=query.filter.standing(connection))


def one_state(database: Database, index: VectorIndex, query: Query, deadline: Deadline) -> AbstractContextManager[None]:
    """For a search in this database: all of it in one transaction, where the index is in the database too."""
    if not index.asks_only(database):
        return nullcontext()
    if query.vector is not None and query.space is not None and not database.in_snapshot:
        index.prepare(query.space, deadline)
    return database.snapshot(deadline)


def _results(database: Database, index: VectorIndex, query: Query, deadline: Deadline) -> SearchResults:
    if query.space is not None and query.space.kind is not EmbeddingKind.TRANSCRIPT:
        ranking = _alike(database, index, query, deadline)
    else:
        ranking = _said(database, index, query, deadline)
    page = ranking[query.offset : query.offset + query.limit]
    deadline.check()
    hits = dress(database, page, query.text, query.context, deadline)
    return SearchResults(query.text, query.mode, len(ranking), tuple(hits))


def _said(database: Database, index: VectorIndex, query: Query, deadline: Deadline) -> list[Ranked]:
    """Ranking of passages by their words and what they mean.

    Pools of candidates that do not depend on the page, each twice as deep as the one before, until the page is full: a
    deeper one goes on after what the shallower ones ranked, so that no page repeats or skips what is on another.
    """
    ranked: dict[int | None, Ranked] = {}
    depth, floor, exhausted = query.end if query.mode == "semantic" else POOL, math.inf, False
    while not exhausted:
        pool, exhausted = _pool(database, index, query, depth, deadline)
        for place in pool:
            kept = place if place.score <= floor else replace(place, score=floor)
            ranked.setdefault(place.passage_id, kept)
        if len(ranked) >= query.end:
            break
        depth, floor = 2 * depth, min((place.score for place in ranked.values()), default=math.inf)
    return list(ranked.values())


def _pool(
    database: Database, index: VectorIndex, query: Query, depth: int, deadline: Deadline
) -> tuple[list[Ranked], bool]:
    """The `depth` best of each way of searching, in one order; and whether there are no more."""
    lexical = _by_words(database, query, depth, deadline) if query.mode != "semantic" else {}
    semantic = _by_vector(database, index, query, depth, deadline) if query.mode != "keyword" else {}
    cosines = {**_cosines(database, query, [id_ for id_ in lexical if id_ not in semantic], deadline), **semantic}
    if query.mode == "hybrid":
        order = fuse(lexical, cosines, weight_for(query.space.model if query.space else ""))
    else:
        order = [*lexical.items(), *semantic.items()]
    ranking = [Ranked(id_, None, cosines.get(id_, math.nan), score) for id_, score in order]
    return ranking, max(len(lexical), len(semantic)) < depth


def _alike(database: Database, index: VectorIndex, query: Query, deadline: Deadline) -> list[Ranked]:
    """Ranking of spans by how they sound (and what is said in them)."""
    if query.vector is None or query.space is None:
        return []
    within = candidates.of_embeddings(database, query.space, query.filter, deadline)
    matches = index.query(query.space, query.vector, limit=query.end, within=within, deadline=deadline)
    with database.read(deadline) as connection:
        passage_of = candidates.passages_of(connection, [match.embedding_id for match in matches])
    return [
        Ranked(passage_of.get(match.embedding_id), match.embedding_id, match.similarity, match.similarity)
        for match in matches
    ]


def _by_words(database: Database, query: Query, depth: int, deadline: Deadline) -> dict[int, float]:
    with database.read(deadline) as connection:
        within, access = candidates.of_passages(connection, query.filter), query.filter.access
        found = fulltext.search(
            connection,
            query.text,
            limit=depth,
            admit=within.admit,
            within_ids=within.ids(SELECTIVE) if query.filter.limits else None,
            languages=remembered(
                connection, ("languages", repr(access)), lambda: versions.languages(connection, access)
            ),
            period=query.filter.period,
            existing=candidates.seen_passages(connection, query.filter),
            hidden=candidates.hidden_passages(connection),
        )
    return dict(found)


def _by_vector(
    database: Database, index: VectorIndex, query: Query, depth: int, deadline: Deadline
) -> dict[int, float]:
    if query.vector is None or query.space is None:
        return {}
    within = candidates.of_embeddings(database, query.space, query.filter, deadline)
    matches = index.query(query.space, query.vector, limit=depth, within=within, deadline=deadline)
    with database.read(deadline) as connection:
        passage_of = candidates.passages_of(connection, [match.embedding_id for match in matches])
    return {passage_of[m.embedding_id]: m.similarity for m in matches if m.embedding_id in passage_of}


def _cosines(database: Database, query: Query, passage_ids: list[int], deadline: Deadline) -> dict[int, float]:
    """True cosines of passages found by their words, where they have a vector."""
    if query.vector is None or query.space is None or not passage_ids:
        return {}
    with database.read(deadline) as connection:
        vectors = embeddings.passage_vectors(connection, query.space, passage_ids)
    return {id_: float(vector @ query.vector) for id_, vector in vectors.items()}
