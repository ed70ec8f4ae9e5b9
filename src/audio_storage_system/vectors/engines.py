"""What a vector database must be able to do for `EngineIndex`, which does all the rest: a handful of verbs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from audio_storage_system.database import Database
from audio_storage_system.vectors.base import Capabilities, Ids, Scope
from audio_storage_system.vectors.stored import Vectors

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Collection:
    """Where a database keeps the vectors of one space: a collection, table or namespace of this name.

    The name begins with `audio_`, the archive's id and the space's, and consists of letters, digits, `-` and `_`. model
    and dimension are recorded with it.
    """

    name: str
    model: str
    dimension: int


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """Embeddings as a database gets them: ids, unit vectors, and what a `Scope` speaks of. Never what was said.

    recorded_at: seconds since 1970.
    """

    ids: Ids
    vectors: Vectors
    owner_ids: Ids
    audio_ids: Ids
    recorded_at: Numbers

    def __len__(self) -> int:
        return len(self.ids)

    def batches(self, size: int) -> Iterator[Points]:
        """The same in order, at most `size` at a time."""
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            yield Points(
                self.ids[part],
                self.vectors[part],
                self.owner_ids[part],
                self.audio_ids[part],
                self.recorded_at[part],
            )


class Found(NamedTuple):
    """Neighbours as a database sees them: the nearest first, similarities as cosines, about right."""

    ids: Ids
    similarities: Vectors

    @classmethod
    def of(cls, ids: list[int], similarities: list[float]) -> Found:
        """From lists."""
        return cls(np.array(ids, dtype=np.int64), np.array(similarities, dtype=np.float32))


NOTHING = Found.of([], [])


def document_filters(scope: Scope) -> list[dict[str, Any]]:
    """The conditions of `scope` as several databases write them: `{"audio_id": {"$in": [1, 2]}}`."""
    parts: list[dict[str, Any]] = [
        {name: {"$in": list(ids)}}
        for name, ids in (("owner_id", scope.owner_ids), ("audio_id", scope.audio_ids))
        if ids is not None
    ]
    if scope.since is not None:
        parts.append({"recorded_at": {"$gte": scope.since.timestamp()}})
    if scope.until is not None:
        parts.append({"recorded_at": {"$lt": scope.until.timestamp()}})
    return parts


class VectorEngine(ABC):
    """One vector database at one address. Safe to share between threads, and to use from several processes at once.

    Every method raises `VectorIndexUnavailable`, within seconds, when the database cannot be reached or refuses, and
    `NotFound` when the collection is not there. No error and no log line contains a secret.

    address: how the catalogue calls this index: without secrets, the same from every process.
    """

    address: str
    capabilities: Capabilities

    @abstractmethod
    def names(self, prefix: str) -> set[str]:
        """The collections whose name begins with `prefix`."""

    @abstractmethod
    def ensure(self, collection: Collection) -> None:
        """Make the collection unless it is there. Raises `VectorIndexMismatch` when it is, but for another model or
        dimension."""

    @abstractmethod
    def upsert(self, collection: Collection, points: Points) -> None:
        """Put these in, at most `max_batch`, over what has the same id. When it returns, searches find them."""

    @abstractmethod
    def delete(self, collection: Collection, ids: Ids) -> None:
        """Take these out, at most `max_batch`; those that are not there do not matter."""

    @abstractmethod
    def search(self, collection: Collection, vector: Vectors, limit: int, scope: Scope) -> Found:
        """The `limit` nearest inside `scope`, at most `max_results`; fewer only when there are no more."""

    def compare(self, collection: Collection, vector: Vectors, ids: Ids, limit: int, scope: Scope) -> Found:
        """The `limit` nearest of these embeddings, all inside `scope` and at most `capabilities.compares`; those that
        are not there are left out. Only asked of a database that says it compares any."""
        raise NotImplementedError

    @abstractmethod
    def count(self, collection: Collection) -> int:
        """How many there are."""

    @abstractmethod
    def ids(self, collection: Collection) -> Iterator[Ids]:
        """The id of every point, in batches, in any order; what is written meanwhile may be among them or not."""

    @abstractmethod
    def drop(self, name: str) -> None:
        """Remove a collection with everything in it, if it is there."""

    def asks_only(self, database: Database) -> bool:
        """Whether `search` reads this database and nothing else: it may then be part of a `snapshot` of it."""
        return False

    def settle(self, collection: Collection, *, deleted: bool) -> None:
        """Called when the collection has caught up: make searches fast, and what was deleted gone from the disk."""

    def close(self) -> None:
        """Let go of connections and files."""
