"""Ids after rows were written with ids of their own."""

from __future__ import annotations

from sqlalchemy import Connection, Table, func, select, text

_LAST = {
    "sqlite": text("SELECT seq FROM sqlite_sequence WHERE name = :name"),
    "postgresql": text("SELECT pg_sequence_last_value(CAST(pg_get_serial_sequence(:name, 'id') AS regclass))"),
}
_SET = {
    "sqlite": (
        text("DELETE FROM sqlite_sequence WHERE name = :name"),
        text("INSERT INTO sqlite_sequence (name, seq) VALUES (:name, :id)"),
    ),
    "postgresql": (text("SELECT setval(pg_get_serial_sequence(:name, 'id'), :id)"),),
}


def advance(connection: Connection, table: Table) -> None:
    """Let the next id that the database gives be beyond every id in `table`. SQLite sees to that itself."""
    if connection.dialect.name != "postgresql":
        return
    sequence = func.pg_get_serial_sequence(table.name, "id")
    newest = select(func.max(table.c.id)).scalar_subquery()
    connection.execute(select(func.setval(sequence, func.greatest(newest, func.nextval(sequence)))))


def times_disordered(connection: Connection) -> int:
    """How often rows were written with lower ids than there were: what was read in the order of ids before that lacks
    them. Only where ids are otherwise in order, see `queries.ids_in_order`."""
    return int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())


def note_disorder(connection: Connection) -> None:
    """Let `times_disordered` be one more. It takes effect with the transaction."""
    connection.exec_driver_sql(f"PRAGMA user_version = {times_disordered(connection) + 1}")


def last_given(connection: Connection, table: Table) -> int:
    """The highest id that a row of `table` was ever given, whether it is still there or not; 0 for none."""
    return int(connection.execute(_LAST[connection.dialect.name], {"name": table.name}).scalar() or 0)


def advance_to(connection: Connection, table: Table, last: int) -> None:
    """Let no id up to `last` be given again."""
    if last > last_given(connection, table):
        for statement in _SET[connection.dialect.name]:
            connection.execute(statement, {"name": table.name, "id": last})
