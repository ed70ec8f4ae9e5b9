"""Background jobs: what is to be done to a recording, how far it has come, and how it ended.

A job goes through its steps in runs: each attempt at a step is one run, with a number of its own. The engine that hands
runs to workers knows nothing but these numbers; what they mean is kept here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, func, insert, or_, select, true, update

from audio_storage_system.clock import utc_now
from audio_storage_system.database.queries import within
from audio_storage_system.database.tables import jobs
from audio_storage_system.errors import NotFound
from audio_storage_system.records import Job, JobState, Priority

# What is done with a recording that comes in, and the steps of it.
ADD, TRANSCRIBE, EMBED = "add", "transcribe", "embed"
# One more version of what is said in it: as it is said, or in English.
RETRANSCRIBE, TRANSLATE = "retranscribe", "translate"
# Of the archive as a whole.
REEMBED = "reembed"

_UNFINISHED = jobs.c.outcome.is_(None)


def add(
    connection: Connection,
    kind: str,
    audio_ids: Sequence[int | None],
    *,
    step: str,
    options: Mapping[str, Any],
    priority: Priority,
    share: str,
) -> list[Job]:
    """New jobs, one for each recording, waiting for their turns behind those of the same `share`."""
    turn = _next_turn(connection, priority, share)
    now = utc_now()
    row = {
        "kind": kind,
        "options": dict(options),
        "priority": priority.value,
        "share": share,
        "step": step,
        "run": 1,
        "failures": 0,
        "deaths": 0,
        "created_at": now,
        "updated_at": now,
    }
    rows = [{**row, "audio_file_id": audio_id, "turn": turn + number} for number, audio_id in enumerate(audio_ids)]
    if not rows:
        return []
    made = connection.execute(insert(jobs).returning(jobs, sort_by_parameter_order=True), rows)
    return [_job(row) for row in made.mappings()]


def leave_to_workers(
    connection: Connection, audio_id: int, owner_id: int, options: Mapping[str, Any] | None = None
) -> None:
    """Let a recording that came in with nobody to process it have a job: a worker's sweep will queue it."""
    if not standing_for(connection, [audio_id], ADD, done=False):
        order: dict[str, Any] = {"step": TRANSCRIBE, "options": options or {}, "priority": Priority.NORMAL}
        add(connection, ADD, [audio_id], **order, share=str(owner_id))


def finish_waiting(connection: Connection, audio_id: int) -> None:
    """End the jobs of a recording that waited for what has just been done without them."""
    mine = (jobs.c.audio_file_id == audio_id, jobs.c.kind == ADD, _UNFINISHED)
    connection.execute(update(jobs).where(*mine).values(outcome=JobState.DONE.value, updated_at=utc_now()))


def _next_turn(connection: Connection, priority: Priority, share: str) -> int:
    """The round in which the next job of this share is served: the one after its last waiting job's, or the round being
    served now. So who brings a thousand jobs does not keep those waiting who bring one."""
    waiting = select(func.max(jobs.c.turn)).where(_UNFINISHED, jobs.c.priority == priority.value)
    mine = connection.execute(waiting.where(jobs.c.share == share)).scalar() or 0
    served = select(func.min(jobs.c.turn)).where(_UNFINISHED, jobs.c.priority == priority.value)
    return max(mine + 1, connection.execute(served).scalar() or 1)


def get(connection: Connection, job_id: int) -> Job:
    """One job. Raises `NotFound`."""
    found = find(connection, job_id)
    if found is None:
        raise NotFound(kind="job", id=job_id)
    return found


def must_exist(connection: Connection, job_ids: Iterable[int]) -> None:
    """Raises `NotFound` for the first of these jobs that is not there."""
    wanted = list(job_ids)
    known = set(connection.execute(select(jobs.c.id).where(within(jobs.c.id, wanted))).scalars())
    for job_id in wanted:
        if job_id not in known:
            raise NotFound(kind="job", id=job_id)


def find(connection: Connection, job_id: int) -> Job | None:
    """One job, if it is there still."""
    row = connection.execute(select(jobs).where(jobs.c.id == job_id)).mappings().first()
    return _job(row) if row else None


def select_where(
    connection: Connection, *conditions: ColumnElement[bool], limit: int | None = None, offset: int = 0
) -> list[Job]:
    """Jobs that meet the conditions, the latest first."""
    query = select(jobs).where(*conditions).order_by(jobs.c.id.desc()).limit(limit).offset(offset)
    return [_job(row) for row in connection.execute(query).mappings()]


def unfinished_after(connection: Connection, job_id: int, limit: int, since: datetime | None = None) -> list[Job]:
    """The next jobs by id that have not ended; only those changed `since` then."""
    recent = true() if since is None else jobs.c.updated_at >= since
    query = select(jobs).where(_UNFINISHED, jobs.c.id > job_id, recent).order_by(jobs.c.id).limit(limit)
    return [_job(row) for row in connection.execute(query).mappings()]


def standing_for(connection: Connection, audio_ids: Iterable[int], kind: str, *, done: bool) -> dict[int, Job]:
    """The jobs of this kind that some of these recordings wait for, or that were `done` for them, by recording; the
    latest of each."""
    standing = or_(_UNFINISHED, jobs.c.outcome == JobState.DONE.value) if done else _UNFINISHED
    found = select_where(connection, standing, within(jobs.c.audio_file_id, audio_ids), jobs.c.kind == kind)
    return {job.audio_id: job for job in reversed(found) if job.audio_id is not None}


