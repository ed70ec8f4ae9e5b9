"""Time: the current instant in UTC, places in a recording, and deadlines."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone

from audio_storage_system.errors import AudioStorageSystemError, Cancelled, DeadlineExceeded

MOST_DAYS = 36_500
"""The longest term that anything may be kept for: a hundred years."""


def utc_now() -> datetime:
    """The current instant, aware, in UTC."""
    return datetime.now(UTC)


def mm_ss(seconds: float) -> str:
    """A place in a recording as people read it: `mm:ss`, from an hour on `h:mm:ss`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"


def clock_time(recorded_at: datetime, offset_minutes: int | None, seconds: float = 0.0) -> datetime:
    """The clock time at a place in a recording, in its own zone where that is known."""
    try:
        moment = recorded_at + timedelta(seconds=seconds)
        return moment if offset_minutes is None else moment.astimezone(timezone(timedelta(minutes=offset_minutes)))
    except OverflowError:  # a file may say that it was recorded at the end of time
        return recorded_at


class Cancellation:
    """Ends a call from another thread: what was given this stops as soon as `cancel` is called, and raises `Cancelled`.

    Safe to share between threads; one may end several calls.
    """

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._waiting: list[Callable[[], None]] = []

    def cancel(self) -> None:
        """End what goes on; it raises `Cancelled`. What begins afterwards ends at once."""
        with self._lock:
            if not self._event.is_set():
                self._event.set()
                for call in self._waiting:
                    call()

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._event.is_set()

    @contextmanager
    def calling(self, call: Callable[[], None]) -> Iterator[None]:
        """Have `call` called, once and in the thread of who cancels, if that happens in the block: for what waits
        elsewhere. It raises nothing. It is not called any more once the block has ended."""
        with self._lock:
            self._waiting.append(call)
            if self._event.is_set():
                call()
        try:
            yield
        finally:
            with self._lock:
                self._waiting.remove(call)


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point in monotonic time by which a call must have answered; with a `cancellation` it may come earlier.

    Work that can be long calls `check()` between its parts; the database is told through `expired` and `stopping`.
    """

    seconds: float
    at: float
    cancellation: Cancellation | None = None

    @classmethod
    def after(cls, seconds: float | None, cancellation: Cancellation | None = None) -> Deadline:
        """A deadline this many seconds from now; `None` means never."""
        span = float("inf") if seconds is None else float(seconds)
        return cls(span, time.monotonic() + span, cancellation)

    @property
    def ends(self) -> bool:
        """Whether it can come at all."""
        return self.timed or self.cancellation is not None

    @property
    def timed(self) -> bool:
        """Whether it comes by itself."""
        return self.seconds != float("inf")

    @property
    def cancelled(self) -> bool:
        """Whether it was brought about."""
        return self.cancellation is not None and self.cancellation.cancelled

    @property
    def expired(self) -> bool:
        """Whether it has come."""
        return time.monotonic() >= self.at or self.cancelled

    @property
    def left(self) -> float:
        """Seconds until it comes by itself: 0 once it has, infinite where it never does."""
        return max(0.0, self.at - time.monotonic())

    @property
    def error(self) -> AudioStorageSystemError:
        """What to raise when it has come: `DeadlineExceeded`, or `Cancelled`."""
        return Cancelled() if self.cancelled else DeadlineExceeded(seconds=self.seconds)

    def check(self) -> None:
        """Raise `DeadlineExceeded` once the time is up, `Cancelled` once it was brought about."""
        if self.expired:
            raise self.error

    def earlier(self, other: Deadline) -> Deadline:
        """Whichever of the two comes first; this one, of equals."""
        first = other if other.at < self.at else self
        cancellation = self.cancellation or other.cancellation
        return first if first.cancellation is cancellation else replace(first, cancellation=cancellation)

    @contextmanager
    def stopping(self, call: Callable[[], None]) -> Iterator[None]:
        """Have `call` called if it is brought about in the block, see `Cancellation.calling`."""
        if self.cancellation is None:
            yield
            return
        with self.cancellation.calling(call):
            yield


NEVER = Deadline.after(None)
