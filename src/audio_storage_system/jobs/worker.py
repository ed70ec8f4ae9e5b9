"""A worker: it takes runs from the queues, does their steps, and looks after jobs that others let fall."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from audio_storage_system.archive import Archive
from audio_storage_system.catalogue import jobs, locks, workers
from audio_storage_system.errors import StorageFailed
from audio_storage_system.jobs import care, presence, steps
from audio_storage_system.jobs.board import Jobs
from audio_storage_system.jobs.engine import Engine
from audio_storage_system.jobs.failures import ATTEMPTS, delay_before, give_up, is_outage, may_pass, told
from audio_storage_system.jobs.upkeep import RECURRING
from audio_storage_system.machine import process_place
from audio_storage_system.records import Job, JobState
from audio_storage_system.webhooks import Deliverer

logger = logging.getLogger(__name__)

# Between two attempts while the archive's own disk, store or database cannot be used.
PATIENCE_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)
# Between two looks, while waiting for another job, whether this worker stops.
LOCK_SECONDS = 0.2

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class JobEvent:
    """Something a worker did. what: `began`, `stepped` (the step is done, and not noted yet), `noted` (and what follows
    not queued yet), `done`, `failed`, `again`, `left`, `took_over`, `waiting`."""

    what: str
    job: Job | None = None
    words: str = ""


class Leaving(BaseException):
    """This worker stops, or is no longer the one at this run: no error of the step, which goes on elsewhere."""


class Superseded(Exception):
    """The job was cancelled or deleted, or another worker is at it."""


class Worker:
    """Does the jobs of one archive in this process, until it is told to stop. One per process.

    concurrency: how many runs of each queue at once. name: what to call it; names need not differ. on_event: told of
    what happens, from any thread.
    """

    def __init__(
        self,
        archive: Archive,
        board: Jobs,
        concurrency: Mapping[str, int],
        *,
        name: str = "",
        on_event: Callable[[JobEvent], None] = lambda event: None,
    ) -> None:
        self._archive = archive
        self._board = board
        self._concurrency = dict(concurrency)
        archive.engines.expect(concurrency.get("transcribe", 1))
        self._name = name or f"worker-{os.getpid()}"
        self._tell = on_event
        self._stopping = threading.Event()
        self._lost = threading.Event()  # others took over from us
        self._looked = threading.Event()
        self._working = 0
        self._lock = threading.Lock()
        self._deliverer: Deliverer | None = None
        self._doubts = threading.Lock()  # held by a job that may have killed a worker
        self.id = 0

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set; then finish what is in hand up to its next commit, and hand the rest back."""
        while True:
            self._lost.clear()
            self._stopping.clear()
            try:
                self._serve(stop)
            except Exception as error:
                if not (self.id and is_outage(error)):  # who never came to work is told why
                    raise
                logger.warning("This worker cannot begin anew now: %s", error)
                stop.wait(presence.BEAT_SECONDS)
            if stop.is_set():
                return

    def _serve(self, stop: threading.Event) -> None:
        """Until `stop` is set, or others have taken this worker for dead."""
        self.id = self._enter()
        engine = Engine(self._board.runs, str(self.id), self._concurrency, self._perform, self._recur)
        beating = threading.Thread(target=self._beat_on, daemon=True, name="heartbeat")
        try:
            self._board.runs.make_queues({"remote": self._archive.settings.remote_per_minute})
            self._board.runs.schedule({name: work.schedule for name, work in RECURRING.items()})
            engine.start()
            beating.start()
            self._deliver()
            self._look_after(stop, engine)
        finally:
            self._leave(engine)

    def run_until_idle(self, stop: threading.Event) -> None:
        """Work until every job has ended and every webhook was called that is to be called now, or `stop` is set."""
        done = threading.Event()

        def watch() -> None:
            while not stop.wait(0.1) and not done.is_set():
                try:
                    if self._looked.is_set() and self._board.is_idle() and self._has_delivered():
                        stop.set()
                except StorageFailed as error:
                    logger.warning("Whether there is something left to do cannot be known now: %s", error)

        threading.Thread(target=watch, daemon=True, name="idle").start()
        try:
            self.run(stop)
        finally:
            done.set()

    def _deliver(self) -> None:
        """Call webhooks, too, where this worker asks services over the network."""
        if "remote" in self._concurrency:
            self._deliverer = Deliverer(self._archive)
            self._deliverer.start()

    def _has_delivered(self) -> bool:
        return self._deliverer is None or self._deliverer.is_idle()

    def _enter(self) -> int:
        with self._archive.database.write(locks.WORKERS) as connection:
            return workers.enter(
                connection,
                name=self._name,
                host=presence.host(),
                place=process_place(),
                process=os.getpid(),
                version=presence.version(),
                queues=sorted(self._concurrency),
            )

    def _beat_on(self) -> None:
        """Give signs of life while this worker lives."""
        while not self._stopping.wait(presence.BEAT_SECONDS) and not self._lost.is_set():
            try:
                self._beat()
            except StorageFailed as error:
                logger.warning("This worker can give no sign of life now: %s", error)

    def _beat(self) -> None:
        with self._archive.database.write() as connection:
            alive = workers.beat(connection, self.id)
        if not alive and not self._lost.is_set():
            logger.warning("Other workers took this one for dead and took over its jobs: it begins anew")
            self._lost.set()

    def _look_after(self, stop: threading.Event, engine: Engine) -> None:
        """Take over from the dead, and now and then look for jobs that nobody has queued: once in any case, so that
        also who finds nothing to do strikes off the dead."""
        carer = care.Carer(self._archive, self._board, self.id, self._tell_of)
        idle: set[str] = set()
        while True:
            try:
                carer.look()
                self._looked.set()
                idle = self._put_back(engine, idle)
            except Exception as error:
                if not is_outage(error):
                    raise
                logger.warning("This worker cannot look after the jobs now: %s", error)
            if stop.wait(presence.BEAT_SECONDS) or self._lost.is_set():
                return

    def _put_back(self, engine: Engine, idle: set[str]) -> set[str]:
        """Put back runs that were `idle` at the last look and still are; what is now. Where the database goes away
        between taking a run and beginning it, nobody would do it as long as this worker lives."""
        held = {run.id: run for run in self._board.runs.held_by(str(self.id))}
        now = engine.not_begun(held)
        self._board.runs.hand_back(held[name] for name in now & idle)
        engine.drop(now & idle)
        return now - idle

    def _tell_of(self, what: str, job: Job | None, words: str) -> None:
        self._tell(JobEvent(what, job, words))

    def _leave(self, engine: Engine) -> None:
        self._stopping.set()
        engine.pause()
        self._wait_for_hands()
        if self._deliverer is not None:
            self._deliverer.stop()
            self._deliverer = None
        engine.stop()
        try:
            care.hand_over(self._archive, self._board, self.id)
        except Exception as error:
            if not is_outage(error):
                raise
            logger.warning("This worker could not hand its jobs back, others will find it dead: %s", error)
        self._tell(JobEvent("left"))

    def _wait_for_hands(self) -> None:
        """Until every step has come to its next commit."""
        while True:
            with self._lock:
                if self._working == 0:
                    return
            time.sleep(0.02)

    def _perform(self, job_id: int, number: int) -> str:
        """Do one run; how it ended, in one word."""
        with self._lock:
            self._working += 1
        try:
            if self._stopping.is_set():
                raise Leaving
            return self._performed(job_id, number)
        except Exception as error:  # what the archive refuses for good: the engine is to keep none of its words
            logger.warning("Job %d stops here, until a sweep finds it: %s", job_id, told(error)[1])
            return told(error)[0]
        finally:
            with self._lock:
                self._working -= 1

    def _recur(self, name: str) -> str:
        """Do recurring work; what fails is told, and comes again at its next time."""
        if name not in RECURRING:  # of another version
            return "unknown"
        try:
            RECURRING[name].do(self._archive, self._board)
        except Exception as error:
            logger.warning("The recurring work %s failed: %s", name, told(error)[1])
            return told(error)[0]
        return "done"

    def _performed(self, job_id: int, number: int) -> str:
        job = self._patiently(lambda: self._current(job_id, number))
        if job is None:
            return "superseded"
        self._tell(JobEvent("began", job))
        try:
            with self._carefully(job) as lives:
                self._patiently(lambda: steps.perform(self._archive, job, self._ticking(job, lives)))
        except Exception as error:
            return self._failed(job, error)
        self._tell(JobEvent("stepped", job))
        return self._proceed(job)

    def _current(self, job_id: int, number: int) -> Job | None:
        with self._archive.database.read() as connection:
            job = jobs.find(connection, job_id)
        return job if job and job.run == number and not job.state.ended else None

    @contextmanager
    def _carefully(self, job: Job) -> Iterator[Callable[[], None]]:
        """For a job that may have killed a worker: one of these at a time, until what this gives is called. Its death
        is counted beforehand, so that those which wait beside it are not blamed for it."""
        if not job.deaths:
            yield lambda: None
            return
        self._wait_for(self._doubts)
        doubted = True

        def live() -> None:
            nonlocal doubted
            if doubted:
                doubted = False
                self._count_deaths(job, 0)
                self._doubts.release()

        try:
            self._patiently(lambda: self._write(jobs.count_deaths, job, job.deaths + 1))
            yield live
        except BaseException:
            if doubted:
                self._count_deaths(job, job.deaths)
            raise
        finally:
            if doubted:
                self._doubts.release()

    def _count_deaths(self, job: Job, deaths: int) -> None:
        try:
            self._write(jobs.count_deaths, job, deaths)
        except StorageFailed as error:
            logger.warning("That job %d has killed no worker cannot be noted now: %s", job.id, error)

    def _wait_for(self, lock: threading.Lock) -> None:
        while not lock.acquire(timeout=LOCK_SECONDS):
            if self._stopping.is_set():
                raise Leaving

    def _ticking(self, job: Job, lives: Callable[[], None]) -> steps.Tick:
        """Ends a step when this worker stops or the job is no longer ours; tells the first time that it got further."""
        untold = True

        def tick(kept: bool = True) -> None:
            nonlocal untold
            if self._stopping.is_set() or self._lost.is_set():
                raise Leaving
            if kept and untold:
                untold = False
                lives()
            with self._archive.database.read() as connection:
                if not jobs.is_current(connection, job.id, job.run):
                    raise Superseded

        return tick

    def _proceed(self, job: Job) -> str:
        following = steps.after(job)
        if following is None:
            ended = self._patiently(lambda: self._write(jobs.finish, job, JobState.DONE))
            self._tell(JobEvent("done", ended or job))
            return "done"
        moved = self._patiently(lambda: self._write(jobs.proceed, job, following))
        self._tell(JobEvent("noted", moved or job))
        if moved:
            self._patiently(lambda: self._board.queue([moved]))
        return "proceeded"

    def _failed(self, job: Job, error: Exception) -> str:
        if isinstance(error, Superseded):
            return "superseded"
        code, reason = told(error)
        if not may_pass(error) or job.failures + 1 >= ATTEMPTS:
            ended = self._patiently(lambda: self._write(give_up, job, code, reason))
            self._tell(JobEvent("failed", ended or job, reason))
            return code
        delay = delay_before(job.failures + 1)
        moved = self._patiently(lambda: self._write(jobs.try_again, job, code, reason))
        self._tell(JobEvent("again", moved or job, f"{reason} (again in {delay:.0f} s)"))
        if moved:
            self._patiently(lambda: self._board.queue([moved], delay))
        return code

    def _write(self, change: Callable[..., Job | None], job: Job, *given: object) -> Job | None:
        with self._archive.database.write() as connection:
            return change(connection, job, *given)

    def _patiently(self, work: Callable[[], T]) -> T:
        """The result of `work`, which is done again while the archive's own disk, store or database cannot be used:
        no fault of the job, and every other would fail in the same way. Not before this worker's own sign of life can
        be written: what a model has heard would be lost again and again."""
        attempt = 0
        while True:
            try:
                if attempt:
                    self._beat()
                return work()
            except Exception as error:
                if not is_outage(error):
                    raise
                self._tell(JobEvent("waiting", None, str(error)))
                if self._stopping.wait(PATIENCE_SECONDS[min(attempt, len(PATIENCE_SECONDS) - 1)]):
                    raise Leaving from error
                attempt += 1
