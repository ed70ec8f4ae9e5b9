"""How fast sound may come in."""

from __future__ import annotations

import time
from collections.abc import Callable

from audio_storage_system.server.live.limits import BURST_SECONDS, FASTEST


class Pace:
    """A token bucket that holds `burst` seconds of sound and fills `fastest` times as
    fast as time passes."""

    def __init__(
        self, fastest: float = FASTEST, burst: float = BURST_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._fastest, self._burst, self._clock = fastest, burst, clock
        self._left, self._at = burst, clock()

    def wait_for(self, seconds: float) -> float:
        """Count so much sound; for how long to wait before there may be more."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._at) * self._fastest) - seconds
        self._at = now
        return max(0.0, -self._left / self._fastest)
