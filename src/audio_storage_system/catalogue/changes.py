"""The change log: what derived indexes follow, written in the transaction of the change itself."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, Table, insert

from audio_storage_system.database.tables import change_log

_ADD = insert(change_log)


def log(connection: Connection, table: Table, row_ids: Iterable[int], op: str) -> None:
    """Note that these rows were changed; `op` is `insert`, `update` or `delete`."""
    rows = [{"table_name": table.name, "row_id": row_id, "op": op} for row_id in row_ids]
    if rows:
        connection.execute(_ADD, rows if len(rows) > 1 else rows[0])
