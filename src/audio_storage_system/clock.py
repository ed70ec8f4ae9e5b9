"""Time: the current instant in UTC, places in a recording, and deadlines."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

from audio_storage_system.errors import DeadlineExceeded


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


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point in monotonic time by which a call must have answered.

    Work that can be long calls `check()` between its parts; the database is told through `expired`.
    """

    seconds: float
    at: float

    @classmethod
    def after(cls, seconds: float | None) -> Deadline:
        """A deadline this many seconds from now; `None` means never."""
        span = float("inf") if seconds is None else float(seconds)
        return cls(span, time.monotonic() + span)

    @property
    def expired(self) -> bool:
        return time.monotonic() >= self.at

    def check(self) -> None:
        """Raise `DeadlineExceeded` once the time is up."""
        if self.expired:
            raise DeadlineExceeded(seconds=self.seconds)


NEVER = Deadline.after(None)
