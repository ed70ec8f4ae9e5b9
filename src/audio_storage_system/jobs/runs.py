"""Runs: single attempts at a step of a job, as the workflow engine (DBOS) hands them to workers.

The engine's tables hold numbers, names of steps and codes, and nothing of what was said: they lie in `jobs.db` beside a
SQLite catalogue, in the schema `dbos` of a PostgreSQL one. They can be lost without loss: the sweep queues again what
the catalogue says is unfinished.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Engine, create_engine, event

from audio_storage_system.database import Database, sqlcipher
from audio_storage_system.database.engine import reopen_after_fork
from audio_storage_system.database.sqlite import BUSY_TIMEOUT_SECONDS
from audio_storage_system.errors import ArchiveDamaged, QueueDamaged
from audio_storage_system.pipeline import batches
from audio_storage_system.records import Job, JobState

if TYPE_CHECKING:
    from dbos import DBOSClient, WorkflowStatus

APPLICATION = "audio-storage"
# What a run's arguments mean. A worker takes only runs of its own format, so that an older one leaves new ones alone.
FORMAT = "1"
WORKFLOW = "run_of_job"
UPKEEP = "upkeep"
QUEUES = ("transcribe", "embed", "remote", "upkeep")
FILE = "jobs.db"
RUN = "job"  # what the ids of runs begin with
# What a worker that has not said otherwise does: nothing at once, looking now and then.
_QUEUE: Any = {"worker_concurrency": 0, "polling_interval_sec": 0.05}
AT_ONCE = 1_000
# Room between the priorities for the turns of everybody's jobs: the engine knows one number, up to 2**31.
TURNS = 700_000_000
STATES = {"ENQUEUED": JobState.WAITING, "DELAYED": JobState.DELAYED, "PENDING": JobState.RUNNING}


def run_id(job_id: int, number: int) -> str:
    """What the engine calls a run."""
    return f"{RUN}:{job_id}:{number}"


def id_of(job: Job) -> str:
    """What the engine calls the present run of a job."""
    return run_id(job.id, job.run)


@dataclass(frozen=True, slots=True)
class Run:
    """One attempt at a job's present step, and the queue that it waits in."""

    job_id: int
    number: int
    queue: str
    priority: int

    @classmethod
    def of(cls, job: Job, queue: str) -> Run:
        """The present run of a job."""
        return cls(job.id, job.run, queue, (job.priority.value - 1) * TURNS + min(job.turn, TURNS - 1))

    @property
    def id(self) -> str:
        return run_id(self.job_id, self.number)


@dataclass(frozen=True, slots=True)
class RunState:
    """Where a run is. `state` is `None` when it has ended; `worker`, the id of who took it last."""

    job_id: int
    number: int
    queue: str
    state: JobState | None
    worker: str | None
    until: datetime | None

    @property
    def id(self) -> str:
        return run_id(self.job_id, self.number)


