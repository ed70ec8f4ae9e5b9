"""Where something is said, in SQLite: FTS5 over the terms of `analysis`, a derived table that can be dropped and
rebuilt.

The column `words` holds every word in order, which phrases and prefixes need; `stems` only those stems that are not the
word itself, which costs a third more index instead of doubling it. FTS5's `ascii` tokenizer takes the terms as they
are. FTS5 is asked for posting lists and for nothing else: which lists to read, and ranking, are `fulltext`'s and
`bm25`'s.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Iterator, Sequence

import numpy as np
from sqlalchemy import Connection
from sqlalchemy.exc import DatabaseError

from audio_storage_system.catalogue.bm25 import Ids, Postings
from audio_storage_system.catalogue.query_text import Expression, Phrase, Word
from audio_storage_system.errors import InvalidSetting

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
_IS_THERE = "SELECT count(*) FROM sqlite_master WHERE name = 'passages_fts'"
_MISSING = "SELECT id FROM passages WHERE id NOT IN (SELECT id FROM passages_fts_docsize)"
_SURPLUS = "SELECT id FROM passages_fts_docsize WHERE id NOT IN (SELECT id FROM passages)"
_WORDS = "SELECT rowid, words FROM passages_fts WHERE rowid IN (SELECT value FROM json_each(?))"
_CHECK = "INSERT INTO passages_fts (passages_fts, rank) VALUES ('integrity-check', 0)"
# FTS5 writes its list of segments, record 10, in every transaction that changes the table; the schema's number tells
# a table from one made anew.
_SCHEMA, _SEGMENTS = "PRAGMA schema_version", "SELECT block FROM passages_fts_data WHERE id = 10"


def create(connection: Connection, partition: str = "") -> None:
    """Make the table where there is none; it cannot be partitioned."""
    if partition:
        raise InvalidSetting(name="partition", reason="the catalogue has to be on PostgreSQL for that")
    for statement in _CREATE:
        connection.exec_driver_sql(statement)


def clear(connection: Connection) -> None:
    """Make the table anew, with nothing in it."""
    for statement in _DROP:
        connection.exec_driver_sql(statement)
    create(connection)


def put(connection: Connection, rows: Iterable[tuple[int, list[str], list[str]]]) -> None:
    """Index passages: (passage id, words, stems). One indexed before is replaced."""
    if entries := [(id_, " ".join(words), " ".join(stems)) for id_, words, stems in rows]:
        connection.exec_driver_sql(_INSERT, entries)


def remove(connection: Connection, passage_ids: Iterable[int]) -> None:
    """Forget passages; ids that are not indexed are no error."""
    if rows := [(int(id_),) for id_ in passage_ids]:
        connection.exec_driver_sql(_DELETE, rows)


def optimize(connection: Connection) -> None:
    """Merge the table into one segment: the fastest to search."""
    connection.exec_driver_sql(_OPTIMIZE)


def version(connection: Connection) -> Hashable:
    """Equal for two moments only if the table holds the same."""
    schema = connection.exec_driver_sql(_SCHEMA).scalar_one()
    return schema, connection.exec_driver_sql(_SEGMENTS).scalar()


def total(connection: Connection) -> int:
    """How many passages there are."""
    return int(connection.exec_driver_sql(_TOTAL).scalar_one())


def count(connection: Connection, word: Word) -> int:
    """How many passages say any form of a word."""
    return int(connection.exec_driver_sql(_COUNT, (_expression(word),)).scalar_one())


def about(connection: Connection, word: Word, most: int) -> int:
    """The same: it is known without reading where."""
    return count(connection, word)


def saying(connection: Connection, expression: Expression) -> Postings:
    """The passages that say it, each counted once."""
    return Postings.once(_numbers(connection, _IDS, _expression(expression)))


def occurrences(connection: Connection, forms: Sequence[str]) -> list[Postings]:
    """For each of these forms of words the passages that say it, and how often."""
    return [Postings.of(_numbers(connection, _OCCURRENCES, form)) for form in forms]


def lengths(connection: Connection, passage_ids: Sequence[int]) -> dict[int, int]:
    """How many characters each of these passages has, by id."""
    rows = connection.exec_driver_sql(_LENGTHS, (json.dumps(passage_ids),))
    return {row[0]: row[1] for row in rows}


def is_there(connection: Connection) -> bool:
    """Whether there is a table."""
    return bool(connection.exec_driver_sql(_IS_THERE).scalar_one())


def missing(connection: Connection) -> Iterator[int]:
    """The passages that are not indexed."""
    yield from connection.exec_driver_sql(_MISSING).scalars()


def surplus(connection: Connection) -> Iterator[int]:
    """What is indexed as a passage that is not there."""
    yield from connection.exec_driver_sql(_SURPLUS).scalars()


def differing(connection: Connection, rows: Sequence[tuple[int, list[str]]]) -> list[int]:
    """Those of these passages, (id, words), that are indexed with other words."""
    found = connection.exec_driver_sql(_WORDS, (json.dumps([id_ for id_, _ in rows]),)).all()
    indexed = {row[0]: row[1] for row in found}
    return [id_ for id_, words in rows if id_ in indexed and indexed[id_] != " ".join(words)]


def is_consistent(connection: Connection) -> bool:
    """Whether the index holds the terms of its own rows: FTS5 compares them all. Inside a write transaction, although
    nothing is written."""
    try:
        connection.exec_driver_sql(_CHECK)
    except DatabaseError as error:
        if "malformed" in str(error.orig):
            return False
        raise
    return True


def _numbers(connection: Connection, sql: str, parameter: str) -> Ids:
    """Ids by the ten thousand: as one text they come out of SQLite five times faster than as rows."""
    text = connection.exec_driver_sql(sql, (parameter,)).scalar_one()
    return np.fromstring(text, dtype=np.int64, sep=",") if text else np.empty(0, np.int64)


def _expression(wanted: Expression) -> str:
    """In FTS5's language; terms are safe between double quotes (see `analysis`)."""
    if isinstance(wanted, Phrase):
        return f"words : {_quoted(' '.join(wanted.terms))}{' *' if wanted.is_prefix else ''}"
    if wanted.is_prefix:
        return f"words : {_quoted(wanted.forms[0])} *"
    return f"({' OR '.join(map(_quoted, wanted.forms))})"


def _quoted(terms: str) -> str:
    return f'"{terms}"'
