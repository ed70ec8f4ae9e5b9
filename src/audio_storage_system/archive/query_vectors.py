"""The vectors of the latest queries: people page through results and refine filters with the same words."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

from audio_storage_system.embedders import TextEmbedder, Vector

# 1,000 vectors of 384 numbers are 1.5 MB.
MOST_VECTORS = 1_000
LONGEST_TEXT = 1_000


class QueryVectors:
    """Bounded, of one process and one archive. What one principal asked is never used for another's question."""

    def __init__(self, most: int = MOST_VECTORS) -> None:
        self._most = most
        # The embedder is kept with its vectors, so that no other one is taken for it.
        self._known: OrderedDict[tuple[Hashable, int, str], tuple[TextEmbedder, Vector | None]] = OrderedDict()
        self._lock = threading.Lock()

    def get(
        self, who: Hashable, embedder: TextEmbedder, text: str, embed: Callable[[], Vector | None]
    ) -> Vector | None:
        """The vector of `text`, made with `embed` unless it is known."""
        key = who, id(embedder), text
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key][1]
        vector = embed()
        if len(text) <= LONGEST_TEXT:
            with self._lock:
                self._known[key] = embedder, vector
                if len(self._known) > self._most:
                    self._known.popitem(last=False)
        return vector
