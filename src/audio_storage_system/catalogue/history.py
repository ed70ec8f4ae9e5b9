"""What the metadata of a recording was before it was changed, when and by whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

from sqlalchemy import Connection, insert, select

from audio_storage_system.clock import utc_now
from audio_storage_system.database.tables import metadata_history, principals
from audio_storage_system.records import jsonable

Op = Literal["add", "update", "remove"]
OPS: tuple[Op, ...] = get_args(Op)


@dataclass(frozen=True, slots=True)
class MetadataChange:
    """A change of one key. `id`: its place among all of them; `op`: it was added, updated or removed; `old_value`: what
    it was before (`None` where it was added); `principal`: who did it, as far as that is still known."""

    id: int
    key: str
    op: Op
    old_value: Any
    changed_at: datetime
    principal_id: int
    principal: str | None

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {name: jsonable(getattr(self, name)) for name in self.__slots__}


def enter(
    connection: Connection, audio_id: int, before: Mapping[str, tuple[str | None, str] | None], op: Op | None, by: int
) -> None:
    """Enter a change of each of these keys; `before`: value and type that each had, `None` for what was not there."""
    now = utc_now()
    rows = [
        {
            "audio_file_id": audio_id,
            "key": key,
            "op": op or ("update" if old else "add"),
            "old_value": old[0] if old else None,
            "old_type": old[1] if old else None,
            "principal_id": by,
            "changed_at": now,
        }
        for key, old in before.items()
    ]
    if rows:
        connection.execute(insert(metadata_history), rows)


def rows_of(
    connection: Connection, audio_id: int, key: str | None = None, *, after: int = 0, limit: int | None = None
) -> Sequence[Any]:
    """What was entered for a recording, or for one of its keys, the oldest first: at most `limit`, behind `after`."""
    table = metadata_history
    query = (
        select(table, principals.c.name)
        .outerjoin(principals, principals.c.id == table.c.principal_id)
        .where(table.c.audio_file_id == audio_id, table.c.id > after)
        .order_by(table.c.id)
        .limit(limit)
    )
    return connection.execute(query if key is None else query.where(table.c.key == key)).all()
