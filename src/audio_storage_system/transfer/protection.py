"""What protects recordings: who may what, rules, holds and trash, which the destination has as the source has them,
with holds of its own, and tokens revoked that were on either side; the audit log, of which it has each entry once,
whatever it has logged itself; and which backups there are."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, RowMapping, Table, delete, func, insert, select, tuple_, update

from audio_storage_system.catalogue import locks
from audio_storage_system.database.sequences import advance
from audio_storage_system.database.tables import api_tokens, audit_log, backup_sets, legal_holds
from audio_storage_system.transfer.pair import MIRRORED, Pair, newest
from audio_storage_system.transfer.rows import BATCH, Row, put, with_parents

# Keys of data are not among it: the destination seals what it stores with keys of its own.


def copy_protection(pair: Pair) -> None:
    """Have the destination protect what it has as the source does, and know what the source has logged."""
    _mirror(pair)
    for chain in _chains(pair):
        while _copy_entries(pair, chain):
            pair.tell(audit_log.name)
    _copy_backup_sets(pair)


def count_entries(pair: Pair, connection: Connection) -> int:
    """The entries of the audit log that were there at the source when the copy began."""
    chains = _chains(pair)
    query = select(func.count()).select_from(audit_log)
    return sum(
        int(connection.execute(query.where(audit_log.c.chain == chain, audit_log.c.sequence <= last)).scalar_one())
        for chain, last in chains.items()
    )


def _mirror(pair: Pair) -> None:
    """Small tables, edited in place: all of them anew, in one transaction, where anything differs."""
    with pair.source.database.read() as connection:
        wanted = {table: _all(connection, table) for table in MIRRORED}
    with pair.destination.database.read() as connection:
        here = {table: _all(connection, table) for table in MIRRORED}
        if _kept(connection, _with_own(wanted, here)) == here:
            return
    with pair.destination.database.write(locks.COPYING) as connection:
        here = {table: _all(connection, table, locked=True) for table in MIRRORED}
        wanted = _with_own(wanted, here)
        for table in reversed(MIRRORED):
            connection.execute(delete(table))
        for table in MIRRORED:
            rows = with_parents(connection, table, wanted[table])
            for start in range(0, len(rows), BATCH):
                put(connection, table, rows[start : start + BATCH])
            pair.copied[table.name] += sum(row not in here[table] for row in rows)


def _with_own(wanted: dict[Table, list[Row]], here: dict[Table, list[Row]]) -> dict[Table, list[Row]]:
    """The same with what was said at the destination, and is not for the source to take back."""
    holds = wanted[legal_holds] + _own_holds(wanted[legal_holds], here[legal_holds])
    return {**wanted, legal_holds: holds, api_tokens: _revoked(wanted[api_tokens], here[api_tokens])}


def _revoked(source: list[Row], here: list[Row]) -> list[Row]:
    """The tokens of the source; one that was revoked on either side is."""
    known = {row["digest"]: row["revoked_at"] for row in here}
    return [{**row, "revoked_at": row["revoked_at"] or known.get(row["digest"])} for row in source]


def count_own_holds(pair: Pair) -> int:
    """How many legal holds were placed at the destination."""
    with pair.source.database.read() as connection:
        theirs = _all(connection, legal_holds)
    with pair.destination.database.read() as connection:
        return len(_own_holds(theirs, _all(connection, legal_holds)))


def _own_holds(source: list[Row], here: list[Row]) -> list[Row]:
    """The legal holds that were placed at the destination, which only its own hands release; with ids that the source
    has not given."""
    theirs = {(row["name"], row["placed_at"]) for row in source}
    own = [row for row in here if (row["name"], row["placed_at"]) not in theirs]
    taken = {row["id"] for row in source}
    free = max([0, *taken, *(row["id"] for row in own)])
    return [{**row, "id": free + number if row["id"] in taken else row["id"]} for number, row in enumerate(own, 1)]


def _kept(connection: Connection, wanted: dict[Table, list[Row]]) -> dict[Table, list[Row]]:
    """Those whose recordings the destination has; conditions of a grant go with it."""
    kept: dict[Table, list[Row]] = {}
    for table, rows in wanted.items():
        there = {parent.name: {row["id"] for row in found} for parent, found in kept.items()}
        own = [key for key in table.foreign_keys if key.column.table.name in there]
        rows = with_parents(connection, table, rows, [key for key in table.foreign_keys if key not in own])
        kept[table] = [row for row in rows if all(row[key.parent.name] in there[key.column.table.name] for key in own)]
    return kept


def _chains(pair: Pair) -> dict[str, int]:
    """Of each chain of the source its last entry when the copy began."""
    known = audit_log.c.id <= pair.upto[audit_log.name]
    query = (
        select(audit_log.c.chain, func.max(audit_log.c.sequence).label("last")).where(known).group_by(audit_log.c.chain)
    )
    with pair.source.database.read() as connection:
        return {row.chain: row.last for row in connection.execute(query)}


def _copy_entries(pair: Pair, chain: str) -> int:
    """Copy the next entries of a chain that the destination lacks; how many."""
    mine, entry = audit_log.c.chain == chain, audit_log.c
    with pair.destination.database.read() as connection:
        last = int(connection.execute(select(func.coalesce(func.max(entry.sequence), -1)).where(mine)).scalar_one())
    query = select(audit_log).where(mine, entry.sequence > last, entry.id <= pair.upto[audit_log.name])
    with pair.source.database.read() as connection:
        rows = _without_ids(connection.execute(query.order_by(entry.sequence).limit(BATCH)).mappings())
    if rows:
        with pair.destination.database.write(locks.COPYING) as connection:
            there = select(entry.sequence).where(mine, entry.sequence > last)
            taken = set(connection.execute(there).scalars())  # by another copy
            new = [row for row in rows if row["sequence"] not in taken]
            if new:
                connection.execute(insert(audit_log), new)
                advance(connection, audit_log)
        pair.copied[audit_log.name] += len(new)
    return len(rows)


def _copy_backup_sets(pair: Pair) -> None:
    """The sets that were there when the copy began: they hold nothing that the destination lacks."""
    table = backup_sets.c
    with pair.source.database.read() as connection:
        wanted = _sets(connection, pair.upto[backup_sets.name])
    with pair.destination.database.read() as connection:
        here = _sets(connection, newest(connection, backup_sets))
    new = [row for key, row in wanted.items() if key not in here]
    changed = [row for key, row in wanted.items() if key in here and row != here[key]]
    if new or changed:
        with pair.destination.database.write(locks.COPYING) as connection:
            for row in changed:
                this = tuple_(table.destination, table.set_id) == (row["destination"], row["set_id"])
                connection.execute(update(backup_sets).where(this).values(row))
            if new:
                connection.execute(insert(backup_sets), new)
                advance(connection, backup_sets)
        pair.copied[backup_sets.name] += len(new)


def _all(connection: Connection, table: Table, *, locked: bool = False) -> list[Row]:
    """Every row; those `locked` nobody changes before this transaction ends."""
    query = select(table).order_by(table.c.id)
    return [dict(row) for row in connection.execute(query.with_for_update() if locked else query).mappings()]


def _sets(connection: Connection, upto: int) -> dict[tuple[str, str], Row]:
    rows = connection.execute(select(backup_sets).where(backup_sets.c.id <= upto).order_by(backup_sets.c.id)).mappings()
    return {(row["destination"], row["set_id"]): row for row in _without_ids(rows)}


def _without_ids(rows: Iterable[RowMapping]) -> list[Row]:
    return [{name: value for name, value in row.items() if name != "id"} for row in rows]
