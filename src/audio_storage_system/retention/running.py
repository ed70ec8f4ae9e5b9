"""Carrying out the rules. What was cut short is taken up by running them again: the plan is made anew each time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import insert, update

from audio_storage_system import deletion
from audio_storage_system.archive import Archive, removal
from audio_storage_system.catalogue import holds
from audio_storage_system.clock import utc_now
from audio_storage_system.database.tables import retention_runs
from audio_storage_system.deletion import Receipt
from audio_storage_system.errors import NotFound, UnderLegalHold
from audio_storage_system.records import jsonable
from audio_storage_system.retention import reading
from audio_storage_system.retention.planning import Action, Decision, RetentionRule, plan

# Called with how many recordings were looked at, and how many things were removed.
Progress = Callable[[int, int], None]


@dataclass(slots=True)
class RetentionRun:
    """What carrying out the rules did: the receipts of what was removed, and what legal holds kept."""

    started_at: datetime
    examined: int = 0
    receipts: list[Receipt] = field(default_factory=list)
    held: list[Decision] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "started_at": jsonable(self.started_at),
            "examined": self.examined,
            "removed": [receipt.as_dict() for receipt in self.receipts],
            "held": [decision.as_dict() for decision in self.held],
        }


def decisions(
    archive: Archive, wanted: Sequence[RetentionRule], now: datetime, *, all_of_them: bool = False
) -> Iterator[list[Decision]]:
    """The plan, some recordings at a time; only of those old enough for some rule unless all are wanted."""
    with archive.database.read() as connection:
        standing = holds.standing(connection)
    before = None if all_of_them else _oldest_kept(wanted, now)
    for found in reading.candidates(archive.database, wanted, standing, before):
        yield list(plan(found, wanted, standing, now))


def _oldest_kept(wanted: Sequence[RetentionRule], now: datetime) -> datetime:
    """What was stored after this is not old enough for any rule."""
    least = min((rule.keep_days for rule in wanted), default=0.0)
    return now - timedelta(days=least)


def carry_out(archive: Archive, wanted: Sequence[RetentionRule], now: datetime, progress: Progress) -> RetentionRun:
    """Remove what the plan says, one thing after the other, and finish what a run before has left."""
    deletion.complete_deletions(archive.database, archive.blobs)
    done = RetentionRun(now)
    for batch in decisions(archive, wanted, now) if wanted else ():
        done.examined += len({decision.audio_id for decision in batch})
        for decision in batch:
            _do(archive, decision, done)
            progress(done.examined, len(done.receipts))
    done.receipts = removal.finish(archive, done.receipts)
    return done


def _do(archive: Archive, decision: Decision, done: RetentionRun) -> None:
    if decision.hold is not None:
        done.held.append(decision)
    if decision.action is Action.KEEP:
        return
    try:
        done.receipts.append(removal.remove_stage(archive, decision.audio_id, decision.stage, rule=decision.rule))
    except NotFound:  # another process was faster
        pass
    except UnderLegalHold:  # placed since the plan was made
        done.held.append(decision)


def begin(archive: Archive, now: datetime) -> int:
    """Note that the rules are being carried out; the run's number."""
    row = {"started_at": now, "started_by": archive.access.principal_id, "removed": 0, "held": 0}
    with archive.database.write() as connection:
        archive.audit.note(connection, "retention.run")
        return int(connection.execute(insert(retention_runs).returning(retention_runs.c.id), row).scalar_one())


def end(archive: Archive, number: int, done: RetentionRun) -> None:
    """Note that they were."""
    values = {"ended_at": utc_now(), "removed": len(done.receipts), "held": len(done.held)}
    with archive.database.write() as connection:
        connection.execute(update(retention_runs).where(retention_runs.c.id == number).values(**values))
