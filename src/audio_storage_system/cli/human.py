"""Numbers, sizes and times as people read them."""

from __future__ import annotations

import math
from datetime import datetime, timedelta, timezone

from audio_storage_system.clock import mm_ss


def clock(seconds: float | None) -> str:
    """`mm:ss`, from an hour on `h:mm:ss`; empty for `None`."""
    return "" if seconds is None or math.isnan(seconds) else mm_ss(seconds)


def size(count: float) -> str:
    """Bytes in the unit that suits them: `1.5 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def moment(when: datetime, offset_minutes: int | None = None) -> str:
    """A time to the second, with its offset from UTC where one is given."""
    local = when.astimezone(timezone(timedelta(minutes=offset_minutes or 0)))
    return f"{local:%Y-%m-%d %H:%M:%S} " + (f"{local:%z}" if offset_minutes else "UTC")


def count(number: int, noun: str) -> str:
    """`1 file`, `2 files`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def shortened(text: str, length: int) -> str:
    """`text` on one line, cut to `length` characters."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"
