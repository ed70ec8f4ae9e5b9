"""Where something is said, in PostgreSQL: `tsvector` and GIN over the terms of `analysis`, in the derived table
`passage_search`.

A text vector holds every word at its place with weight A, which phrases and prefixes need, and behind them those stems
that are not the word itself. PostgreSQL's own parser and dictionaries are not used, so both databases find the same.
How often a word is said is read from `ts_rank`, which counts in C: with equal weights and one word its result is
(1 + 1/4 + 1/9 + … + 1/n²) · 6/π² for n places (`calc_rank_or` in PostgreSQL's tsrank.c).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import TypeAlias

import numpy as np
from sqlalchemy import Connection, text

from audio_storage_system.catalogue.bm25 import Postings
from audio_storage_system.catalogue.query_text import Expression, Phrase, Word
from audio_storage_system.database import passage_search
from audio_storage_system.database.postgresql import version as database_version
from audio_storage_system.database.queries import given

# More mentions of a word weigh no more to speak of.
MOST_MENTIONS = 30
# How many times more than enough the planner must expect to be believed; mostly it errs by less than half.
ESTIMATED_BEYOND = 2
Period: TypeAlias = tuple[datetime | None, datetime | None]
ALWAYS: Period = (None, None)
RANKS = np.cumsum(1 / np.arange(1, MOST_MENTIONS + 1) ** 2) * 6 / np.pi**2
BATCH = 500

_PUT = text(
    "WITH gone AS (DELETE FROM passage_search WHERE space_id = 0 AND passage_id = ANY(CAST(:ids AS bigint[])))"
    " INSERT INTO passage_search (space_id, owner_id, recorded_at, passage_id, audio_id, text_vector)"
    " SELECT 0, p.owner_id, a.recorded_at, p.id, p.audio_file_id, CAST(given.vector AS tsvector)"
    " FROM unnest(CAST(:ids AS bigint[]), string_to_array(:vectors, chr(10))) given(id, vector)"
    " JOIN passages p ON p.id = given.id JOIN audio_files a ON a.id = p.audio_file_id"
)
_MOMENTS = text(
    "SELECT DISTINCT a.recorded_at FROM passages p JOIN audio_files a ON a.id = p.audio_file_id"
    " WHERE p.id = ANY(CAST(:ids AS bigint[]))"
)
_ALL_MOMENTS = text(
    "SELECT DISTINCT date_trunc('month', recorded_at AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' FROM audio_files"
)
_REMOVE = text("DELETE FROM passage_search WHERE space_id = 0 AND passage_id = ANY(CAST(:ids AS bigint[]))")
_CLEAR = text("DELETE FROM passage_search WHERE space_id = 0")
# Not where an index is being made: that waits for this transaction, and PostgreSQL gathers them by itself soon.
_ANALYZE = text("ANALYZE (SKIP_LOCKED) passage_search")
_TOTAL = text("SELECT count(*) FROM passages")
_WHERE = "FROM passage_search WHERE space_id = 0 AND text_vector @@ CAST(:query AS tsquery)"
_WITHIN = "AND recorded_at >= CAST(:since AS timestamptz) AND recorded_at < CAST(:until AS timestamptz)"
_COUNT = text(f"SELECT count(*) {_WHERE}")
_ESTIMATE = text(f"EXPLAIN (FORMAT JSON) SELECT 1 {_WHERE}")
# Numbers by the ten thousand come as the bytes that they are on the wire: written out, they take twice as long.
_IDS = f"SELECT string_agg(int8send(passage_id), '') {_WHERE}"
_RANKS = (
    "SELECT asked.place, string_agg(int8send(found.passage_id), ''), string_agg(float4send(found.rank), '')"
    " FROM unnest(CAST(:queries AS text[])) WITH ORDINALITY asked(query, place) CROSS JOIN LATERAL (SELECT passage_id,"
    " ts_rank('{1,1,1,1}', text_vector, CAST(asked.query AS tsquery), 0) AS rank FROM passage_search"
    " WHERE space_id = 0 AND text_vector @@ CAST(asked.query AS tsquery)"
)
_BY_FORM = ") found GROUP BY asked.place"
_READ_IDS, _READ_IDS_WITHIN = text(_IDS), text(f"{_IDS} {_WITHIN}")
_READ_RANKS, _READ_RANKS_WITHIN = text(f"{_RANKS}{_BY_FORM}"), text(f"{_RANKS} {_WITHIN}{_BY_FORM}")
_LENGTHS = text(
    "SELECT id, length(text) FROM passages WHERE id IN (SELECT CAST(value AS bigint) FROM"
    " json_array_elements_text(CAST(:given AS json)))"
)

_IS_THERE = text("SELECT to_regclass('passage_search')")
_MISSING = text(
    "SELECT p.id FROM passages p JOIN audio_files a ON a.id = p.audio_file_id WHERE NOT EXISTS"
    " (SELECT 1 FROM passage_search s WHERE s.space_id = 0 AND s.passage_id = p.id AND s.audio_id = a.id"
    " AND s.owner_id = p.owner_id AND s.recorded_at = a.recorded_at)"
)
_SURPLUS = text(
    "SELECT s.passage_id FROM passage_search s LEFT JOIN passages p ON p.id = s.passage_id WHERE s.space_id = 0"
    " GROUP BY s.passage_id HAVING count(*) > 1 OR count(p.id) = 0"
)
_DIFFERING = text(
    "SELECT s.passage_id FROM unnest(CAST(:ids AS bigint[]), string_to_array(:vectors, chr(10))) given(id, vector)"
    " JOIN passage_search s ON s.space_id = 0 AND s.passage_id = given.id"
    " WHERE ts_filter(s.text_vector, '{a}') <> CAST(given.vector AS tsvector)"
)


def create(connection: Connection, partition: str = "") -> None:
    """Make the table where there is none."""
    passage_search.create(connection, partition)


def clear(connection: Connection) -> None:
    """Forget every passage; embeddings in the same table stay. First there is room for all recordings, see `locks`."""
    passage_search.make_room(connection, connection.execute(_ALL_MOMENTS).scalars())
    connection.execute(_CLEAR)


def put(connection: Connection, rows: Iterable[tuple[int, list[str], list[str]]]) -> None:
    """Index passages: (passage id, words, stems). One indexed before is replaced."""
    entries = [(id_, _vector(words, stems)) for id_, words, stems in rows]
    passage_search.make_room(connection, _moments(connection, [id_ for id_, _ in entries]))
    for start in range(0, len(entries), BATCH):
        batch = entries[start : start + BATCH]
        vectors = "\n".join(vector for _, vector in batch)
        connection.execute(_PUT, {"ids": [id_ for id_, _ in batch], "vectors": vectors})


def _moments(connection: Connection, ids: list[int]) -> Iterator[datetime]:
    """When these passages were recorded; asked only by who wants to know."""
    yield from connection.execute(_MOMENTS, {"ids": ids}).scalars()


def remove(connection: Connection, passage_ids: Iterable[int]) -> None:
    """Forget passages; ids that are not indexed are no error."""
    if ids := [int(id_) for id_ in passage_ids]:
        connection.execute(_REMOVE, {"ids": ids})


def optimize(connection: Connection) -> None:
    """Let the planner know what is in the table now."""
    connection.execute(_ANALYZE)


def version(connection: Connection) -> Hashable:
    """Equal for two moments only if the table holds the same."""
    return database_version(connection)


def total(connection: Connection) -> int:
    """How many passages there are."""
    return int(connection.execute(_TOTAL).scalar_one())


def count(connection: Connection, expression: Expression) -> int:
    """How many passages say any form of a word, or a phrase."""
    return int(connection.execute(_COUNT, {"query": _expression(expression)}).scalar_one())


def about(connection: Connection, word: Word, most: int) -> int:
    """How many passages say any form of a word; of more than `most`, about how many the planner expects, since to count
    them is to read them all."""
    plan = connection.execute(_ESTIMATE, {"query": _expression(word)}).scalar_one()
    expected = int(plan[0]["Plan"]["Plan Rows"])
    return expected if expected > ESTIMATED_BEYOND * most else count(connection, word)


def prunes(connection: Connection) -> bool:
    """Whether a list of one period is read faster than a whole one: where the table is cut by time."""
    return passage_search.by_time(connection)


def saying(connection: Connection, expression: Expression, period: Period = ALWAYS) -> Postings:
    """The passages that say it, each counted once; of a period only those recorded then, as though there were no
    others."""
    query = _READ_IDS if period == ALWAYS else _READ_IDS_WITHIN
    found = connection.execute(query, {"query": _expression(expression), **_bounds(period)}).scalar_one()
    return Postings.once(np.frombuffer(found or b"", ">i8").astype(np.int64))


def occurrences(connection: Connection, forms: Sequence[str], period: Period = ALWAYS) -> list[Postings]:
    """For each of these forms of words the passages that say it, and how often."""
    query = _READ_RANKS if period == ALWAYS else _READ_RANKS_WITHIN
    rows = connection.execute(query, {"queries": [_quoted(form) for form in forms], **_bounds(period)})
    found = {place: (ids, ranks) for place, ids, ranks in rows}
    return [_postings(*found.get(place, (b"", b""))) for place in range(1, len(forms) + 1)]


def _postings(found: bytes, ranks: bytes) -> Postings:
    ids, rank = np.frombuffer(found, ">i8").astype(np.int64), np.frombuffer(ranks, ">f4").astype(np.float64)
    mentions = (np.searchsorted(RANKS, rank - 1e-4).clip(0, MOST_MENTIONS - 1) + 1).astype(np.int32)
    order = np.argsort(ids)
    return Postings(ids[order], mentions[order], len(ids))


def lengths(connection: Connection, passage_ids: Sequence[int]) -> dict[int, int]:
    """How many characters each of these passages has, by id."""
    return {row[0]: row[1] for row in connection.execute(_LENGTHS, given(passage_ids))}


def is_there(connection: Connection) -> bool:
    """Whether there is a table."""
    return connection.execute(_IS_THERE).scalar() is not None


def missing(connection: Connection) -> Iterator[int]:
    """The passages that are not indexed as what they are: of their owner, recording and time."""
    yield from connection.execute(_MISSING.execution_options(yield_per=BATCH)).scalars()


def surplus(connection: Connection) -> Iterator[int]:
    """What is indexed as a passage that is not there, or twice."""
    yield from connection.execute(_SURPLUS.execution_options(yield_per=BATCH)).scalars()


def differing(connection: Connection, rows: Sequence[tuple[int, list[str]]]) -> list[int]:
    """Those of these passages, (id, words), that are indexed with other words."""
    vectors = "\n".join(_vector(words, ()) for _, words in rows)
    return list(connection.execute(_DIFFERING, {"ids": [id_ for id_, _ in rows], "vectors": vectors}).scalars())


def _bounds(period: Period) -> dict[str, str]:
    if period == ALWAYS:
        return {}
    since, until = period
    first, end = since.isoformat() if since else "-infinity", until.isoformat() if until else "infinity"
    return {"since": first, "until": end}


def _vector(words: Iterable[str], stems: Iterable[str]) -> str:
    """The text of a `tsvector`, in which PostgreSQL gathers the places of a term itself; it keeps the first 255, and
    those beyond the last that it can name, 16,383, count as that one. Terms are safe between single quotes (see
    `analysis`)."""
    said = [f"'{term}':{place}A" for place, term in enumerate(words, start=1)]
    return " ".join(said + [f"'{term}':{place}" for place, term in enumerate(stems, start=len(said) + 2)])


def _expression(wanted: Expression) -> str:
    """In the language of `tsquery`."""
    if isinstance(wanted, Phrase):
        *terms, last = wanted.terms
        return " <-> ".join([*(f"{_quoted(term)}:A" for term in terms), f"{_quoted(last)}:{'*' * wanted.is_prefix}A"])
    if wanted.is_prefix:
        return f"{_quoted(wanted.forms[0])}:*A"
    return " | ".join(map(_quoted, wanted.forms))


def _quoted(term: str) -> str:
    return f"'{term}'"
