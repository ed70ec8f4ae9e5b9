"""The oracle: every vector that passes is compared. For tests, and for where no index can be written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from audio_storage_system.clock import Deadline
from audio_storage_system.database import Database
from audio_storage_system.records import Space
from audio_storage_system.vectors import stored
from audio_storage_system.vectors.base import Candidates, Capabilities, IndexState, Match, VectorIndex

BATCH_ROWS = 2048


@dataclass(frozen=True)
class Comparison:
    """Compares embeddings of one space with a unit vector, reading them from the catalogue."""

    database: Database
    space: Space
    vector: stored.Vectors
    limit: int
    within: Candidates
    deadline: Deadline

    def best_of(self, ids: Sequence[int]) -> list[Match]:
        """The best of these that pass and exist: highest similarity first, ties by id."""
        best: list[Match] = []
        for start in range(0, len(ids), BATCH_ROWS):
            self.deadline.check()
            best = self.merged(best, self.of_passing(self.within.admit(ids[start : start + BATCH_ROWS])))
        return best

    def best_of_all(self) -> list[Match]:
        """The best of the whole space."""
        with self.database.read(self.deadline) as connection:
            every = stored.ids_of(connection, self.space).tolist()
        return self.best_of(every)

    def of_passing(self, ids: Iterable[int]) -> list[Match]:
        """The best of these, which are known to pass."""
        with self.database.read(self.deadline) as connection:
            found, vectors = stored.read(connection, self.space, sorted(ids))
        return stored.nearest(found, stored.cosines(vectors, self.vector), self.limit)

    def merged(self, *parts: list[Match]) -> list[Match]:
        """The best of several such lists, each embedding once."""
        every = {match.embedding_id: match for part in parts for match in part}
        return sorted(every.values(), key=lambda match: (-match.similarity, match.embedding_id))[: self.limit]


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
        return Comparison(self._database, space, vector, limit, within, deadline).best_of_all()

    def follow(self, space: Space) -> None:
        pass

    def rebuild(self, space: Space) -> IndexState:
        return self.state(space)

    def forget(self, space: Space) -> None:
        """It holds nothing."""

    def state(self, space: Space) -> IndexState:
        with self._database.read() as connection:
            total = stored.count(connection, space)
        return IndexState(total, total)
