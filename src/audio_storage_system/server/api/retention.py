"""Retention: rules, what they would do, doing it, and the proof."""

from __future__ import annotations

import io
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from audio_storage_system.clock import MOST_DAYS
from audio_storage_system.server import problems
from audio_storage_system.server.api.removal import Receipt, Stage
from audio_storage_system.server.api.shapes import Answer, Asked, Page, RecordingSelection, number_in, part
from audio_storage_system.server.fields import Conditions, Cursor, Limit, Name
from audio_storage_system.server.gate import Caller
from audio_storage_system.server.long_tasks import Line, NdJson, Tasks, Tell

router = APIRouter(prefix="/retention", tags=["retention"], responses=problems.documented())
Days = Annotated[
    float, Field(ge=0, le=MOST_DAYS, description="From when it was stored; fractions count.", examples=[365])
]


class RetentionRule(Answer):
    """A stage of the recordings selected is kept for so many days, then deleted by the next run."""

    id: int
    name: str = Field(examples=["calls go after a year"])
    stage: Stage
    keep_days: float
    selection: RecordingSelection
    created_by: int = Field(description="A `principal_id`.")
    created_at: datetime | None


class NewRetentionRule(Asked):
    """A rule to add."""

    name: Annotated[Name, Field(max_length=200, examples=["calls go after a year"])]
    keep_days: Days
    stage: Stage = "recording"
    where: Conditions | None = None
    owner: Name | None = Field(default=None, description="Only what this principal owns.", examples=[None])
    tag: Name | None = Field(default=None, description="Only what has this label.", examples=[None])


class RetentionDecision(Answer):
    """What becomes of a stage of a recording, and why."""

    audio_id: int
    stage: Stage
    action: Literal["keep", "delete"]
    reason: str
    rule: str | None
    hold: str | None
    due: datetime | None


class RetentionRun(Answer):
    """What carrying out the rules did."""

    started_at: datetime
    examined: int
    removed: list[Receipt]
    held: list[RetentionDecision]


class LastRetentionRun(BaseModel):
    """The last run; one without `ended_at` was cut short, or is on its way."""

    id: int
    started_at: datetime
    ended_at: datetime | None
    started_by: int
    removed: int
    held: int


class RemovedByRule(BaseModel):
    """What a rule has deleted so far."""

    removed: int
    last_removed_at: datetime | None


class RetentionRuleReport(RetentionRule, RemovedByRule):
    """A rule, with what it has deleted so far."""


class OverdueCounts(BaseModel):
    """What is over its time and not deleted."""

    due: int
    held: int


class RetentionReport(BaseModel):
    """The proof that the rules are enforced."""

    at: datetime
    last_run: LastRetentionRun | None
    rules: list[RetentionRuleReport]
    former_rules: dict[str, RemovedByRule]
    counts: OverdueCounts
    enforced: bool = Field(description="Nothing is overdue but what a legal hold keeps.")
    overdue: list[RetentionDecision] = Field(description="At most 1,000 of them.")


class CleaningUp(Asked):
    """What is old enough to go."""

    days_old: Days


class CleanedUp(BaseModel):
    """What was deleted."""

    removed: list[Receipt]


@router.get("/rules", summary="The retention rules")
def list_retention_rules(storage: Caller, limit: Limit = 100, cursor: Cursor = None) -> Page[RetentionRule]:
    """In the order in which they were made."""
    shown, following = part(storage.retention.rules(), limit, number_in(cursor), lambda one: one.id)
    return Page(items=[RetentionRule.of(one) for one in shown], next_cursor=following)


@router.post("/rules", status_code=201, summary="Add a rule", responses=problems.documented(409))
def add_retention_rule(storage: Caller, wanted: NewRetentionRule) -> RetentionRule:
    """It deletes nothing before the next run. 409 where the name is taken."""
    about: dict[str, Any] = {"where": wanted.where, "owner": wanted.owner, "tag": wanted.tag}
    return RetentionRule.of(storage.retention.add(wanted.name, wanted.keep_days, stage=wanted.stage, **about))


@router.delete("/rules/{name:path}", status_code=204, summary="Forget a rule", responses=problems.documented(404))
def remove_retention_rule(storage: Caller, name: Name) -> Response:
    """What it has deleted stays deleted."""
    storage.retention.remove(name)
    return Response(status_code=204)


@router.get(
    "/plan",
    summary="What a run would delete, and why",
    response_class=NdJson,
    responses={200: {"model": RetentionDecision}},
)
def plan_retention(
    storage: Caller,
    tasks: Tasks,
    everything: Annotated[bool, Query(description="Of every recording, also of what stays.")] = False,
) -> StreamingResponse:
    """One decision a line; none where nothing is due. Deletes nothing."""

    def write(out: io.TextIOBase) -> None:
        for decision in storage.retention.plan(everything=everything):
            out.write(RetentionDecision.of(decision).model_dump_json() + "\n")

    return tasks.export(write)


@router.post(
    "/run", summary="Carry out the rules", response_class=NdJson, responses={200: {"model": Line[RetentionRun]}}
)
def run_retention(storage: Caller, tasks: Tasks) -> StreamingResponse:
    """A long task. Cut short, the next run goes on."""

    def do(tell: Tell) -> RetentionRun:
        def progress(examined: int, removed: int) -> None:
            tell(f"{examined} examined", removed, None)

        return RetentionRun.of(storage.retention.run(progress=progress))

    return tasks.run(do)


@router.get(
    "/report",
    summary="The proof of enforcement",
    response_class=NdJson,
    responses={200: {"model": Line[RetentionReport]}},
)
def report_retention(storage: Caller, tasks: Tasks) -> StreamingResponse:
    """The last run, what each rule has deleted so far, and what is over its time and still there. A long task."""
    return tasks.run(lambda tell: RetentionReport.model_validate(storage.retention.report()))


@router.post(
    "/clean-up",
    summary="Delete what is old, once",
    response_class=NdJson,
    responses={200: {"model": Line[CleanedUp]}},
)
def clean_up(storage: Caller, tasks: Tasks, wanted: CleaningUp) -> StreamingResponse:
    """Every recording stored more than so many days ago that no legal hold covers, as a rule would. A long task."""
    return tasks.run(
        lambda tell: CleanedUp(removed=[Receipt.of(one) for one in storage.retention.clean_up(wanted.days_old)])
    )
