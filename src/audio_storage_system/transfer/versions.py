"""What changes in place: which version of a transcript is active, how it ended, and which embedding space is in use.

It is written last, so that search at the destination follows a new version only once all of it is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Table, delete, func, insert, select

from audio_storage_system.archive import reembedding
from audio_storage_system.catalogue import changes, locks
from audio_storage_system.catalogue.embeddings import spaces as stored_spaces
from audio_storage_system.database.queries import within
from audio_storage_system.database.sequences import advance
from audio_storage_system.database.tables import embedding_spaces, principals, segments, transcripts, webhooks
from audio_storage_system.errors import ArchiveMismatch
from audio_storage_system.transfer.pair import Pair, freed_spaces
from audio_storage_system.transfer.rows import Row, absent, put, renew

BATCH, WINDOW = 50, 5_000
# Of each of the small tables: what a row is, for ever.
IDENTITY = {principals.name: ("name", "kind"), embedding_spaces.name: ("kind", "model", "dimension")}


def furnish(source_rows: dict[str, list[Row]], connection: Connection) -> None:
    """Enter the principals and spaces of an archive that is being founded."""
    for table in (principals, embedding_spaces):
        if rows := source_rows[table.name]:
            connection.execute(insert(table), rows)
            advance(connection, table)


def read_small(connection: Connection) -> dict[str, list[Row]]:
    """The principals and spaces, all of them."""
    return {table.name: _all(connection, table) for table in (principals, embedding_spaces)}


def copy_small(pair: Pair) -> None:
    """Copy the principals and spaces that the destination lacks. Raises `ArchiveMismatch` where one id means two."""
    with pair.source.database.read() as connection:
        wanted = read_small(connection)
    for table in (principals, embedding_spaces):
        with pair.destination.database.read() as connection:
            here = {row["id"]: row for row in _all(connection, table)}
        _refuse_others(pair, table, {row["id"]: row for row in wanted[table.name]}, here)
        new = [{**row, **_passive(row)} for row in wanted[table.name] if row["id"] not in here]
        if new:
            with pair.destination.database.write(locks.COPYING, locks.SPACES) as connection:
                if table is principals:
                    _make_way(connection, new, {row["id"] for row in wanted[table.name]})
                put(connection, table, absent(connection, table, new))
            pair.copied[table.name] += len(new)


def _make_way(connection: Connection, new: Sequence[Row], there: set[int]) -> None:
    """Take principals away that the source no longer has, where others have their names now."""
    gone = [id_ for id_ in connection.execute(select(principals.c.id)).scalars() if id_ not in there]
    going = within(principals.c.id, gone) & principals.c.name.in_([row["name"] for row in new])
    theirs = webhooks.c.principal_id.in_(select(principals.c.id).where(going))
    connection.execute(delete(webhooks).where(theirs))  # the one thing of them that a copy does not bring
    connection.execute(delete(principals).where(going))


def settle_spaces(pair: Pair) -> bool:
    """Have the same spaces in use as the source; whether anything changed."""
    with pair.source.database.read() as connection:
        wanted = _all(connection, embedding_spaces)
    with pair.destination.database.read() as connection:
        here = _all(connection, embedding_spaces)
    ids = {row["id"] for row in here}
    active = {row["id"] for row in wanted if row["active"]}
    if not active <= ids or active == {row["id"] for row in here if row["active"]}:
        return False
    specs = [row for row in wanted if row["id"] in ids]
    with pair.destination.database.write(locks.COPYING, locks.SPACES) as connection:
        renew(connection, embedding_spaces, sorted(specs, key=lambda row: bool(row["active"])))
    return True


def free_spaces(pair: Pair) -> None:
    """Free the spaces that the source has freed, once they are no longer in use here."""
    freed = freed_spaces(pair)
    with pair.destination.database.read() as connection:
        spaces = [space for space in stored_spaces(connection) if space.id in freed and not space.active]
    for space in spaces:
        for _ in reembedding.drop(pair.destination, space):
            pair.tell(embedding_spaces.name)


def settle_transcripts(pair: Pair) -> None:
    """Bring the versions that are there up to date."""
    for ids in _changed_recordings(pair):
        for start in range(0, len(ids), BATCH):
            _settle(pair, ids[start : start + BATCH])


def _changed_recordings(pair: Pair) -> Iterator[list[int]]:
    """The recordings with a version that differs, in windows."""
    after, last = 0, pair.upto[transcripts.name]
    while after < last:
        with pair.source.database.read() as connection:
            there = _outlines(connection, after, last, WINDOW)
        end = max(there) if len(there) == WINDOW else last
        with pair.destination.database.read() as connection:
            here = _outlines(connection, after, end, None)
        yield sorted({there[id_][1] for id_ in there.keys() & here.keys() if there[id_] != here[id_]})
        after = end


def _outlines(connection: Connection, after: int, upto: int, limit: int | None) -> dict[int, tuple[Any, ...]]:
    """Of each version what differs whenever it was changed."""
    table = transcripts.c
    query = (
        select(
            table.id,
            table.audio_file_id,
            table.active,
            table.outcome,
            table.reason,
            table.language,
            table.confidence,
            table.processing_time,
            func.length(table.transcription),
        )
        .where(table.id > after, table.id <= upto)
        .order_by(table.id)
        .limit(limit)
    )
    return {row[0]: tuple(row) for row in connection.execute(query)}


def _settle(pair: Pair, audio_ids: Sequence[int]) -> None:
    with pair.source.database.read() as connection:
        versions = _versions(connection, audio_ids)
        growing = _growing(connection, [row["id"] for row in versions], pair.upto[segments.name])
    with pair.destination.database.write(locks.COPYING, *map(locks.of_recording, audio_ids)) as connection:
        here = {row["id"]: row for row in _versions(connection, audio_ids)}
        waiting = {row["audio_file_id"] for row in versions if row["id"] in growing or _is_to_come(row, here)}
        ready = [row for row in versions if row["id"] in here and row["audio_file_id"] not in waiting]
        changed = [row for row in ready if row != here[row["id"]]]
        # The one that was active lets go first: there is never more than one.
        renew(connection, transcripts, sorted(changed, key=lambda row: bool(row["active"])))
        changes.log(connection, transcripts, [row["id"] for row in changed], "update")


def _is_to_come(version: Row, here: dict[int, Row]) -> bool:
    """Whether search follows a version that the destination does not have yet: then it goes on with its own."""
    return bool(version["active"]) and version["id"] not in here


def _versions(connection: Connection, audio_ids: Sequence[int]) -> list[Row]:
    query = select(transcripts).where(within(transcripts.c.audio_file_id, audio_ids)).order_by(transcripts.c.id)
    return [dict(row) for row in connection.execute(query).mappings()]


def _growing(connection: Connection, transcript_ids: Sequence[int], upto: int) -> set[int]:
    """The versions that were said more of since the copy began: they come with the next one, whole."""
    query = select(segments.c.transcript_id).where(
        within(segments.c.transcript_id, transcript_ids), segments.c.id > upto
    )
    return set(connection.execute(query.distinct()).scalars())


def _all(connection: Connection, table: Table) -> list[Row]:
    return [dict(row) for row in connection.execute(select(table).order_by(table.c.id)).mappings()]


def _passive(row: Row) -> Row:
    return {"active": False} if "active" in row else {}


def _refuse_others(pair: Pair, table: Table, there: dict[int, Row], here: dict[int, Row]) -> None:
    freed = freed_spaces(pair) if table is embedding_spaces else set()
    for id_, row in here.items():
        if id_ in freed:
            continue
        same = id_ in there and all(row[name] == there[id_][name] for name in IDENTITY[table.name])
        if not same:
            reason = f"row {id_} of its {table.name} is not of the source: it was written to since it was copied"
            raise ArchiveMismatch(place=pair.destination.database.place, reason=reason)
