"""What a vector index must do. An index is derived data: the catalogue holds the truth, the index follows it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from audio_storage_system.clock import Deadline
from audio_storage_system.database import Database
from audio_storage_system.records import Space

Ids: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Scope:
    """What must hold for an embedding to pass, as far as it depends on what an embedding never changes: whose recording
    it belongs to, which one, and when that was recorded (`since` ≤ recorded_at < `until`). `None` sets no limit.

    Necessary, not sufficient: whatever lies inside must still be asked of `Candidates.admit`. share: about how much of
    the whole space passes, where that is known; 1 says nothing.
    """

    owner_ids: tuple[int, ...] | None = None
    audio_ids: tuple[int, ...] | None = None
    since: datetime | None = None
    until: datetime | None = None
    share: float = 1.0

    @property
    def limits(self) -> bool:
        """Whether there is anything to limit to."""
        return any(part is not None for part in (self.owner_ids, self.audio_ids, self.since, self.until))

    @property
    def empty(self) -> bool:
        """Whether nothing can lie inside."""
        return self.owner_ids == () or self.audio_ids == ()


class Candidates(Protocol):
    """Which embeddings a search may return: access, active transcript and the caller's filter, as one question.

    It acts as if applied before the neighbours: an index never returns fewer than `limit` matches while more embeddings
    pass.
    """

    def ids(self, limit: int) -> Ids | None:
        """Every embedding id that passes, ascending, when there are at most `limit`; otherwise `None`."""

    def admit(self, ids: Sequence[int]) -> set[int]:
        """Those of `ids` that pass."""

    def scope(self) -> Scope:
        """What an index can leave out by itself, for certain."""


@dataclass(frozen=True, slots=True)
class Match:
    """One neighbour: the embedding's id and its true cosine with the query."""

    embedding_id: int
    similarity: float


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an index can do, as data.

    exact: it compares everything. persistent: it outlives the process. filters: the database it asks leaves out by
    itself what is outside a `Scope`. max_batch: vectors in one request. max_results: neighbours in one answer.
    max_dimension: longer vectors are compared exactly. counts: it knows at once how many vectors it holds. precision:
    how far its similarities may be from the true ones; among nearer ones its order means nothing. compares: so many
    given embeddings at once, faster than the catalogue hands their vectors over. worth_filtering: of a filter that lets
    a greater share pass, it finds more per second by being asked without it.
    """

    exact: bool = False
    persistent: bool = True
    filters: bool = False
    max_batch: int = 1_000
    max_results: int = 1_000_000
    max_dimension: int = 1_000_000
    counts: bool = True
    precision: float = 1e-4
    compares: int = 0
    worth_filtering: float = 1.0
    metrics: tuple[str, ...] = ("cosine",)


@dataclass(frozen=True, slots=True)
class IndexState:
    """How far an index has followed the catalogue: `indexed` of `total` embeddings of the space."""

    indexed: int
    total: int


@dataclass(frozen=True, slots=True, eq=False)
class Difference:
    """What an index has other than the catalogue: embeddings that it lacks though it has read past them, embeddings
    that are not there (any more), and what else is wrong with it."""

    missing: Ids = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    surplus: Ids = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    reason: str = ""

    def __bool__(self) -> bool:
        return bool(len(self.missing) or len(self.surplus) or self.reason)

    def still(self, later: Difference) -> Difference:
        """What was so before, and is so at a `later` look as well."""
        missing, surplus = np.intersect1d(self.missing, later.missing), np.intersect1d(self.surplus, later.surplus)
        return Difference(missing, surplus, self.reason and later.reason)


class VectorIndex(ABC):
    """Nearest neighbours by cosine over the embeddings of an archive, one space at a time."""

    name: str
    capabilities: Capabilities

    @abstractmethod
    def query(
        self, space: Space, vector: npt.NDArray[np.float32], *, limit: int, within: Candidates, deadline: Deadline
    ) -> list[Match]:
        """Best first, ties by ascending id. Embeddings not indexed yet are searched exactly, so none is ever missed.

        Raises `InvalidVector` for a vector of another dimension, `DeadlineExceeded`.
        """

    @abstractmethod
    def follow(self, space: Space) -> None:
        """Follow the catalogue to its present state; safe to call from several processes at once. It takes as long as
        what is new, however large the space."""

    def catch_up(self, space: Space) -> IndexState:
        """`follow`, and how far that got, which takes counting the space."""
        self.follow(space)
        return self.state(space)

    @abstractmethod
    def rebuild(self, space: Space) -> IndexState:
        """Drop what is derived for `space` and make it anew. Searches go on meanwhile."""

    @abstractmethod
    def forget(self, space: Space) -> None:
        """Remove for good what is derived for `space`, which is to be freed; can be repeated. Until it is followed
        again searches compare exactly. Raises `VectorIndexUnavailable` where it cannot be removed now."""

    @abstractmethod
    def state(self, space: Space) -> IndexState:
        """How far the index is, without doing anything."""

    def differences(self, space: Space, *, deep: bool = False) -> Difference:
        """How the index differs from the catalogue, as far as it has followed it; with `deep` also in what it holds of
        each vector. Writes nothing. While others write, a second look tells what only was under way."""
        return Difference()

    def lag(self, space: Space) -> IndexState | None:
        """`state`, where searches have to make up for what is not indexed yet; `None`, at next to no cost, where they
        need not."""
        return None

    def asks_only(self, database: Database) -> bool:
        """Whether `query` and `lag` read this database and nothing else, and write nothing within a `snapshot` of it: a
        search may then be one."""
        return False

    def prepare(self, space: Space, deadline: Deadline) -> None:
        """Do what `query` would write first, before it is part of a `snapshot`."""

    def close(self) -> None:
        """Let go of connections and files."""
