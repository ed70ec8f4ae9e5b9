"""Reading entries of the log, the latest first or the oldest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, or_, select

from audio_storage_system.audit.entries import Entry
from audio_storage_system.database import Database
from audio_storage_system.database.tables import audit_log

AT_ONCE = 1_000
_COLUMNS = [audit_log.c[name] for name in Entry.__slots__]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries: of one recording, one principal (its name), one action or all that begin like `recording.`, from
    `since` until before `until`."""

    audio_id: int | None = None
    principal: str | None = None
    action: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """The same for the table."""
        column = audit_log.c
        found: list[ColumnElement[bool]] = []
        if self.audio_id is not None:
            found.append(column.audio_id == self.audio_id)
        if self.principal is not None:
            found.append(column.principal == self.principal)
        if self.action is not None:
            group = column.action.startswith(self.action, autoescape=True) if self.action.endswith(".") else None
            found.append(
                or_(column.action == self.action, group) if group is not None else column.action == self.action
            )
        if self.since is not None:
            found.append(column.at >= self.since)
        if self.until is not None:
            found.append(column.at < self.until)
        return found


def latest(database: Database, wanted: Wanted, limit: int, before: int | None) -> list[Entry]:
    """At most `limit` of them, the latest first, of those entered before the entry with the id `before`."""
    query = select(*_COLUMNS).where(*wanted.conditions()).order_by(audit_log.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(audit_log.c.id < before)
    with database.read() as connection:
        return [Entry.of(row) for row in connection.execute(query)]


def each(database: Database, wanted: Wanted) -> Iterator[Entry]:
    """All of them, the oldest first, in bounded memory."""
    after = 0
    while True:
        query = select(*_COLUMNS).where(*wanted.conditions(), audit_log.c.id > after)
        with database.read() as connection:
            found = [Entry.of(row) for row in connection.execute(query.order_by(audit_log.c.id).limit(AT_ONCE))]
        if not found:
            return
        yield from found
        after = found[-1].id
