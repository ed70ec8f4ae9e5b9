"""When a delivery is tried again, and when a webhook is given up: pure functions of what has happened."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from random import random

# Before the second try, the third …, in seconds: eight tries in most of a day.
WAITS = (5.0, 30.0, 300.0, 1_800.0, 7_200.0, 21_600.0, 50_400.0)
TRIES = len(WAITS) + 1
# A wait is up to so much shorter or longer, so that what failed together does not come together again.
JITTER = 0.2
# A webhook of which no call was answered well for so long is called no more.
DISABLED_AFTER = timedelta(days=5)
# Whoever sends a delivery has it for so long, which is longer than a call takes.
LEASE = timedelta(seconds=60)
GONE = 410  # the receiver says that it wants no more, see Standard Webhooks


def wait_after(tries: int, draw: Callable[[], float] = random) -> timedelta | None:
    """How long to wait after so many tries that failed; `None`: give up. `draw` gives 0…1."""
    if tries >= TRIES:
        return None
    return timedelta(seconds=WAITS[tries - 1] * (1 - JITTER + 2 * JITTER * draw()))


def is_hopeless(failing_since: datetime, now: datetime, status: int | None) -> bool:
    """Whether a webhook that has been failing is to be called no more."""
    return status == GONE or now - failing_since >= DISABLED_AFTER
