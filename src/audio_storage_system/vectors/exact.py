"""The oracle: every vector that passes is compared. For tests, and for where no index can be written."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from audio_storage_system.clock import Deadline
from audio_storage_system.database import Database
from audio_storage_system.records import Space
from audio_storage_system.vectors import stored
from audio_storage_system.vectors.base import Candidates, Capabilities, IndexState, Match, VectorIndex

BATCH_ROWS = 2048


class ExactIndex(VectorIndex):
    """Reads the whole space for every query; holds nothing, so there is nothing to follow or to rebuild."""

    name = "exact"
    capabilities = Capabilities(exact=True, persistent=False)

    def __init__(self, database: Database) -> None:
        self._database = database

    def query(
        self, space: Space, vector: npt.NDArray[np.float32], *, limit: int, within: Candidates, deadline: Deadline
    ) -> list[Match]:
        vector = stored.checked(space, vector)
        best: list[Match] = []
        with self._database.read(deadline) as connection:
            every = stored.ids_of(connection, space).tolist()
        for start in range(0, len(every), BATCH_ROWS):
            deadline.check()
            passing = sorted(within.admit(every[start : start + BATCH_ROWS]))
            with self._database.read(deadline) as connection:
                ids, vectors = stored.read(connection, space, passing)
            best += stored.nearest(ids, stored.cosines(vectors, vector), limit)
            best = sorted(best, key=lambda match: (-match.similarity, match.embedding_id))[:limit]
        return best

    def catch_up(self, space: Space) -> IndexState:
        return self.state(space)

    def rebuild(self, space: Space) -> IndexState:
        return self.state(space)

    def state(self, space: Space) -> IndexState:
        with self._database.read() as connection:
            total = stored.count(connection, space)
        return IndexState(total, total)