class Runs:
    """The queued and running runs of an archive. Safe to share between threads; nothing is opened until it is used."""

    def __init__(self, database: Database, home: Path, key: bytes | None = None) -> None:
        """key: what `jobs.db` is encrypted with, if it is."""
        self._database = database
        self._home = home
        self._key = key
        self._lock = threading.Lock()
        self._opened: tuple[Engine, DBOSClient] | None = None

    def enqueue(self, runs: Sequence[Run], delay_seconds: float | None = None) -> None:
        """Queue these runs, all or none. One that is there already stays as it is."""
        with self._open() as (engine, client):
            for batch in batches(iter(runs), AT_ONCE):
                if delay_seconds is None:  # many at once, which the client does not offer: several times as fast
                    given = [client._build_enqueue_status(_options(run, None), run.job_id, run.number) for run in batch]
                    client._sys_db.init_workflows([status for _, status in given])
                    continue
                with engine.begin() as connection:
                    for run in batch:
                        client.enqueue_in_transaction(connection, _options(run, delay_seconds), run.job_id, run.number)

    def states(self, ids: Iterable[str]) -> dict[str, RunState]:
        """Where each of these runs is; those that were never queued are missing."""
        found: dict[str, RunState] = {}
        for batch in batches(iter(ids), AT_ONCE):
            found |= {state.id: state for state in self._list(workflow_ids=batch)}
        return found

    def held_by(self, worker: str) -> list[RunState]:
        """The runs that a worker has begun and not ended."""
        return self._list(executor_id=worker, status="PENDING")

    def running(self) -> set[int]:
        """The jobs of the runs that some worker has begun and not ended."""
        return {state.job_id for state in self._list(status="PENDING")}

    def waiting(self) -> dict[str, int]:
        """How many runs wait in each queue."""
        counts = dict.fromkeys(QUEUES, 0)
        for state in self._list(status="ENQUEUED"):
            counts[state.queue] = counts.get(state.queue, 0) + 1
        return counts

    def hand_back(self, runs: Iterable[RunState]) -> None:
        """Put runs back into their queues, for any worker to take. Those that have ended stay so."""
        with self._open() as (_, client):
            for run in runs:
                client.resume_workflow(run.id, queue_name=run.queue)

    def cancel(self, ids: Sequence[str]) -> None:
        """Take these runs out of their queues; one that has begun is told by its job."""
        with self._open() as (_, client):
            for batch in batches(iter(ids), AT_ONCE):
                client.cancel_workflows(batch)

    def forget(self, before: datetime) -> int:
        """Remove what is known of up to `AT_ONCE` runs that ended before this moment; how many."""
        with self._open() as (_, client):
            moment = before.isoformat()
            ended = client.list_workflows(completed_before=moment, limit=AT_ONCE, load_input=False, load_output=False)
            if ended:
                client.delete_workflows([run.workflow_id for run in ended])
        return len(ended)

    def make_queues(self, limits: Mapping[str, int]) -> None:
        """Make the queues. `limits`: how many runs of one may begin in a minute, on all machines together."""
        with self._open() as (_, client):
            for name in QUEUES:
                limiter: Any = {"limit": limits[name], "period": 60.0} if limits.get(name) else None
                client.register_queue(name, limiter=limiter, **_QUEUE)

    def schedule(self, times: Mapping[str, str]) -> None:
        """Have recurring work queued at its times (cron), by whichever worker is there: once for all."""
        fixed: Any = {"workflow_name": UPKEEP, "queue_name": UPKEEP}
        entries: Any = [
            {**fixed, "schedule_name": name, "schedule": when, "context": name} for name, when in times.items()
        ]
        with self._open() as (_, client):
            client.apply_schedules(entries)

    def trigger(self, name: str) -> None:
        """Have recurring work done now."""
        with self._open() as (_, client):
            client.trigger_schedule(name)

    def engine(self) -> Engine:
        """The database of the workflow engine, with its tables made."""
        with self._open() as (engine, _):
            return engine

    def close(self) -> None:
        """Close every connection."""
        with self._lock:
            if self._opened:
                engine, client = self._opened
                client.destroy()
                engine.dispose()
                self._opened = None

    @property
    def _in_a_file(self) -> bool:
        return self._database.dialect.name == "sqlite"

    @contextmanager
    def _open(self) -> Iterator[tuple[Engine, DBOSClient]]:
        """The engine's database and its client; what either says is raised as an error of ours."""
        file = str(self._home / FILE) if self._in_a_file else None
        try:
            with self._database.translated(place=file):
                with self._lock:
                    if self._opened is None:
                        self._opened = self._connect()
                yield self._opened
        except ArchiveDamaged as error:
            raise QueueDamaged(**error.details) from error

    def _connect(self) -> tuple[Engine, DBOSClient]:
        from dbos import DBOS, DBOSClient, DBOSPortableJSONSerializer  # slow to import

        quiet()
        engine = self._engine()
        if not self._in_a_file:
            DBOS.migrate(engine.url.render_as_string(hide_password=False))
        client = DBOSClient(
            system_database_engine=engine,
            serializer=DBOSPortableJSONSerializer(),
            application_name=APPLICATION,
            retry_connection_errors=False,
        )
        if self._in_a_file:  # an address would not do: it has no key
            client._sys_db.run_migrations()
        return engine, client

    def _engine(self) -> Engine:
        if self._in_a_file:
            file = self._home / FILE
            opening = sqlcipher.options(file, self._key, BUSY_TIMEOUT_SECONDS)
            engine = create_engine(URL.create("sqlite", database=str(file)), **opening)
            event.listen(engine, "connect", _prepare)
        else:
            engine = self._database.dialect.create()
        reopen_after_fork(engine)
        return engine

    def _list(self, **conditions: Any) -> list[RunState]:
        with self._open() as (_, client):
            found = client.list_workflows(**conditions, load_input=False, load_output=False)
        return [_state(one) for one in found if one.workflow_id.startswith(f"{RUN}:")]  # others recur by themselves


def _state(found: WorkflowStatus) -> RunState:
    _, job_id, number = found.workflow_id.split(":")
    state = STATES.get(found.status)
    until = found.delay_until_epoch_ms if state is JobState.DELAYED else None
    moment = datetime.fromtimestamp(until / 1000, UTC) if until else None
    return RunState(int(job_id), int(number), found.queue_name or "", state, found.executor_id, moment)


def quiet() -> None:
    """Let our own log tell what matters; the engine prints by itself otherwise."""
    import logging

    log = logging.getLogger("dbos")
    if not log.handlers:
        log.addHandler(logging.NullHandler())
    log.setLevel(logging.CRITICAL)


def _options(run: Run, delay_seconds: float | None) -> Any:
    options: dict[str, Any] = {
        "workflow_name": WORKFLOW,
        "workflow_id": run.id,
        "queue_name": run.queue,
        "app_version": FORMAT,
        "priority": run.priority,
    }
    return options if delay_seconds is None else {**options, "delay_seconds": delay_seconds}


def _prepare(connection: Any, _record: Any) -> None:
    """The engine writes often and can lose its last moments: only the order of its commits must hold."""
    connection.isolation_level = "IMMEDIATE"
    for pragma in ("busy_timeout = 30000", "journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")
