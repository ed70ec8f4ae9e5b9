"""Reads are entered together: at most a second after they happened, or when there are a hundred."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from audio_storage_system.audit.entries import Event
from audio_storage_system.errors import AudioStorageSystemError

logger = logging.getLogger(__name__)

WITHIN_SECONDS = 1.0
TOGETHER = 100
# While the database takes no writes, so many are kept for when it does again; of further ones only their number.
MOST_KEPT = 10_000
LOST = "reads.lost"


class Reads:
    """Collects events, and hands them to `write` in groups, from a thread that lives as long as there are any."""

    def __init__(self, write: Callable[[Sequence[Event]], None]) -> None:
        self._write = write
        self.forget()

    def forget(self) -> None:
        """Begin anew: in a process that was forked, what is collected is its parent's to write."""
        self._lock = threading.Lock()  # for what follows
        self._writing = threading.Lock()  # one group after the other
        self._waiting: list[Event] = []
        self._lost = 0
        self._full = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, event: Event) -> None:
        """Collect one."""
        with self._lock:
            if len(self._waiting) >= MOST_KEPT:
                self._lost += 1
                return
            self._waiting.append(event)
            if len(self._waiting) >= TOGETHER:
                self._full.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
                self._thread.start()

    def flush(self) -> None:
        """Write what is collected. Raises what the database says; then they are kept."""
        with self._writing:
            while group := self._take():
                try:
                    self._write(group)
                except BaseException:
                    self._put_back(group)
                    raise

    def _run(self) -> None:
        while True:
            self._full.wait(WITHIN_SECONDS)
            self._flush_or_warn()
            with self._lock:
                if not self._waiting:
                    self._thread = None
                    return

    def _flush_or_warn(self) -> None:
        try:
            self.flush()
        except AudioStorageSystemError as error:
            logger.warning("Reads cannot be entered in the audit log at present, and are kept until then: %s", error)

    def _take(self) -> list[Event]:
        with self._lock:
            group, self._waiting = self._waiting[:TOGETHER], self._waiting[TOGETHER:]
            if len(self._waiting) < TOGETHER:
                self._full.clear()
            if group and self._lost:
                group.append(replace(group[-1], action=LOST, audio_id=None, details={"count": self._lost}))
                self._lost = 0
            return group

    def _put_back(self, group: list[Event]) -> None:
        with self._lock:
            if group[-1].action == LOST:
                self._lost += group.pop().details["count"]
            self._waiting = group + self._waiting
            self._full.clear()  # so that it is tried again after a while
