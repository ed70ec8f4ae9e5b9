"""The board of jobs: what was given, how far it is, and what can be done about it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, or_

from audio_storage_system.access import Role
from audio_storage_system.archive import Archive
from audio_storage_system.catalogue import jobs, locks, recordings, transcripts, workers
from audio_storage_system.catalogue.workers import WorkerRow
from audio_storage_system.database.queries import within
from audio_storage_system.database.tables import jobs as table
from audio_storage_system.errors import Conflict, InvalidInput, StorageFailed
from audio_storage_system.jobs import failures, moments, steps
from audio_storage_system.jobs.moments import Moment
from audio_storage_system.jobs.presence import is_gone
from audio_storage_system.jobs.runs import Run, Runs, RunState, id_of
from audio_storage_system.pipeline import batches
from audio_storage_system.records import Job, JobState, Priority

logger = logging.getLogger(__name__)

ENDS = tuple(state for state in JobState if state.ended)
POLL_SECONDS = 0.2
CHANGED_AT_ONCE = 1_000
REOPENED_AT_ONCE = 500  # in one transaction, for which other writers wait


class Jobs:
    """The background jobs of an archive, which its workers do: those of the recordings that who asks may see. Safe to
    share between threads."""

    def __init__(self, archive: Archive, runs: Runs | None = None) -> None:
        self._archive = archive
        self.runs = runs or Runs(archive.database, archive.home, archive.key_for("jobs"))

    def seen_by(self, archive: Archive) -> Jobs:
        """The same board for who asks of this archive, `Archive.seen_by` somebody."""
        return Jobs(archive, self.runs)

    def _seen(self) -> list[ColumnElement[bool]]:
        """The condition for jobs of recordings that who asks may see; the archive's own are there for admins."""
        seen = self._archive.access.only(table.c.audio_file_id)
        return [or_(*seen, table.c.audio_file_id.is_(None))] if seen and self._archive.access.is_admin else seen

    def entry(
        self, kind: str, options: Mapping[str, Any], *, priority: Priority | str, share: str | None = None
    ) -> Callable[[Connection, int], None]:
        """Enters a job for a recording in the transaction that enters the recording itself, so that neither is ever
        there without the other. `submit` then finds it, and queues it."""
        order = self._order(kind, options, priority, share)

        def enter(connection: Connection, audio_id: int) -> None:
            _add(connection, kind, [audio_id], order)

        return enter

    def submit(
        self,
        kind: str,
        audio_ids: Sequence[int],
        options: Mapping[str, Any],
        *,
        priority: Priority | str = Priority.NORMAL,
        share: str | None = None,
        delay_seconds: float | None = None,
    ) -> list[Job]:
        """Give a job for each of these recordings. Where one waits for the same, that one is returned; of a kind that
        is done once for each recording, also one that is done.

        delay_seconds: so long workers leave those alone that are new. They are in the catalogue when this returns;
        should the process end before they are queued, the sweep of a worker queues them. Raises `NotFound`,
        `Forbidden` as the access to the recordings says, and `StillRecording`.
        """
        order = self._order(kind, options, priority, share)
        with self._archive.database.write() as connection:
            for audio_id in audio_ids:
                self._archive.access.require(connection, audio_id, Role.EDITOR, "give work on")
                recordings.refuse_unfinished(connection, audio_id)
            given = {
                audio_id: job
                for audio_id, job in jobs.standing_for(connection, audio_ids, kind, done=kind in steps.ONCE).items()
                if _covers(job, options)
            }
            fresh = [audio_id for audio_id in dict.fromkeys(audio_ids) if audio_id not in given]
            made = _add(connection, kind, fresh, order)
        given |= dict(zip(fresh, made, strict=True))
        waiting = [job for job in given.values() if not job.state.ended]
        self._queue_if_possible(waiting, delay_seconds)  # what is queued stays so
        return [given[audio_id] for audio_id in audio_ids]

    def submit_reembedding(
        self, embedder: str | None, kind: str, *, drop_old: bool, priority: Priority | str = Priority.NORMAL
    ) -> Job:
        """Give the job of embedding the archive anew; the one that waits for the same, if there is one."""
        self._archive.access.require_admin("embed the archive anew")
        options = {"embedder": embedder, "kind": kind, "drop_old": drop_old}
        order = self._order(jobs.REEMBED, options, priority, None)
        with self._archive.database.write(locks.SPACES) as connection:
            for job in jobs.unfinished_of(connection, jobs.REEMBED):
                if job.options == options:
                    return job
            [made] = jobs.add(connection, jobs.REEMBED, [None], **order)
        self._queue_if_possible([made])
        return made

    def _order(
        self, kind: str, options: Mapping[str, Any], priority: Priority | str, share: str | None
    ) -> dict[str, Any]:
        """What `catalogue.jobs.add` is told of new jobs. Raises `InvalidInput` for a priority that does not exist."""
        whose = share or str(self._archive.owner_id)
        return {
            "step": steps.first_of(kind),
            "options": options,
            "priority": priority_of(priority),
            "share": whose,
        }

    def _queue_if_possible(self, waiting: Sequence[Job], delay_seconds: float | None = None) -> None:
        """A job counts from when the catalogue has it: a worker queues what could not be queued here."""
        try:
            self.queue(waiting, delay_seconds)
        except StorageFailed as error:
            logger.warning("What is to be done is stored, and will be queued by a worker: %s", error)

    def queue(self, waiting: Sequence[Job], delay_seconds: float | None = None) -> None:
        """Put the present runs of these jobs into their queues."""
        self.runs.enqueue([Run.of(job, steps.queue_of(self._archive, job)) for job in waiting], delay_seconds)

    def get(self, job_id: int) -> Job:
        """One job. Raises `NotFound`."""
        with self._archive.database.read() as connection:
            job = self._got(connection, job_id)
        return self._told([job])[0]

    def _got(
        self, connection: Connection, job_id: int, role: Role = Role.READER, action: str = "see the jobs of"
    ) -> Job:
        self._archive.access.require_job(connection, job_id, role, action)
        return jobs.get(connection, job_id)

    def find(
        self,
        state: JobState | str | None = None,
        *,
        audio_id: int | None = None,
        since: datetime | None = None,
        before: int | None = None,
        limit: int | None = 100,
        offset: int = 0,
    ) -> list[Job]:
        """Jobs, the latest first; `state`: only those in it. since: that something happened to since then. before: with
        a lower id than this, for the next page. Raises `InvalidInput` for a state that does not exist."""
        wanted = None if state is None else state_of(state)
        conditions: list[ColumnElement[bool]] = [] if audio_id is None else [table.c.audio_file_id == audio_id]
        if since is not None:
            conditions.append(table.c.updated_at >= since)
        if before is not None:
            conditions.append(table.c.id < before)
        if wanted is not None:
            conditions.append(table.c.outcome == wanted.value if wanted.ended else table.c.outcome.is_(None))
        sifted = wanted is None or wanted.ended
        conditions += self._seen()
        with self._archive.database.read() as connection:
            page = (limit, offset) if sifted else (None, 0)
            found = jobs.select_where(connection, *conditions, limit=page[0], offset=page[1])
        told = self._told(found)
        if sifted:
            return told
        chosen = [job for job in told if job.state is wanted]
        return chosen[offset:] if limit is None else chosen[offset : offset + limit]

    def changed(self, since: Moment | None = None) -> tuple[list[Job], Moment]:
        """The jobs that something has happened to since that moment, the oldest first, and the moment to ask from next:
        cheap enough to ask twice a second. Without a moment, those that have not ended. At most 1,000; where more have
        changed, the next call tells of the others."""
        seen = self._seen()
        running = self.runs.running()
        with self._archive.database.read() as connection:
            changed, now = moments.compare(connection, since, running, seen, most=CHANGED_AT_ONCE)
            found = jobs.select_where(connection, within(table.c.id, changed), *seen)
        return self._told(found[::-1]), now

    def is_idle(self) -> bool:
        """Whether every job has ended."""
        seen = self._seen()
        with self._archive.database.read() as connection:
            return not jobs.any_unfinished(connection, *seen)

    def counts(self) -> dict[str, int]:
        """How many jobs are in each state."""
        seen = self._seen()
        with self._archive.database.read() as connection:
            ends = jobs.outcomes(connection, *seen)
        counts = {state.value: ends.get(state.value, 0) for state in ENDS}
        counts["unfinished"] = ends.get(None, 0)
        return counts

    def workers(self) -> list[WorkerRow]:
        """Every worker that is at work; one of another machine that died is among them for some seconds. Raises
        `Forbidden` for who is no admin."""
        self._archive.access.require_admin("see the workers")
        return [row for row in self._known_workers() if not is_gone(row)]

    def _known_workers(self) -> list[WorkerRow]:
        with self._archive.database.read() as connection:
            return workers.present(connection)

    def cancel(self, *job_ids: int) -> list[Job]:
        """End these jobs; those that this ended. What they have stored stays. One being worked at stops after the
        window in hand. Raises `NotFound`, `Forbidden`."""
        with self._archive.database.write() as connection:
            self._require(connection, job_ids, "cancel the jobs of")
            ended = jobs.end_all(connection, job_ids, JobState.CANCELLED)
            self._note(connection, "job.cancelled", ended)
        self._take_out(ended)
        return ended

    def done(self, *job_ids: int) -> list[Job]:
        """End these jobs, as what they are for has been done without them; those that this ended. Raises `NotFound`,
        `Forbidden`."""
        with self._archive.database.write() as connection:
            self._require(connection, job_ids, "end the jobs of")
            ended = jobs.end_all(connection, job_ids, JobState.DONE)
        self._take_out(ended)
        return ended

    def failed(self, job_id: int, error: Exception) -> None:
        """End this job with the error that doing it without workers ended with, unless it has ended: none tries again
        what somebody was told of. It can be retried. Raises `NotFound`, `Forbidden`."""
        with self._archive.database.write() as connection:
            job = self._got(connection, job_id, Role.EDITOR, "end the jobs of")
            ended = jobs.finish(connection, job, JobState.FAILED, *failures.told(error))
        self._take_out([ended] if ended else [])

    def hasten(self, *job_ids: int) -> list[Job]:
        """Let these jobs wait no longer for their time, where they do; those that did. Raises `NotFound`,
        `Forbidden`."""
        with self._archive.database.read() as connection:
            found = [self._got(connection, job_id, Role.EDITOR, "hasten the jobs of") for job_id in job_ids]
        delayed = [job for job in self._told(found) if job.state is JobState.DELAYED]
        with self._archive.database.write() as connection:
            moved = [again for job in delayed if (again := jobs.run_anew(connection, job))]
        self._queue_if_possible(moved)
        return moved

    def _require(self, connection: Connection, job_ids: Sequence[int], action: str) -> None:
        for job_id in job_ids:
            self._archive.access.require_job(connection, job_id, Role.EDITOR, action)
        jobs.must_exist(connection, job_ids)

    def _take_out(self, ended: Sequence[Job]) -> None:
        try:
            self.runs.cancel([id_of(job) for job in ended])
        except StorageFailed as error:  # whoever takes one of these runs sees that its job has ended
            logger.warning("The jobs have ended, and still stand in the queue: %s", error)

    def retry(self, *job_ids: int) -> list[Job]:
        """Let jobs that failed or were cancelled go on at the step where they ended. Raises `NotFound`, `Forbidden`,
        and `Conflict` for one that did neither."""
        with self._archive.database.read() as connection:
            found = [self._got(connection, job_id, Role.EDITOR, "retry the jobs of") for job_id in job_ids]
        ended = [_reopenable(job) for job in found]
        reopened: list[Job] = []
        for batch in batches(iter(ended), REOPENED_AT_ONCE):
            with self._archive.database.write() as connection:
                now = [again for job in batch if (again := jobs.reopen(connection, job))]
                self._note(connection, "job.retried", now)
                reopened += now
        self._queue_if_possible(reopened)
        return reopened

    def _note(self, connection: Connection, action: str, changed: Sequence[Job]) -> None:
        for job in changed:
            self._archive.audit.note(connection, action, job.audio_id, job_id=job.id, kind=job.kind)

    def wait(self, job_ids: Iterable[int], timeout: float | None = None) -> list[Job]:
        """These jobs once they have ended, or as they are after `timeout` seconds."""
        until = None if timeout is None else time.monotonic() + timeout
        wanted = list(job_ids)
        while True:
            with self._archive.database.read() as connection:
                found = [self._got(connection, job_id) for job_id in wanted]
            if all(job.state.ended for job in found) or (until is not None and time.monotonic() > until):
                return self._told(found)
            time.sleep(POLL_SECONDS)

    def close(self) -> None:
        """Close every connection; those of a view are its parent's."""
        if not self._archive.access.restricted:
            self.runs.close()

    def _told(self, found: list[Job]) -> list[Job]:
        """The same jobs with where their runs are and how much is done of them."""
        going = [job for job in found if not job.state.ended]
        states = self.runs.states([id_of(job) for job in going]) if going else {}
        names = {str(worker.id): f"{worker.name}@{worker.host}" for worker in self._known_workers()} if going else {}
        return [self._tell(job, states.get(id_of(job)), names) for job in found]

    def _tell(self, job: Job, run: RunState | None, names: Mapping[str, str]) -> Job:
        if run is None or run.state is None:
            return job
        if run.state is not JobState.RUNNING:
            return replace(job, state=run.state, until=run.until)
        done, whole = self._progress(job)
        return replace(
            job, state=run.state, worker=names.get(run.worker or "", run.worker), seconds_done=done, seconds=whole
        )

    def _progress(self, job: Job) -> tuple[float | None, float | None]:
        if job.audio_id is None or job.step != jobs.TRANSCRIBE:
            return None, None
        with self._archive.database.read() as connection:
            if not recordings.exists(connection, job.audio_id):
                return None, None
            return transcripts.heard_until(connection, job.audio_id), recordings.duration_of(connection, job.audio_id)


