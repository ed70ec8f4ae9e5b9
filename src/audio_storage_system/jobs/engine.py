"""Taking runs from their queues and doing them, in this process: the workflow engine with a concurrency per machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

from audio_storage_system.jobs.runs import APPLICATION, FORMAT, UPKEEP, WORKFLOW, Runs, quiet, run_id

# Between two looks at a queue: while there is work, and after a while without.
BUSY_SECONDS, IDLE_SECONDS = 0.01, 0.1
STILL_BUSY_SECONDS = 2.0
# For so long a queue in which nothing was found is taken to be empty: a look costs a commit.
EMPTY_SECONDS = 0.05
# For so long a queue's limits are not read again.
KNOWN_SECONDS = 1.0

Perform = Callable[[int, int], str]
Recur = Callable[[str], str]


class Engine:
    """Does runs of the queues in `concurrency`, so many of each at once. One per process: the workflow engine is."""

    def __init__(self, runs: Runs, worker: str, concurrency: Mapping[str, int], perform: Perform, recur: Recur) -> None:
        self._runs = runs
        self._worker = worker
        self._concurrency = dict(concurrency)
        self._perform = perform
        self._recur = recur
        self._claimed: dict[str, float] = {}  # when a run of each queue was last taken
        self._empty_until: dict[str, float] = {}
        self._taken: dict[str, str] = {}  # the runs that are ours and have not ended, with their queues
        self._begun: set[str] = set()

    def start(self) -> None:
        """Begin to take runs."""
        from dbos import DBOS, DBOSPortableJSONSerializer

        DBOS(
            config={
                "name": APPLICATION,
                "application_version": FORMAT,
                "executor_id": self._worker,
                "system_database_engine": self._runs.engine(),
                "serializer": DBOSPortableJSONSerializer(),
                "enable_otlp": False,
                "run_migrations": False,
                "notification_listener_polling_interval_sec": IDLE_SECONDS,  # how long it takes to stop
            }
        )
        quiet()
        DBOS.workflow(name=WORKFLOW, max_recovery_attempts=None)(self._workflow())
        DBOS.workflow(name=UPKEEP, max_recovery_attempts=None)(self._upkeep())
        DBOS.listen_queues(list(self._concurrency))
        DBOS.launch()
        self._set_concurrency()

    def pause(self) -> None:
        """Take no more runs."""
        self._concurrency = dict.fromkeys(self._concurrency, 0)

    def not_begun(self, ids: Iterable[str]) -> set[str]:
        """Which of these runs, which are ours, nobody is doing."""
        return set(ids) - self._begun

    def drop(self, ids: Iterable[str]) -> None:
        """Know that these runs are not ours any more."""
        for name in ids:
            self._taken.pop(name, None)

    def stop(self) -> None:
        """Take no more runs, and let go of those begun."""
        from dbos import DBOS

        DBOS.destroy(destroy_registry=True)

    def _workflow(self) -> Perform:
        """What the engine calls for each run; it takes no methods."""

        def run(job_id: int, number: int) -> str:
            self._begun.add(name := run_id(job_id, number))
            try:
                return self._perform(job_id, number)
            finally:
                self._begun.discard(name)
                self._taken.pop(name, None)

        return run

    def _upkeep(self) -> Callable[[datetime, str], str]:
        def upkeep(when: datetime, name: str) -> str:
            return self._recur(name)

        return upkeep

    def _set_concurrency(self) -> None:
        """The engine keeps one concurrency for all machines, in its table of queues; each of ours has its own. It reads
        that table before each look at a queue, which is where this comes in; until then the table's counts, none."""
        from dbos._dbos import _get_dbos_instance

        database: Any = _get_dbos_instance()._sys_db
        database.get_queue = self._with_our_concurrency(database.get_queue)
        database.start_queued_workflows = self._noting(database.start_queued_workflows)

    def _with_our_concurrency(self, stored: Callable[..., Any]) -> Callable[..., Any]:
        """The engine's reading of a queue's limits: now and then, and with ours."""
        known: dict[str, tuple[float, Any]] = {}

        def get_queue(name: str, **options: Any) -> Any:
            now = time.monotonic()
            if name not in known or now >= known[name][0]:
                known[name] = now + KNOWN_SECONDS, stored(name, **options)
            queue = known[name][1]
            if queue is not None and name in self._concurrency:
                queue._worker_concurrency = self._concurrency[name]
                queue._polling_interval_sec = self._pause(name)
            return queue

        return get_queue

    def _noting(self, claim: Callable[..., Any]) -> Callable[..., Any]:
        """The engine's look at a queue: not while it is taken to be empty, and noting what it found."""

        def start_queued_workflows(queue: Any, *given: Any, **options: Any) -> Any:
            now = time.monotonic()
            if now < self._empty_until.get(queue.name, 0.0):
                return [], None
            # Whether this is the latest version matters to runs without one, of which there are none.
            executor, version, key, running, *rest = given
            # The engine counts what it has begun; what it has taken may begin a moment later.
            running = max(running, list(self._taken.values()).count(queue.name))
            claimed = claim(queue, executor, version, key, running, *rest, **{**options, "is_latest_version": False})
            self._taken |= dict.fromkeys(claimed[0], queue.name)
            if claimed[0]:
                self._claimed[queue.name] = now
            else:
                self._empty_until[queue.name] = now + EMPTY_SECONDS
            return claimed

        return start_queued_workflows

    def _pause(self, queue: str) -> float:
        busy = time.monotonic() - self._claimed.get(queue, float("-inf")) < STILL_BUSY_SECONDS
        return BUSY_SECONDS if busy else IDLE_SECONDS
