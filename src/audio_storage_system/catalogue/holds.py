"""Legal holds: what must not be removed, whatever any rule or person says."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, insert, select, update

from audio_storage_system.catalogue.selections import Selection
from audio_storage_system.clock import utc_now
from audio_storage_system.database.tables import audio_files, legal_holds
from audio_storage_system.errors import Conflict, NotFound, UnderLegalHold
from audio_storage_system.records import jsonable


@dataclass(frozen=True, slots=True)
class Hold:
    """One legal hold; `released_at` is `None` while it holds."""

    id: int
    name: str
    selection: Selection
    reason: str
    placed_by: int
    placed_at: datetime
    released_at: datetime | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        data = {name: jsonable(getattr(self, name)) for name in self.__slots__ if name != "selection"}
        return {**data, "selection": self.selection.as_dict()}


def place(connection: Connection, name: str, selection: Selection, reason: str, by: int) -> Hold:
    """A new hold; under `locks.HOLDS`, which deletions share. Raises `Conflict` for a name that was used before."""
    if connection.execute(select(legal_holds.c.id).where(legal_holds.c.name == name)).first():
        raise Conflict(reason=f'There is or was a legal hold "{name}"; give this one a name of its own')
    row = {"name": name, "conditions": selection.as_dict(), "reason": reason, "placed_by": by, "placed_at": utc_now()}
    added = connection.execute(insert(legal_holds).returning(legal_holds), row)
    return _hold(added.mappings().one())


def release(connection: Connection, name: str) -> Hold:
    """End a hold; its row stays. Raises `NotFound` where none of this name holds."""
    mine = (legal_holds.c.name == name, legal_holds.c.released_at.is_(None))
    changed = update(legal_holds).where(*mine).values(released_at=utc_now()).returning(legal_holds)
    row = connection.execute(changed).mappings().first()
    if row is None:
        raise NotFound(kind="legal hold", id=f'"{name}"')
    return _hold(row)


def standing(connection: Connection) -> list[Hold]:
    """The holds that hold."""
    return every(connection, released=False)


def every(connection: Connection, *, released: bool = True) -> list[Hold]:
    """The holds in the order in which they were placed, with or without those that were released."""
    query = select(legal_holds).order_by(legal_holds.c.id)
    query = query if released else query.where(legal_holds.c.released_at.is_(None))
    return [_hold(row) for row in connection.execute(query).mappings()]


def refuse(connection: Connection, audio_id: int) -> None:
    """Raise `UnderLegalHold` for a recording that one of them covers."""
    for hold in standing(connection):
        mine = select(audio_files.c.id).where(audio_files.c.id == audio_id, *hold.selection.conditions())
        if connection.execute(mine).first():
            raise UnderLegalHold(audio_id=audio_id, hold=hold.name)


def _hold(row: RowMapping) -> Hold:
    values = dict(row)
    return Hold(selection=Selection.of(values.pop("conditions")), **values)
