"""Tables whose rows are written once: what the destination lacks is copied, in the order of the ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from sqlalchemy import Connection, ForeignKey, Table, bindparam, select, update

from audio_storage_system.catalogue import changes, fulltext, locks
from audio_storage_system.database import bulk
from audio_storage_system.database.queries import ids_in_order, within
from audio_storage_system.database.sequences import advance, note_disorder
from audio_storage_system.database.tables import audio_files, embeddings, passages, transcripts
from audio_storage_system.transfer.pair import Pair, compare, newest, refuse
from audio_storage_system.vectors import generations

Row: TypeAlias = dict[str, Any]

# Rows per transaction: a few megabytes at most, also where texts and vectors are long.
BATCH = 1_000
SMALL_BATCH = 100
LARGE_ROWS = (transcripts.name,)


def copy_rows(pair: Pair, table: Table) -> None:
    """Copy the rows that the destination lacks. Those whose recording or transcript is not there are left out."""
    size = SMALL_BATCH if table.name in LARGE_ROWS else BATCH
    for window in compare(pair, table, pair.upto[table.name]):
        refuse(pair, table, window.extra)
        for start in range(0, len(window.missing), size):
            _copy_batch(pair, table, window.missing[start : start + size])
            pair.tell(table.name)


def _copy_batch(pair: Pair, table: Table, ids: Sequence[int]) -> None:
    with pair.source.database.read() as connection:
        rows, languages = read_rows(connection, table, ids), _languages(connection, table, ids)
    if not rows:
        return
    with pair.destination.database.write(locks.COPYING) as connection:
        rows = with_parents(connection, table, absent(connection, table, rows))
        put(connection, table, rows)
        _derive(connection, table, rows, languages)
    pair.copied[table.name] += len(rows)


def read_rows(connection: Connection, table: Table, ids: Iterable[int]) -> list[Row]:
    """These rows, as far as they exist, by ascending id."""
    query = select(table).where(within(table.c.id, ids)).order_by(table.c.id)
    return [dict(row) for row in connection.execute(query).mappings()]


def absent(connection: Connection, table: Table, rows: Sequence[Row]) -> list[Row]:
    """Those of `rows` that are not in the table yet: another copy may be filling it too."""
    there = present(connection, table, (row["id"] for row in rows))
    return [row for row in rows if row["id"] not in there]


def present(connection: Connection, table: Table, ids: Iterable[int | None]) -> set[int]:
    """Those of `ids` that are in the table."""
    return set(connection.execute(select(table.c.id).where(within(table.c.id, ids))).scalars())


def put(connection: Connection, table: Table, rows: Sequence[Row]) -> None:
    """Write rows with their ids. New versions are not active yet, see `versions`."""
    if rows:
        if table is transcripts:
            rows = [{**row, "active": False} for row in rows]
        _restart_indexes(connection, table, rows)
        bulk.write(connection, table, rows)
        advance(connection, table)


def renew(connection: Connection, table: Table, rows: Sequence[Row]) -> None:
    """Give rows that are there these values."""
    if rows:
        statement = update(table).where(table.c.id == bindparam("row_id"))
        connection.execute(statement, [{**row, "row_id": row["id"]} for row in rows])


def _restart_indexes(connection: Connection, table: Table, rows: Sequence[Row]) -> None:
    """Whoever reads in the order of ids would pass over ids lower than those already read: that begins anew."""
    if table not in (passages, embeddings) or not ids_in_order(connection):
        return
    if rows[0]["id"] < newest(connection, table):
        note_disorder(connection)
        if table is embeddings:
            generations.forget(connection, {row["space_id"] for row in rows})


def with_parents(
    connection: Connection, table: Table, rows: list[Row], keys: Iterable[ForeignKey] | None = None
) -> list[Row]:
    """Those whose references, all of them or these, lead somewhere."""
    for key in table.foreign_keys if keys is None else keys:
        name = key.parent.name
        there = present(connection, key.column.table, {row[name] for row in rows})
        rows = [row for row in rows if row[name] is None or row[name] in there]
    return rows


def _languages(connection: Connection, table: Table, ids: Sequence[int]) -> dict[int, str | None]:
    """What is spoken in these passages."""
    if table is not passages:
        return {}
    query = select(passages.c.id, transcripts.c.language).join(
        transcripts, transcripts.c.id == passages.c.transcript_id
    )
    return {row.id: row.language for row in connection.execute(query.where(within(passages.c.id, ids)))}


def _derive(connection: Connection, table: Table, rows: Sequence[Row], languages: dict[int, str | None]) -> None:
    """Let full text and indexes know, as they do of rows written here."""
    if table is passages:
        fulltext.add(connection, [(row["id"], row["text"], languages.get(row["id"])) for row in rows])
    if table in (embeddings, transcripts, audio_files):
        changes.log(connection, table, [row["id"] for row in rows], "insert")
