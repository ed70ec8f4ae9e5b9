"""The board of retention: rules, what they would do, doing it, and the proof that it was done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import Connection, func, select

from audio_storage_system.archive import Archive
from audio_storage_system.catalogue.selections import Selection
from audio_storage_system.clock import utc_now
from audio_storage_system.database.tables import removals, retention_runs
from audio_storage_system.deletion import Receipt
from audio_storage_system.errors import InvalidInput
from audio_storage_system.records import Stage, jsonable
from audio_storage_system.retention import rules, running
from audio_storage_system.retention.planning import Action, Decision, RetentionRule
from audio_storage_system.retention.running import Progress, RetentionRun

CLEANUP = "cleanup_old_files"
MOST_LISTED = 1_000


class Retention:
    """What is kept for how long. Without a rule, everything is kept for ever."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    def add(
        self,
        name: str,
        keep_days: float,
        *,
        stage: Stage | str = Stage.RECORDING,
        where: Mapping[str, Any] | None = None,
        owner: str | None = None,
        tag: str | None = None,
    ) -> RetentionRule:
        """A new rule: `stage` of the recordings that meet the conditions is deleted once they were stored more than
        `keep_days` days ago (fractions count). It deletes nothing before the next run.

        stage: `recording` (all of it), `audio`, `transcript` or `embeddings`. where: as in searches. owner: a
        principal's name. tag: a label. Raises `InvalidInput`, `InvalidFilter`, `Conflict`, `Forbidden`.
        """
        self._archive.access.require_admin("add a retention rule")
        selection = Selection(where or {}, owner, tag)
        selection.check()
        about = (rules.checked_name(name), _stage(stage), rules.checked_days(keep_days), selection)
        with self._archive.database.write() as connection:
            added = rules.add(connection, *about, self._archive.access.principal_id)
            self._archive.audit.note(connection, "retention.rule_added", None, rule=added.name)
        return added

    def rules(self) -> list[RetentionRule]:
        """The rules, in the order in which they were made. Raises `Forbidden`."""
        self._archive.access.require_admin("read the retention rules")
        with self._archive.database.read() as connection:
            return rules.every(connection)

    def remove(self, name: str) -> None:
        """Forget a rule; what it has deleted stays deleted. Raises `NotFound`, `Forbidden`."""
        self._archive.access.require_admin("remove a retention rule")
        with self._archive.database.write() as connection:
            rules.remove(connection, name)
            self._archive.audit.note(connection, "retention.rule_removed", None, rule=name)

    def plan(self, *, everything: bool = False) -> Iterator[Decision]:
        """What a run would do now and why, deleting nothing: what is due, and what a legal hold keeps though it is;
        with `everything`, what becomes of each recording. Raises `Forbidden`."""
        wanted = self.rules()
        for batch in running.decisions(self._archive, wanted, utc_now(), all_of_them=everything):
            yield from (one for one in batch if everything or one.action is Action.DELETE or one.hold)

    def run(self, *, progress: Progress = lambda examined, removed: None) -> RetentionRun:
        """Carry out the rules. It may be killed at any moment, and run again. `progress` is called with how many
        recordings were looked at and how many things removed. Raises `Forbidden`."""
        self._archive.access.require_admin("run retention")
        wanted, now = self.rules(), utc_now()
        number = running.begin(self._archive, now)
        done = running.carry_out(self._archive, wanted, now, progress)
        running.end(self._archive, number, done)
        return done

    def clean_up(self, days_old: float) -> list[Receipt]:
        """Delete every recording that was stored more than so many days ago, as a rule would. Raises `InvalidInput`,
        `Forbidden`."""
        self._archive.access.require_admin("delete by age")
        rule = RetentionRule(0, CLEANUP, Stage.RECORDING, rules.checked_days(days_old))
        return running.carry_out(self._archive, [rule], utc_now(), lambda examined, removed: None).receipts

    def report(self) -> dict[str, Any]:
        """Proof of enforcement, JSON-able: `last_run` (and whether it came to its end), for each rule what it has
        deleted so far, `overdue`: what is due and was not deleted, with the reason, at most 1,000 of them (`counts`
        tells how many). Nothing overdue but what is held means the rules are enforced. Raises `Forbidden`."""
        wanted = self.rules()
        counts = {"due": 0, "held": 0}
        overdue: list[dict[str, Any]] = []
        for decision in self.plan():
            counts["held" if decision.hold else "due"] += 1
            if len(overdue) < MOST_LISTED:
                overdue.append(decision.as_dict())
        with self._archive.database.read() as connection:
            removed = _removed(connection)
            last = connection.execute(select(retention_runs).order_by(retention_runs.c.id.desc()).limit(1)).mappings()
            run = last.first()
        none = {"removed": 0, "last_removed_at": None}
        return {
            "at": jsonable(utc_now()),
            "last_run": jsonable(dict(run)) if run else None,
            "rules": [{**rule.as_dict(), **removed.get(rule.name, none)} for rule in wanted],
            "former_rules": {name: told for name, told in removed.items() if name not in {r.name for r in wanted}},
            "counts": counts,
            "enforced": not counts["due"],
            "overdue": overdue,
        }


def _removed(connection: Connection) -> dict[str, dict[str, Any]]:
    """How many things each rule has deleted, and when the last one."""
    number, last = func.count(), func.max(removals.c.removed_at)
    query = select(removals.c.rule, number, last).where(removals.c.rule.is_not(None)).group_by(removals.c.rule)
    return {row[0]: {"removed": row[1], "last_removed_at": jsonable(row[2])} for row in connection.execute(query)}


def _stage(stage: Stage | str) -> Stage:
    try:
        return Stage(stage)
    except ValueError:
        known = ", ".join(Stage)
        raise InvalidInput(reason=f'There is no stage "{stage}"; there are: {known}') from None
