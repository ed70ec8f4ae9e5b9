"""Which workers live: each gives a sign of life, and others take over from one that gives none."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata

from audio_storage_system.catalogue.workers import WorkerRow
from audio_storage_system.machine import process_is_gone

BEAT_SECONDS = 5.0
# So long without a sign of life, and a worker is dead.
DEAD_AFTER_SECONDS = 20.0


@dataclass
class Watch:
    """Watches the signs of life of other workers by this process's own clock, which never jumps: their wall clocks may
    be wrong, and so may ours."""

    clock: Callable[[], float] = time.monotonic
    _seen: dict[int, tuple[int, float]] = field(default_factory=dict)

    def dead(self, rows: list[WorkerRow]) -> list[WorkerRow]:
        """Those of these workers that are known to be dead by now."""
        now = self.clock()
        seen = {row.id: self._seen.get(row.id, (row.beats, now)) for row in rows}
        self._seen = {row.id: seen[row.id] if seen[row.id][0] == row.beats else (row.beats, now) for row in rows}
        return [row for row in rows if now - self._seen[row.id][1] >= DEAD_AFTER_SECONDS or is_gone(row)]


def is_gone(row: WorkerRow) -> bool:
    """Whether a worker's process is known not to exist: only where its processes are ours to see."""
    return process_is_gone(row.place, row.process)


def version() -> str:
    """The version of this program."""
    return metadata.version("audio-storage-system")


def host() -> str:
    """This machine's name."""
    return socket.gethostname()
