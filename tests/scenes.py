"""An archive, and real processes that work on it until something is done to them."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import working
from audio_storage_system import AudioStorageSystem
from audio_storage_system.records import Job
from catalogues import database_url, plain_sql
from working import BATCH, Plan, Told, ended, kill, start

KILLED = -signal.SIGKILL
# Who wrote something, or keeps others off. DBOS's locks of its own housekeeping are not waited for.
HELD = """SELECT pid FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE datname = current_database()
    AND pid <> pg_backend_pid() AND locktype IN ('transactionid', 'advisory') AND query NOT LIKE '%pg_try_advisory%'"""


@dataclass
class Scene:
    """An archive at `home`, and the processes that work on it. A failure tells what was done to them."""

    home: Path
    expected: dict[str, Told]
    scratch: Path
    environment: dict[str, str] | None = None  # of the processes; that of this one at the time
    killed: list[str] = field(default_factory=list)
    running: list[Any] = field(default_factory=list)

    def plan(self, **further: Any) -> Plan:
        names = {name: str(self.scratch / name) for name in ("heard", "most", "told")}
        return Plan(str(self.home), self.environment or dict(os.environ), **{**names, **further})

    def start(self, **further: Any) -> Any:
        process = start(self.plan(**further))
        self.running.append(process)
        return process

    def submit(self, *files: Path) -> list[Job]:
        with AudioStorageSystem(self.home, transcriber="scripted") as storage:
            return [storage.submit(path, metadata={"name": path.name}) for path in files]

    def kill(self, process: Any, why: str) -> None:
        self.killed.append(why)
        kill(process)

    def die(self, point: str, times: int, **further: Any) -> None:
        """A worker that dies there."""
        assert ended(self.start(die_at=(point, times), **further)) == KILLED, f"it never came to {point} {times}"
        self.killed.append(f"{point} {times}")

    def finish(self, **further: Any) -> None:
        """One more worker, which does what is left."""
        assert ended(self.start(**further)) == 0

    def check(self, names: Sequence[str] | None = None) -> None:
        working.check(self.home, self.expected, names)
        again = working.heard_again(self.scratch / "heard")
        assert again <= BATCH * len(self.killed), f"{again} windows were heard again after {self.killed}"

    def events(self) -> list[str]:
        """What the workers have told of, in order."""
        path = self.scratch / "told"
        return [line.split(" ", 2)[2] for line in path.read_text().splitlines()] if path.exists() else []

    def wait_for(self, what: Callable[[], object], seconds: float = 60.0) -> None:
        until = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < until, self.events()
            time.sleep(0.02)

    def waiting(self) -> int:
        """How often a worker could not go on by now."""
        return sum(event.startswith("waiting") for event in self.events())

    def heard(self) -> int:
        path = self.scratch / "heard"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def hold_after(self, windows: int) -> None:
        """Have workers wait in the window after so many."""
        (self.scratch / "most").write_text(str(windows))

    def go_on(self) -> None:
        """Have them go on."""
        (self.scratch / "most").unlink()

    def put_to_sleep(self, process: Any) -> None:
        """Stop a process at a moment at which it holds no lock."""
        for _ in range(60):
            os.kill(process.pid, signal.SIGSTOP)
            if not is_locked(self.home):
                return
            os.kill(process.pid, signal.SIGCONT)
            time.sleep(random.uniform(0.5, 1.5))  # what was to be done meanwhile is done
        raise AssertionError("it always holds one")

    def close(self) -> None:
        for process in self.running:
            if process.is_alive():
                kill(process)


def is_locked(home: Path, seconds: float = 1.0) -> bool:
    """Whether the databases of an archive are in somebody's hands for so long."""
    if database_url(home):
        return all(plain_sql(home, HELD) != [] and not time.sleep(0.1) for _ in range(int(seconds / 0.1)))
    try:
        for file in home.glob("*.db"):
            with closing(sqlite3.connect(file, seconds)) as connection:
                connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError:
        return True
    return False
