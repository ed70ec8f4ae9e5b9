"""How often somebody may ask: a token bucket for each, which holds a minute's worth."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict

REMEMBERED = 10_000


class Rates:
    """Counts in this process. per_minute: requests of each; 0 for any number. Safe to share between threads."""

    def __init__(self, per_minute: int) -> None:
        self._rate, self._most = per_minute / 60, float(per_minute)
        self._buckets: OrderedDict[object, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def wait(self, who: object) -> float:
        """The seconds until somebody may ask again, without counting anything."""
        with self._lock:
            left, at = self._buckets.get(who, (self._most, time.monotonic()))
        left += (time.monotonic() - at) * self._rate
        return 0.0 if left >= 1 or not self._rate else (1 - left) / self._rate

    def take(self, who: object) -> float:
        """Count a request; 0.0 where it may be answered, else the seconds until the next one may."""
        if not self._rate:
            return 0.0
        now = time.monotonic()
        with self._lock:
            left, at = self._buckets.pop(who, (self._most, now))
            left = min(self._most, left + (now - at) * self._rate)
            admitted = left >= 1
            self._buckets[who] = (left - admitted, now)
            while len(self._buckets) > REMEMBERED:
                self._buckets.popitem(last=False)
        return 0.0 if admitted else (1 - left) / self._rate
