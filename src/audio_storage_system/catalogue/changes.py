"""The change log: what derived indexes follow, written in the transaction of the change itself."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, Table, bindparam, insert, select

from audio_storage_system.database.queries import each, given
from audio_storage_system.database.tables import change_log

_COLUMNS = change_log.c.table_name, change_log.c.row_id, change_log.c.op
_ADD = insert(change_log).from_select(
    [column.name for column in _COLUMNS],
    select(bindparam("table", type_=_COLUMNS[0].type), each(), bindparam("op", type_=_COLUMNS[2].type)),
)


def log(connection: Connection, table: Table, row_ids: Iterable[int], op: str) -> None:
    """Note that these rows were changed; `op` is `insert`, `update` or `delete`."""
    if ids := list(row_ids):
        connection.execute(_ADD, {"table": table.name, "op": op, **given(ids)})
