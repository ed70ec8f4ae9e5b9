"""Care for jobs that others let fall: those of dead workers, those never queued, transcriptions cut short."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta

from sqlalchemy import Connection

from audio_storage_system.archive import Archive, captures
from audio_storage_system.catalogue import jobs, locks, transcripts, workers
from audio_storage_system.catalogue.workers import WorkerRow
from audio_storage_system.clock import utc_now
from audio_storage_system.jobs.board import Jobs
from audio_storage_system.jobs.failures import give_up
from audio_storage_system.jobs.presence import Watch
from audio_storage_system.jobs.runs import RunState, id_of
from audio_storage_system.records import Job, JobState

logger = logging.getLogger(__name__)

# So often a job may take its worker with it, without getting any further, before it is given up.
MOST_DEATHS = 10
DIED = "worker_died"
# Between two looks at the jobs that changed of late, and between two looks at all of them.
SWEEP_SECONDS, SWEEP_ALL_SECONDS = 30.0, 600.0
RECENT = timedelta(minutes=5)
# A transcription without a job that has kept nothing for so long was cut short.
CUT_SHORT = timedelta(minutes=15)
PAGE = 1_000

Tell = Callable[[str, Job | None, str], None]


@dataclass
class Carer:
    """Looks after the jobs of an archive for one worker."""

    archive: Archive
    board: Jobs
    worker_id: int
    tell: Tell
    watch: Watch = field(default_factory=Watch)
    _swept: float = float("-inf")
    _swept_all: float = float("-inf")

    def look(self) -> None:
        """Take over from workers that are dead by now, and sweep when it is time: also for captures on this machine
        whose process is gone, such as live sessions that nobody resumes."""
        for row in self.watch.dead([row for row in _present(self.archive) if row.id != self.worker_id]):
            self._take_over(row)
        now = time.monotonic()
        if now - self._swept < SWEEP_SECONDS:
            return
        captures.recover(self.archive)
        everything = now - self._swept_all >= SWEEP_ALL_SECONDS
        sweep(self.archive, self.board, recent=not everything)
        self._swept, self._swept_all = now, now if everything else self._swept_all

    def _take_over(self, row: WorkerRow) -> None:
        taken = hand_over(self.archive, self.board, row.id, dead=row)
        if taken is not None:
            words = f"{row.name}@{row.host} gives no sign of life; {taken} of its jobs go back to their queues"
            self.tell("took_over", None, words)


def hand_over(archive: Archive, board: Jobs, worker_id: int, dead: WorkerRow | None = None) -> int | None:
    """Put what a worker has in hand back into the queues and strike it off; how many runs. A `dead` one's jobs count
    its death; `None` when it was struck off already, or lives after all."""
    with archive.database.write(locks.WORKERS) as connection:  # of several who see this, one does it
        known = {row.id: row for row in workers.present(connection)}
        if dead is not None and (worker_id not in known or known[worker_id].beats != dead.beats):
            return None
        held = board.runs.held_by(str(worker_id))
        doomed = {run.id for run in held if not _goes_on(connection, run, died=dead is not None)}
        board.runs.hand_back(run for run in held if run.id not in doomed)
        board.runs.cancel(sorted(doomed))
        workers.leave(connection, worker_id)
    return len(held) - len(doomed)


def _goes_on(connection: Connection, run: RunState, *, died: bool) -> bool:
    """Whether a run is to be done by another: not when it counts no longer, nor when its job has taken too many workers
    with it, the first of which is counted here."""
    job = jobs.find(connection, run.job_id)
    if job is None or job.run != run.number or job.state.ended:
        return False
    if not died:
        return True
    if job.deaths == 0:  # further ones it has counted itself before it began, see `Worker`
        jobs.count_deaths(connection, job, 1)
    if job.deaths < MOST_DEATHS:
        return True
    reason = f"{job.deaths} workers died at its step {job.step}, one after the other"
    give_up(connection, job, DIED, reason)
    return False


def sweep(archive: Archive, board: Jobs, *, recent: bool = False) -> int:
    """Queue what is unfinished and waits nowhere; how many jobs. `recent`: only those changed in the last minutes."""
    queued, holders = 0, set[str]()
    for page in _unfinished(archive, recent):
        states = board.runs.states([id_of(job) for job in page])
        lost = [job for job in page if id_of(job) not in states]
        ended = [run for run in states.values() if run.state is None]
        lost += _anew(archive, page, ended)
        board.queue(lost)
        holders |= {run.worker for run in states.values() if run.state is JobState.RUNNING and run.worker}
        queued += len(lost)
    _take_from_nobody(archive, board, holders)
    return queued + _resume_cut_short(archive, board)


def _take_from_nobody(archive: Archive, board: Jobs, holders: set[str]) -> None:
    """Put back what is in the hands of those that are no workers any more. Who holds a run was a worker before, so the
    look at who is one comes later; and while it lasts nobody else takes over."""
    if holders <= {str(row.id) for row in _present(archive)}:
        return
    with archive.database.write(locks.WORKERS) as connection:
        for gone in holders - {str(row.id) for row in workers.present(connection)}:
            board.runs.hand_back(board.runs.held_by(gone))


def _present(archive: Archive) -> list[WorkerRow]:
    """Every worker on the books, dead or alive."""
    with archive.database.read() as connection:
        return workers.present(connection)


def _unfinished(archive: Archive, recent: bool) -> Iterator[list[Job]]:
    since, last = utc_now() - RECENT if recent else None, 0
    while True:
        with archive.database.read() as connection:
            page = jobs.unfinished_after(connection, last, PAGE, since)
        if not page:
            return
        yield page
        last = page[-1].id


def _anew(archive: Archive, page: list[Job], ended: list[RunState]) -> list[Job]:
    """Jobs whose present run ended without a trace in the catalogue get a new run."""
    if not ended:
        return []
    numbers = {run.job_id for run in ended}
    with archive.database.write() as connection:
        return [moved for job in page if job.id in numbers if (moved := jobs.run_anew(connection, job))]


def _resume_cut_short(archive: Archive, board: Jobs) -> int:
    """Give jobs for first transcriptions, and translations, that a process without a job began and left."""
    with archive.database.read() as connection:
        found = transcripts.cut_short(connection, utc_now() - CUT_SHORT)
    for version in found:
        options = {"whisper_model": version.whisper_model, "language": version.parameters.get("language")}
        if version.parameters.get("prompt"):
            options["prompt"] = version.parameters["prompt"]
        kind = jobs.TRANSLATE if version.parameters.get("task") == "translate" else jobs.ADD
        board.submit(kind, [version.audio_id], options)
        logger.info("Recording %d goes on being transcribed: it had been left unfinished", version.audio_id)
    return len(found)