def _reopenable(job: Job) -> Job:
    if job.state in (JobState.FAILED, JobState.CANCELLED):
        return job
    why = "it is done" if job.state.ended else "it has not ended; cancel it first to begin again at once"
    raise Conflict(reason=f"Job {job.id} has not failed: {why}")


def priority_of(value: Priority | str) -> Priority:
    """A priority by its name. Raises `InvalidInput`."""
    if isinstance(value, Priority):
        return value
    if value.upper() not in Priority.__members__:
        raise InvalidInput(reason=f'There is no priority "{value}"; there are: high, normal, low')
    return Priority[value.upper()]


def state_of(value: JobState | str) -> JobState:
    """A state by its name. Raises `InvalidInput`."""
    try:
        return JobState(value)
    except ValueError:
        known = ", ".join(JobState)
        raise InvalidInput(reason=f'There is no state "{value}"; there are: {known}') from None


def _add(connection: Connection, kind: str, audio_ids: Sequence[int], order: Mapping[str, Any]) -> list[Job]:
    """New jobs; one for one more version is told which were there before."""
    if kind not in steps.ONCE:
        order = {**order, "options": {**order["options"], steps.AFTER: transcripts.last_id(connection)}}
    return jobs.add(connection, kind, audio_ids, **order)


def _covers(job: Job, wanted: Mapping[str, Any]) -> bool:
    """Whether a job does what is wanted, whenever it was given. What is done once is done as it was asked for first."""
    if job.kind in steps.ONCE:
        return bool(job.options.get("embed", True) or not wanted.get("embed", True))
    return {**job.options, steps.AFTER: None} == {**wanted, steps.AFTER: None}