def unfinished_of(connection: Connection, kind: str) -> list[Job]:
    """The jobs of this kind that have not ended."""
    return select_where(connection, _UNFINISHED, jobs.c.kind == kind)


def standings(connection: Connection, *conditions: ColumnElement[bool], limit: int) -> dict[int, tuple[Any, ...]]:
    """How far each job is that has not ended, of those that meet the conditions: equal for two moments only if nothing
    has happened to it in between, save that a worker took it. The oldest first, and no more than `limit`."""
    query = select(jobs.c.id, jobs.c.run, jobs.c.step, jobs.c.failures).where(_UNFINISHED, *conditions)
    return {row.id: tuple(row) for row in connection.execute(query.order_by(jobs.c.id).limit(limit))}


def last_id(connection: Connection) -> int:
    """The highest id that a job has; 0 where there is none."""
    latest: int = connection.execute(select(func.coalesce(func.max(jobs.c.id), 0))).scalar_one()
    return latest


def any_unfinished(connection: Connection, *conditions: ColumnElement[bool]) -> bool:
    """Whether there is a job that has not ended, among those that meet the conditions."""
    return connection.execute(select(jobs.c.id).where(_UNFINISHED, *conditions).limit(1)).first() is not None


def outcomes(connection: Connection, *conditions: ColumnElement[bool]) -> dict[str | None, int]:
    """How many jobs ended in which way, of those that meet the conditions; `None` for those that have not ended."""
    rows = connection.execute(select(jobs.c.outcome, func.count()).where(*conditions).group_by(jobs.c.outcome))
    return {outcome: count for outcome, count in rows}  # noqa: C416 - rows are not pairs to the type checker


def proceed(connection: Connection, job: Job, step: str) -> Job | None:
    """Go on to the next step. `None` when the job was cancelled, deleted or taken over: this run counts no longer."""
    return _move(connection, job, step=step, run=job.run + 1, failures=0, deaths=0, code=None, reason=None)


def try_again(connection: Connection, job: Job, code: str, reason: str) -> Job | None:
    """Have the step that failed run once more; `None` as for `proceed`."""
    return _move(connection, job, run=job.run + 1, failures=job.failures + 1, code=code, reason=reason)


def run_anew(connection: Connection, job: Job) -> Job | None:
    """Have the present step run once more, through no fault of its own; `None` as for `proceed`."""
    return _move(connection, job, run=job.run + 1)


def finish(
    connection: Connection, job: Job, state: JobState, code: str | None = None, reason: str | None = None
) -> Job | None:
    """End it in one of the states that are ends; `None` as for `proceed`."""
    return _move(connection, job, outcome=state.value, code=code, reason=reason)


def reopen(connection: Connection, job: Job) -> Job | None:
    """Let a job that failed or was cancelled go on with the step at which it ended; `None` when that was done."""
    values = {"outcome": None, "code": None, "reason": None, "failures": 0, "deaths": 0, "run": job.run + 1}
    same = (jobs.c.id == job.id, jobs.c.run == job.run, jobs.c.outcome == job.state.value)
    return _updated(connection, same, values)


def count_deaths(connection: Connection, job: Job, deaths: int) -> Job | None:
    """So many workers have died in this run, one after the other, before it kept anything; `None` as for `proceed`."""
    return _move(connection, job, deaths=deaths)


def is_current(connection: Connection, job_id: int, run: int) -> bool:
    """Whether this run of the job still counts."""
    same = (jobs.c.id == job_id, jobs.c.run == run, _UNFINISHED)
    return connection.execute(select(jobs.c.id).where(*same)).first() is not None


def forget(connection: Connection, before: datetime, limit: int) -> int:
    """Remove up to so many jobs that ended before this moment; how many."""
    old = select(jobs.c.id).where(jobs.c.outcome.is_not(None), jobs.c.updated_at < before).limit(limit)
    ids = list(connection.execute(old).scalars())
    connection.execute(jobs.delete().where(within(jobs.c.id, ids)))
    return len(ids)


def end_all(connection: Connection, job_ids: Iterable[int], state: JobState) -> list[Job]:
    """End those of these jobs that have not ended, in one of the states that are ends; which they are."""
    mine = (within(jobs.c.id, job_ids), _UNFINISHED)
    values = {"outcome": state.value, "updated_at": utc_now()}
    rows = connection.execute(update(jobs).where(*mine).values(**values).returning(jobs)).mappings()
    return [_job(row) for row in rows]


def _move(connection: Connection, job: Job, **values: Any) -> Job | None:
    same = (jobs.c.id == job.id, jobs.c.run == job.run, _UNFINISHED)
    return _updated(connection, same, values)


def _updated(connection: Connection, same: Sequence[ColumnElement[bool]], values: Mapping[str, Any]) -> Job | None:
    statement = update(jobs).where(*same).values(updated_at=utc_now(), **values).returning(jobs)
    row = connection.execute(statement).mappings().first()
    return _job(row) if row else None


def _job(row: RowMapping) -> Job:
    values = dict(row)
    values["state"] = JobState(values.pop("outcome") or JobState.WAITING)
    return Job(audio_id=values.pop("audio_file_id"), priority=Priority(values.pop("priority")), **values)
