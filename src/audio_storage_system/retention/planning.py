"""What is to be done under the rules: a pure function that says for each thing whether it stays, and why.

What a rule or a hold is about was asked of the catalogue before (`reading`); here it is only weighed. A rule is carried
out as it is written: of several about the same stage, the one whose time is over first decides. A legal hold beats all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from audio_storage_system.catalogue.holds import Hold
from audio_storage_system.catalogue.selections import Selection
from audio_storage_system.records import Stage, jsonable

FOR_EVER = "no rule is about it: it is kept for ever"


class Action(StrEnum):
    """What becomes of something."""

    KEEP = "keep"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class RetentionRule:
    """A stage of the recordings selected is kept for `keep_days` days from when they were stored, then deleted."""

    id: int
    name: str
    stage: Stage
    keep_days: float
    selection: Selection = field(default_factory=Selection)
    created_by: int = 0
    created_at: datetime | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        data = {name: jsonable(getattr(self, name)) for name in self.__slots__ if name != "selection"}
        return {**data, "stage": self.stage.value, "selection": self.selection.as_dict()}

    def until(self, stored: datetime) -> datetime:
        """Until when it keeps what was stored then."""
        return stored + timedelta(days=self.keep_days)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A recording as rules see it: when it was stored, which stages of it are still there, and the ids of the rules and
    holds that are about it."""

    audio_id: int
    created_at: datetime
    stages: frozenset[Stage]
    rules: frozenset[int] = frozenset()
    holds: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a stage of a recording, and why. `rule` is the one that decides, `due` since or from when it
    deletes; `hold` is the legal hold that keeps what the rule would delete."""

    audio_id: int
    stage: Stage
    action: Action
    reason: str
    rule: str | None = None
    hold: str | None = None
    due: datetime | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        data: dict[str, Any] = jsonable(asdict(self))
        return data


def plan(
    recordings: Iterable[Candidate], rules: Sequence[RetentionRule], holds: Sequence[Hold], now: datetime
) -> Iterator[Decision]:
    """What is to become of these recordings: for each, in order, one decision for each stage that a rule is about, and
    a single one where all of it goes or none is about it. No I/O."""
    holding = {hold.id: hold for hold in holds}
    for recording in recordings:
        held = next((holding[id_] for id_ in sorted(recording.holds) if id_ in holding), None)
        yield from _of_recording(recording, [rule for rule in rules if rule.id in recording.rules], held, now)


def _of_recording(
    recording: Candidate, rules: Sequence[RetentionRule], held: Hold | None, now: datetime
) -> Iterator[Decision]:
    decided = False
    for stage in Stage:  # all of it first
        about = [rule for rule in rules if rule.stage is stage]
        if not about or stage not in recording.stages:
            continue
        first = min(about, key=lambda rule: (rule.until(recording.created_at), rule.id))
        decision = _decide(recording, first, held, now)
        decided = True
        yield decision
        if stage is Stage.RECORDING and decision.action is Action.DELETE:
            return
    if not decided:
        yield Decision(recording.audio_id, Stage.RECORDING, Action.KEEP, FOR_EVER)


def _decide(recording: Candidate, rule: RetentionRule, held: Hold | None, now: datetime) -> Decision:
    due = rule.until(recording.created_at)
    about = (recording.audio_id, rule.stage)
    limit = f'the rule "{rule.name}" keeps its {rule.stage} {rule.keep_days:g} days'
    if due >= now:
        return Decision(*about, Action.KEEP, f"{limit}, until {due:%Y-%m-%d %H:%M}", rule.name, None, due)
    if held is not None:
        reason = f'the legal hold "{held.name}" keeps it, though {limit}, over since {due:%Y-%m-%d %H:%M}'
        return Decision(*about, Action.KEEP, reason, rule.name, held.name, due)
    age = (now - recording.created_at) / timedelta(days=1)
    return Decision(*about, Action.DELETE, f"{limit}, and it was stored {age:.4g} days ago", rule.name, None, due)
