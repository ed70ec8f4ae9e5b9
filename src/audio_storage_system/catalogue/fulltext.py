"""Full text of the passages: which words of a query are looked up, which passages they find, in which order.

Where something is said is asked of the database's own engine (`fts5` on SQLite, `tsvector` on PostgreSQL); `bm25` ranks
what it answers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, select

from audio_storage_system.catalogue import bm25, fts5, tsvector
from audio_storage_system.catalogue.analysis import terms, words
from audio_storage_system.catalogue.bm25 import TYPICAL_LENGTH, Floats, Ids, Postings
from audio_storage_system.catalogue.posting_cache import LONG, K, PostingCache, cache_of
from audio_storage_system.catalogue.query_text import Expression, Word, parse
from audio_storage_system.catalogue.tsvector import Period
from audio_storage_system.database.remembering import remembered
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


class Engine(Protocol):
    """Where something is said, as one kind of database tells: `fts5` and `tsvector` are modules of this shape."""

    def create(self, connection: Connection, partition: str = "") -> None: ...
    def clear(self, connection: Connection) -> None: ...
    def put(self, connection: Connection, rows: Iterable[tuple[int, list[str], list[str]]]) -> None: ...
    def remove(self, connection: Connection, passage_ids: Iterable[int]) -> None: ...
    def optimize(self, connection: Connection) -> None: ...
    def shed(self, connection: Connection, *, first: bool) -> bool: ...
    def version(self, connection: Connection) -> Hashable: ...
    def total(self, connection: Connection) -> int: ...
    def about(self, connection: Connection, word: Word, most: int) -> int: ...
    def saying(self, connection: Connection, expression: Expression) -> Postings: ...
    def occurrences(self, connection: Connection, forms: Sequence[str]) -> list[Postings]: ...
    def lengths(self, connection: Connection, passage_ids: Sequence[int]) -> dict[int, int]: ...
    def is_there(self, connection: Connection) -> bool: ...
    def missing(self, connection: Connection) -> Iterator[int]: ...
    def surplus(self, connection: Connection) -> Iterator[int]: ...
    def differing(self, connection: Connection, rows: Sequence[tuple[int, list[str]]]) -> list[int]: ...


ENGINES: dict[str, Engine] = {"sqlite": fts5, "postgresql": tsvector}


def engine_of(connection: Connection) -> Engine:
    """The full-text engine of the database that this connection is to."""
    return ENGINES[connection.dialect.name]


def create(connection: Connection, partition: str = "") -> None:
    """Make the table where there is none. `partition`: how a server cuts it, see `Settings`."""
    engine_of(connection).create(connection, partition)


def add(connection: Connection, rows: Iterable[tuple[int, str, str | None]]) -> None:
    """Index passages: (passage id, text, language). A passage indexed before is replaced."""
    engine_of(connection).put(connection, ((id_, *terms(text, language)) for id_, text, language in rows))


def remove(connection: Connection, passage_ids: Iterable[int]) -> None:
    """Forget passages; ids that are not indexed are no error."""
    engine_of(connection).remove(connection, passage_ids)


def shed(connection: Connection, *, first: bool) -> bool:
    """One bounded step of rewriting the table without what was removed from it; whether there is more to do."""
    return engine_of(connection).shed(connection, first=first)


def rebuild(connection: Connection, partition: str = "") -> None:
    """Make the table anew from the catalogue, as it is the fastest to search. Under `locks.FULL_TEXT`, so that no
    passage is deleted meanwhile."""
    engine = engine_of(connection)
    engine.create(connection, partition)  # where it was dropped, as it was
    engine.clear(connection)
    for rows in _stored_passages(connection):
        add(connection, rows)
    engine.optimize(connection)


def _stored_passages(connection: Connection) -> Iterator[list[tuple[int, str, str | None]]]:
    columns = select(passages.c.id, passages.c.text, transcripts.c.language)
    query = columns.join(transcripts, transcripts.c.id == passages.c.transcript_id).order_by(passages.c.id)
    last = 0
    while chunk := connection.execute(query.where(passages.c.id > last).limit(REBUILD_CHUNK)).all():
        yield [(row.id, row.text, row.language) for row in chunk]
        last = chunk[-1].id


def is_there(connection: Connection) -> bool:
    """Whether there is a table at all: it may be dropped, and made anew."""
    return engine_of(connection).is_there(connection)


def missing(connection: Connection) -> Iterator[int]:
    """The passages that are not indexed, or not as passages of their recording."""
    return engine_of(connection).missing(connection)


def surplus(connection: Connection) -> Iterator[int]:
    """What is indexed as a passage that is not there, or twice."""
    return engine_of(connection).surplus(connection)


def differing(connection: Connection) -> Iterator[int]:
    """The passages that are indexed with other words than they have. Reads all of them."""
    engine = engine_of(connection)
    for rows in _stored_passages(connection):
        yield from engine.differing(connection, [(id_, words(text)) for id_, text, _ in rows])


def search(
    connection: Connection,
    query: str,
    *,
    limit: int,
    admit: Admit,
    within_ids: npt.NDArray[np.int64] | None = None,
    languages: Collection[str | None] = (),
    period: Period = tsvector.ALWAYS,
    existing: npt.NDArray[np.int64] | None = None,
    hidden: npt.NDArray[np.int64] | None = None,
) -> list[Match]:
    """The passages that `query` (see `query_text`) finds and `admit` lets pass: (id, BM25 > 0), best first, ties by id.

    The result equals filtering first: candidates are tested in growing batches until enough pass or none is left.
    `within_ids`, ascending, where the ids that can pass are few and known, spares the rest that test. `languages` are
    those of the stored transcripts, `None` among them where one is unknown: a word is looked up as its stem in each.
    `period` spares reading what was recorded outside it, where the database can tell; nothing else may pass `admit`.
    `existing`, ascending: the passages that exist for whoever asks, where these are not all: how much a word weighs
    then tells nothing of the others; `hidden`, ascending: those that do not exist, where they are the few. Any text is
    a valid query; one without a usable word finds nothing.
    """
    whole = existing is None and (hidden is None or not len(hidden))
    parsed, reader = parse(query, languages), _Reader.of(connection, period if whole else tsvector.ALWAYS)
    required = [reader.saying(expression) for expression in parsed.required]
    lists = reader.of_words(reader.informative(parsed.words)) + required
    if not lists or limit <= 0:
        return []
    total = reader.total() if existing is None else len(existing)
    if existing is not None:
        lists = [postings.only(existing) for postings in lists]
    elif hidden is not None and len(hidden):
        total, lists = total - len(hidden), [postings.without(hidden) for postings in lists]
    ids, scores = bm25.outline(_narrowed(lists, required, within_ids), total)
    if parsed.excluded:
        possible = ~_in_any(ids, [reader.saying(expression) for expression in parsed.excluded])
        ids, scores = ids[possible], scores[possible]
    admitted = _admitted(ids, scores, max(RESCORED * limit, RESCORED_AT_LEAST), admit)
    return _best(admitted, bm25.score(lists, total, admitted, reader.lengths(admitted)), limit)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Posting lists as one connection sees them, from memory where they are known. `period`: lists hold only what was
    recorded then, and say how many there are of the whole."""

    connection: Connection
    engine: Engine
    cache: PostingCache
    period: Period | None = None

    @classmethod
    def of(cls, connection: Connection, period: Period) -> _Reader:
        """For lists of this period where the database reads those faster than whole ones."""
        prunes = period != tsvector.ALWAYS and engine_of(connection) is tsvector and tsvector.prunes(connection)
        return cls(connection, engine_of(connection), cache_of(connection.engine), period if prunes else None)

    def of_words(self, words: Sequence[Word]) -> list[Postings]:
        """Where any form of each is said. A passage that says several forms counts with the most frequent, because one
        word of a passage in another language can be two of them: itself and its stem."""
        counted = [word for word in words if not word.is_prefix and self.count(word) <= MAX_POSTINGS]
        forms = list(dict.fromkeys(form for word in counted for form in word.forms))
        lists = dict(zip(forms, self._occurrences(forms), strict=True))
        return [self._of_word(word, lists) if word in counted else self.saying(word) for word in words]

    def _of_word(self, word: Word, lists: Mapping[str, Postings]) -> Postings:
        forms = [lists[form] for form in word.forms]
        found = forms[0] if len(forms) == 1 else Postings.of_any(forms)
        return found if self.period is None else replace(found, found=self.count(word))

    def _occurrences(self, forms: Sequence[str]) -> list[Postings]:
        read = self.engine.occurrences
        if self.period is not None:
            read = partial(tsvector.occurrences, period=self.period)
        return self._lists("occurrences", forms, lambda missing: read(self.connection, missing))

    def saying(self, expression: Expression) -> Postings:
        """Where this is said, however often."""
        read = self.engine.saying
        if self.period is not None:
            read = partial(tsvector.saying, period=self.period)
        [part] = self._lists("saying", [expression], lambda _: [read(self.connection, expression)])
        return part if self.period is None else replace(part, found=self._found(expression))

    def _found(self, expression: Expression) -> int:
        return self.cache.count(("found", expression), lambda: tsvector.count(self.connection, expression))

    def _lists(self, kind: str, wanted: Sequence[K], read: Callable[[list[K]], list[Postings]]) -> list[Postings]:
        """Where each is said, in this period; what is not in memory is read together."""
        if not wanted:
            return []
        version = remembered(self.connection, "fulltext", lambda: self.engine.version(self.connection))
        keys = [(kind, one, self.period) for one in wanted]
        shortest = LONG if self.engine is fts5 else 0
        return self.cache.postings(version, keys, lambda missing: read([key[1] for key in missing]), shortest)

    def informative(self, asked: Sequence[Word]) -> list[Word]:
        """The rarest of the words that together stay under `MAX_POSTINGS`, and `RAREST_KEPT` of them in any case."""
        counts = {word: self.count(word) for word in asked}
        kept, postings = [], 0
        for number, word in enumerate(sorted(filter(counts.__getitem__, asked), key=counts.__getitem__)):
            postings += counts[word]
            if number >= RAREST_KEPT and postings > MAX_POSTINGS:
                break
            kept.append(word)
        return kept

    def count(self, word: Word) -> int:
        """How many passages say it. Old numbers only shift which frequent words are left out."""
        return self.cache.count(word, lambda: self.engine.about(self.connection, word, MAX_POSTINGS))

    def total(self) -> int:
        """How many passages there are. An old number only shifts how much a word weighs."""
        return self.cache.count("total", lambda: self.engine.total(self.connection))

    def lengths(self, ids: Ids) -> Floats:
        """How long these passages are, in characters."""
        known = self.cache.lengths(ids, lambda missing: self.engine.lengths(self.connection, missing))
        return np.array([known.get(id_, TYPICAL_LENGTH) for id_ in ids.tolist()], np.float64)


