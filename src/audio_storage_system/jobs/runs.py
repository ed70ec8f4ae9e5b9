"""Runs: single attempts at a step of a job, as the workflow engine (DBOS) hands them to workers.

The engine's tables hold numbers, names of steps and codes, and nothing of what was said: they lie in `jobs.db` beside a
SQLite catalogue, in the schema `dbos` of a PostgreSQL one. They can be lost without loss: the sweep queues again what
the catalogue says is unfinished.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Engine, create_engine, event

from audio_storage_system.database import Database
from audio_storage_system.pipeline import batches
from audio_storage_system.records import Job, JobState

if TYPE_CHECKING:
    from dbos import DBOSClient

APPLICATION = "audio-storage"
# What a run's arguments mean. A worker takes only runs of its own format, so that an older one leaves new ones alone.
FORMAT = "1"
WORKFLOW = "run_of_job"
UPKEEP = "upkeep"
QUEUES = ("transcribe", "embed", "remote", "upkeep")
FILE = "jobs.db"
# Between two looks at a queue, where nobody says otherwise.
LOOK_SECONDS = 0.05
AT_ONCE = 1_000
# Room between the priorities for the turns of everybody's jobs: the engine knows one number, up to 2**31.
TURNS = 700_000_000
STATES = {"ENQUEUED": JobState.WAITING, "DELAYED": JobState.DELAYED, "PENDING": JobState.RUNNING}


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
        return f"job:{self.job_id}:{self.number}"


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
        return f"job:{self.job_id}:{self.number}"


class Runs:
    """The queued and running runs of an archive. Safe to share between threads; nothing is opened until it is used."""

    def __init__(self, database: Database, home: Path) -> None:
        self._database = database
        self._home = home
        self._lock = threading.Lock()
        self._opened: tuple[Engine, DBOSClient] | None = None

    def enqueue(self, runs: Sequence[Run], delay_seconds: float | None = None) -> None:
        """Queue these runs, all or none. One that is there already stays as it is."""
        engine, client = self._open()
        for batch in batches(iter(runs), AT_ONCE):
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
        return list(self._list(executor_id=worker, status="PENDING"))

    def waiting(self) -> dict[str, int]:
        """How many runs wait in each queue."""
        counts = dict.fromkeys(QUEUES, 0)
        for state in self._list(status="ENQUEUED"):
            counts[state.queue] = counts.get(state.queue, 0) + 1
        return counts

    def hand_back(self, runs: Iterable[RunState]) -> None:
        """Put runs back into their queues, for any worker to take. Those that have ended stay so."""
        for run in runs:
            self._client.resume_workflow(run.id, queue_name=run.queue)

    def cancel(self, ids: Sequence[str]) -> None:
        """Take these runs out of their queues; one that has begun is told by its job."""
        for batch in batches(iter(ids), AT_ONCE):
            self._client.cancel_workflows(batch)

    def forget(self, before: datetime) -> int:
        """Remove what is known of runs that ended before this moment; how many."""
        ended = self._client.list_workflows(
            completed_before=before.isoformat(), limit=AT_ONCE, load_input=False, load_output=False
        )
        if ended:
            self._client.delete_workflows([run.workflow_id for run in ended])
        return len(ended)

    def limit(self, queue: str, per_minute: int) -> None:
        """Begin at most so many runs of a queue in a minute, on all machines together; 0: no limit."""
        limiter: Any = {"limit": per_minute, "period": 60.0} if per_minute else None
        self._client.register_queue(queue, limiter=limiter, polling_interval_sec=LOOK_SECONDS)

    def schedule(self, times: Mapping[str, str]) -> None:
        """Have recurring work queued at its times (cron), by whichever worker is there: once for all."""
        self._client.apply_schedules(
            [
                {
                    "schedule_name": name,
                    "workflow_name": UPKEEP,
                    "schedule": when,
                    "context": name,
                    "queue_name": UPKEEP,
                }
                for name, when in times.items()
            ]
        )

    def trigger(self, name: str) -> None:
        """Have recurring work done now."""
        self._client.trigger_schedule(name)

    def engine(self) -> Engine:
        """The database of the workflow engine, with its tables made."""
        return self._open()[0]

    def close(self) -> None:
        """Close every connection."""
        with self._lock:
            if self._opened:
                engine, client = self._opened
                client.destroy()
                engine.dispose()
                self._opened = None

    @property
    def _client(self) -> DBOSClient:
        return self._open()[1]

    def _open(self) -> tuple[Engine, DBOSClient]:
        with self._lock:
            if self._opened is None:
                self._opened = self._connect()
            return self._opened

    def _connect(self) -> tuple[Engine, DBOSClient]:
        from dbos import DBOS, DBOSClient, DBOSPortableJSONSerializer  # slow to import

        quiet()
        engine = self._engine()
        DBOS.migrate(engine.url.render_as_string(hide_password=False))
        client = DBOSClient(
            system_database_engine=engine,
            serializer=DBOSPortableJSONSerializer(),
            application_name=APPLICATION,
            retry_connection_errors=False,
        )
        return engine, client

    def _engine(self) -> Engine:
        if self._database.dialect.name != "sqlite":
            return self._database.dialect.create()
        engine = create_engine(URL.create("sqlite", database=str(self._home / FILE)))
        event.listen(engine, "connect", _prepare)
        return engine

    def _list(self, **conditions: Any) -> Iterator[RunState]:
        for found in self._client.list_workflows(**conditions, load_input=False, load_output=False):
            kind, _, numbers = found.workflow_id.partition(":")
            if kind != "job":  # recurring work, which comes again by itself
                continue
            job_id, number = numbers.split(":")
            state = STATES.get(found.status)
            until = found.delay_until_epoch_ms if state is JobState.DELAYED else None
            moment = datetime.fromtimestamp(until / 1000, UTC) if until else None
            yield RunState(int(job_id), int(number), found.queue_name or "", state, found.executor_id, moment)


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
