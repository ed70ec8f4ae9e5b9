"""Full text of the passages: SQLite FTS5 over the terms of `analysis`, a derived table that can be dropped and rebuilt.

The column `words` holds every word in order, which phrases and prefixes need; `stems` only those stems that are not the
word itself, which costs a third more index instead of doubling it. FTS5's `ascii` tokenizer takes the terms as they
are. FTS5 is asked for posting lists; `bm25` ranks them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TypeAlias
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Engine, select

from audio_storage_system.catalogue.analysis import stems, words
from audio_storage_system.catalogue.bm25 import TYPICAL_LENGTH, Floats, Ids, Postings, outline, score
from audio_storage_system.catalogue.query_text import Expression, Word, parse
from audio_storage_system.database.tables import passages, transcripts

Admit: TypeAlias = Callable[[Sequence[int]], set[int]]
Match: TypeAlias = tuple[int, float]

# Words that together are in more passages than this are left out of a query, the most frequent first, but never the
# rarest few. A word that alone is in more weighs by whether it is said, not how often: seven times less to read.
MAX_POSTINGS = 50_000
RAREST_KEPT = 3
# Of the best candidates so many times the limit, and at least so many, get their exact score.
RESCORED, RESCORED_AT_LEAST = 4, 400
LARGEST_BATCH = 10_000
REBUILD_CHUNK = 5_000
COUNTS_KEPT, COUNTS_LIVE_SECONDS = 10_000, 600.0
_counts: WeakKeyDictionary[Engine, dict[tuple[str, ...], tuple[int, float]]] = WeakKeyDictionary()

_CREATE = (
    "CREATE VIRTUAL TABLE IF NOT EXISTS passages_fts USING fts5(words, stems, tokenize = 'ascii')",
    "CREATE VIRTUAL TABLE IF NOT EXISTS passages_fts_instances USING fts5vocab(passages_fts, instance)",
)
_DROP = ("DROP TABLE IF EXISTS passages_fts_instances", "DROP TABLE IF EXISTS passages_fts")
_OPTIMIZE = "INSERT INTO passages_fts (passages_fts) VALUES ('optimize')"
_INSERT = "INSERT OR REPLACE INTO passages_fts (rowid, words, stems) VALUES (?, ?, ?)"
_DELETE = "DELETE FROM passages_fts WHERE rowid = ?"
_TOTAL = "SELECT count(*) FROM passages"
_COUNT = "SELECT count(*) FROM passages_fts WHERE passages_fts MATCH ?"
_IDS = "SELECT group_concat(rowid) FROM passages_fts WHERE passages_fts MATCH ?"
_OCCURRENCES = "SELECT group_concat(doc) FROM passages_fts_instances WHERE term = ?"
_LENGTHS = "SELECT id, length(text) FROM passages WHERE id IN (SELECT value FROM json_each(?))"


def create(connection: Connection) -> None:
    """Make the table where there is none."""
    for statement in _CREATE:
        connection.exec_driver_sql(statement)


def add(connection: Connection, rows: Iterable[tuple[int, str, str | None]]) -> None:
    """Index passages: (passage id, text, language). A passage indexed before is replaced."""
    entries = [(id_, " ".join(words(text)), " ".join(stems(text, language))) for id_, text, language in rows]
    if entries:
        connection.exec_driver_sql(_INSERT, entries)


def remove(connection: Connection, passage_ids: Iterable[int]) -> None:
    """Forget passages; ids that are not indexed are no error."""
    if rows := [(int(id_),) for id_ in passage_ids]:
        connection.exec_driver_sql(_DELETE, rows)


def rebuild(connection: Connection) -> None:
    """Make the table anew from the catalogue, in one segment: the fastest to search."""
    for statement in _DROP:
        connection.exec_driver_sql(statement)
    create(connection)
    for rows in _stored_passages(connection):
        add(connection, rows)
    connection.exec_driver_sql(_OPTIMIZE)


def _stored_passages(connection: Connection) -> Iterator[list[tuple[int, str, str | None]]]:
    columns = select(passages.c.id, passages.c.text, transcripts.c.language)
    query = columns.join(transcripts, transcripts.c.id == passages.c.transcript_id).order_by(passages.c.id)
    last = 0
    while chunk := connection.execute(query.where(passages.c.id > last).limit(REBUILD_CHUNK)).all():
        yield [(row.id, row.text, row.language) for row in chunk]
        last = chunk[-1].id


def search(
    connection: Connection,
    query: str,
    *,
    limit: int,
    admit: Admit,
    within_ids: npt.NDArray[np.int64] | None = None,
    languages: Collection[str | None] = (),
) -> list[Match]:
    """The passages that `query` (see `query_text`) finds and `admit` lets pass: (id, BM25 > 0), best first, ties by id.

    The result equals filtering first: candidates are tested in growing batches until enough pass or none is left.
    `within_ids`, where the ids that can pass are few and known, spares the rest that test. `languages` are those of the
    stored transcripts, `None` among them where one is unknown: a word is looked up as its stem in each.
    Any text is a valid query; one without a usable word finds nothing.
    """
    parsed = parse(query, languages)
    required = [_where(connection, expression) for expression in parsed.required]
    lists = [_of_word(connection, word) for word in _informative(connection, parsed.words)] + required
    if not lists or limit <= 0:
        return []
    total = _count(connection, _TOTAL)
    ids, scores = outline(lists, total)
    excluded = [_where(connection, expression) for expression in parsed.excluded]
    possible = _possible(ids, required, excluded, within_ids)
    candidates = ids[possible][np.argsort(-scores[possible], kind="stable")]
    admitted = _admitted(candidates, max(RESCORED * limit, RESCORED_AT_LEAST), admit)
    return _best(admitted, score(lists, total, admitted, _lengths(connection, admitted)), limit)


def _of_word(connection: Connection, word: Word) -> Postings:
    """Where any form is said. A passage that says several forms counts with the most frequent, because one word of a
    passage in another language can be two of them: itself and its stem."""
    if word.is_prefix or _count(connection, _COUNT, word.expression) > MAX_POSTINGS:
        return _where(connection, word.expression)
    forms = [Postings.of(_numbers(connection, _OCCURRENCES, form)) for form in word.forms]
    if len(forms) == 1:
        return forms[0]
    ids = np.unique(np.concatenate([form.ids for form in forms]))
    return Postings(ids, np.max([form.counts_in(ids) for form in forms], axis=0))


def _where(connection: Connection, expression: Expression) -> Postings:
    return Postings.of(_numbers(connection, _IDS, expression))


def _numbers(connection: Connection, sql: str, parameter: str) -> Ids:
    """Ids by the ten thousand: as one text they come out of SQLite five times faster than as rows."""
    text = connection.exec_driver_sql(sql, (parameter,)).scalar_one()
    return np.fromstring(text, dtype=np.int64, sep=",") if text else np.empty(0, np.int64)


def _possible(
    ids: Ids, required: Sequence[Postings], excluded: Sequence[Postings], within_ids: Ids | None
) -> npt.NDArray[np.bool_]:
    """Which candidates say all that is required, nothing excluded, and are within the known ids."""
    possible = np.ones(len(ids), np.bool_) if within_ids is None else np.isin(ids, within_ids)
    for postings in required:
        possible &= np.isin(ids, postings.ids)
    for postings in excluded:
        possible &= ~np.isin(ids, postings.ids)
    return possible


def _admitted(candidates: Ids, wanted: int, admit: Admit) -> Ids:
    """The first `wanted` candidates that pass."""
    found: list[int] = []
    start, size = 0, min(wanted, LARGEST_BATCH)
    while len(found) < wanted and start < len(candidates):
        batch = candidates[start : start + size].tolist()
        passing = admit(batch)
        found += [id_ for id_ in batch if id_ in passing]
        start, size = start + size, min(2 * size, LARGEST_BATCH)
    return np.array(found[:wanted], np.int64)


def _lengths(connection: Connection, ids: Ids) -> Floats:
    rows = connection.exec_driver_sql(_LENGTHS, (json.dumps(ids.tolist()),))
    known = {row[0]: row[1] for row in rows}
    return np.array([known.get(id_, TYPICAL_LENGTH) for id_ in ids.tolist()], np.float64)


def _best(ids: Ids, scores: Floats, limit: int) -> list[Match]:
    order = np.lexsort((ids, -scores))[:limit]
    return list(zip(ids[order].tolist(), scores[order].tolist(), strict=True))


def _informative(connection: Connection, asked: Sequence[Word]) -> list[Word]:
    """The rarest of the words that together stay under `MAX_POSTINGS`, and `RAREST_KEPT` of them in any case."""
    counts = {word: _count(connection, _COUNT, word.expression) for word in asked}
    kept, postings = [], 0
    for number, word in enumerate(sorted(filter(counts.__getitem__, asked), key=counts.__getitem__)):
        postings += counts[word]
        if number >= RAREST_KEPT and postings > MAX_POSTINGS:
            break
        kept.append(word)
    return kept


def _count(connection: Connection, sql: str, *parameters: str) -> int:
    """A number of passages, remembered for some minutes. Old numbers only shift which frequent words are left out and
    how much a word weighs; zero is not remembered."""
    known = _counts.setdefault(connection.engine, {})
    count, expires = known.get((sql, *parameters), (0, 0.0))
    if expires < time.monotonic():
        count = int(connection.exec_driver_sql(sql, parameters).scalar_one())
        if len(known) >= COUNTS_KEPT:
            known.clear()
        if count:
            known[sql, *parameters] = count, time.monotonic() + COUNTS_LIVE_SECONDS
    return count
