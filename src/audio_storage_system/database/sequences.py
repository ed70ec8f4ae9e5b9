"""Ids after rows were written with ids of their own."""

from __future__ import annotations

from sqlalchemy import Connection, Table, func, select


def advance(connection: Connection, table: Table) -> None:
    """Let the next id that the database gives be beyond every id in `table`. SQLite sees to that itself."""
    if connection.dialect.name != "postgresql":
        return
    sequence = func.pg_get_serial_sequence(table.name, "id")
    newest = select(func.max(table.c.id)).scalar_subquery()
    connection.execute(select(func.setval(sequence, func.greatest(newest, func.nextval(sequence)))))
