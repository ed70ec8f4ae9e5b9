"""When the vector index follows what is embedded: now and then, for what it has not seen is searched all the same."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

# New embeddings after which the vector index is brought up to date.
FOLLOW_AFTER = 2_000


@dataclass
class Indexing:
    """How many embeddings this process has made since the index last followed."""

    _behind: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def made(self, count: int, follow: Callable[[], None]) -> None:
        """Note new embeddings, and `follow` when there are many."""
        with self._lock:
            self._behind += count
            if self._behind < FOLLOW_AFTER:
                return
            self._behind = 0
        follow()

    def finish(self, follow: Callable[[], None]) -> None:
        """`follow` when there are any that it has not seen."""
        self.made(FOLLOW_AFTER if self._behind else 0, follow)
