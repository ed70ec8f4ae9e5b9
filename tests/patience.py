"""Waiting in tests for what is to happen, instead of for a while."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Held = TypeVar("Held")


def until(holds: Callable[[], Held], seconds: float = 30.0) -> Held:
    """What this gives, as soon as it is true; the test fails where it is not within so many seconds."""
    end = time.monotonic() + seconds
    while not (held := holds()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
    return held
