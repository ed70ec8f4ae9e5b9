"""What happens to jobs, between one look at them and the next.

Which jobs have not ended is looked up by an index, so that a look costs the same however many have ended before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, select

from audio_storage_system.catalogue import jobs
from audio_storage_system.database.tables import jobs as table

# Jobs wait in the order in which they came, all but: of more than this, the others are not being worked at.
MOST_UNFINISHED = 20_000


@dataclass(frozen=True, slots=True)
class Moment:
    """How far every job was when one looked: those that had not ended, those being worked at, and the latest."""

    unfinished: Mapping[int, tuple[Any, ...]]
    running: frozenset[int]
    latest: int


def compare(
    connection: Connection, since: Moment | None, running: set[int], seen: Sequence[ColumnElement[bool]], *, most: int
) -> tuple[list[int], Moment]:
    """The jobs, at most so many, that something has happened to since that moment, and the moment that is to follow:
    one in which the others are as they were. running: those that a worker has now; seen: which jobs exist for who
    asks."""
    standings, latest = jobs.standings(connection, *seen, limit=MOST_UNFINISHED), jobs.last_id(connection)
    now = Moment(standings, frozenset(running & standings.keys()), latest)
    if since is None:
        changed = set(standings)
    else:
        fresh = select(table.c.id).where(table.c.id > since.latest, *seen).order_by(table.c.id).limit(most + 1)
        changed = {id_ for id_, _ in standings.items() ^ since.unfinished.items()}
        changed |= now.running | since.running | set(connection.execute(fresh).scalars())
    told = sorted(changed)[:most]
    return told, now if len(told) == len(changed) else _partly(since, now, told)


def _partly(since: Moment | None, now: Moment, told: Sequence[int]) -> Moment:
    """The moment in which only these jobs are as they are now."""
    before = since or Moment({}, frozenset(), now.latest)
    news = set(told)
    unfinished = {id_: it for id_, it in before.unfinished.items() if id_ not in news}
    unfinished |= {id_: it for id_, it in now.unfinished.items() if id_ in news}
    running = (before.running - news) | (now.running & news)
    latest = max([before.latest, *told]) if since else now.latest
    return Moment(unfinished, frozenset(running), min(latest, now.latest))