def _narrowed(lists: Sequence[Postings], required: Sequence[Postings], within_ids: Ids | None) -> Sequence[Postings]:
    """What of these lists is within the known ids and on every list required."""
    for only in [*([] if within_ids is None else [within_ids]), *(postings.ids for postings in required)]:
        lists = [postings.within(only) for postings in lists]
    return lists


def _in_any(ids: Ids, lists: Sequence[Postings]) -> npt.NDArray[np.bool_]:
    found = np.zeros(len(ids), np.bool_)
    for postings in lists:
        found |= bm25.contains(postings.ids, ids)
    return found


def _admitted(ids: Ids, scores: Floats, wanted: int, admit: Admit) -> Ids:
    """The best `wanted` candidates that pass, asked about in growing batches."""
    found: list[int] = []
    order = bm25.best(scores, wanted)
    start, size = 0, min(wanted, LARGEST_BATCH)
    while len(found) < wanted and start < len(ids):
        if start + size > len(order):
            order = bm25.best(scores, 4 * (start + size))
        batch = ids[order[start : start + size]].tolist()
        passing = admit(batch)
        found += [id_ for id_ in batch if id_ in passing]
        start, size = start + size, min(2 * size, LARGEST_BATCH)
    return np.array(found[:wanted], np.int64)


def _best(ids: Ids, scores: Floats, limit: int) -> list[Match]:
    order = np.lexsort((ids, -scores))[:limit]
    return list(zip(ids[order].tolist(), scores[order].tolist(), strict=True))
