"""One search over one view: from codes, to the embeddings that pass, to their true cosines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from audio_storage_system.clock import Deadline
from audio_storage_system.database import Database
from audio_storage_system.records import Space
from audio_storage_system.vectors import stored
from audio_storage_system.vectors.base import Candidates, Ids, Match
from audio_storage_system.vectors.codes import Coding, Positions, closest, estimate, scan
from audio_storage_system.vectors.stored import Vectors
from audio_storage_system.vectors.views import NO_IDS, View

# How many embeddings are asked about first, to learn how many pass.
SAMPLE = 128
# No share is taken to be smaller: a sample that small says no more.
LEAST_SHARE = 0.02
# How many of the closest codes are put into a finer order first, at least: that many, or this share of all.
WINDOW, WINDOW_SHARE = 4000, 0.005
# How many that pass are compared exactly first; and how many per match wanted.
FIRST, FIRST_PER_MATCH = 64, 2
# Listing one embedding that passes takes about a twentieth of the time of asking about one.
LISTING_GAIN = 20
# All that pass are listed if there are no more than this; and after so many were asked about, nearly all in vain.
LISTED = 20_000
PATIENCE = 20_000
# Whoever is asked may bind each id as a parameter, of which SQLite takes 32,766.
MOST_ASKED = 10_000
EVERYTHING = 2**40

NO_NUMBERS: Vectors = np.empty(0, dtype=np.float32)
# Embeddings and the cosines that their codes let expect, the highest first.
Ranked: TypeAlias = tuple[Ids, Vectors]


@dataclass(frozen=True, slots=True)
class Precision:
    """When to stop comparing: once the next estimate, raised by `confidence` standard deviations of the errors of those
    before, is below the worst match wanted; at the latest after `most`.

    Measured on 86,752 sentences with wordllama: of the ten nearest, 2 finds .984, 2.5 .993 and 3 .997, comparing 99,
    150 and 261 on average. A fixed number is slower where it is easy, and finds hardly any with a filter against the
    query.
    """

    confidence: float = 3.0
    most: int = 10_000


DEFAULT_PRECISION = Precision()


@dataclass(slots=True, eq=False)
class Compared:
    """What was compared exactly so far, to find the best `limit`."""

    limit: int
    precision: Precision
    ids: Ids = field(default_factory=NO_IDS.copy)
    cosines: Vectors = field(default_factory=NO_NUMBERS.copy)
    errors: Vectors = field(default_factory=NO_NUMBERS.copy)

    @property
    def step(self) -> int:
        """How many to compare next."""
        done = len(self.ids)
        return max(FIRST, done // 2) if done else max(FIRST, FIRST_PER_MATCH * self.limit)

    def add(self, ids: Ids, cosines: Vectors, estimates: Vectors) -> None:
        """Note what was compared, with what its codes let expect."""
        self.ids = np.concatenate([self.ids, ids])
        self.cosines = np.concatenate([self.cosines, cosines])
        self.errors = np.concatenate([self.errors, cosines - estimates])

    def suffices_at(self, estimate: float) -> bool:
        """Whether no embedding with this estimate or a lower one can be expected among the best."""
        if len(self.ids) < self.limit:
            return False
        worst = float(np.partition(self.cosines, -self.limit)[-self.limit])
        # Those compared were expected among the best, so their estimates are rather too high: others are not lower.
        hope = max(0.0, float(self.errors.mean())) + self.precision.confidence * float(self.errors.std())
        return estimate + hope <= worst or len(self.ids) >= self.precision.most


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """One query: the `limit` embeddings of `space` nearest to the unit vector `vector` among those `within`."""

    database: Database
    space: Space
    view: View
    vector: Vectors
    limit: int
    within: Candidates
    deadline: Deadline
    precision: Precision

    def run(self) -> list[Match]:
        """Best first, ties by ascending id."""
        share = self._share()
        listed = self._listed(share)
        coded = self._walk(share) if listed is None else self._among(listed)
        tail_ids, tail = self._tail(listed)
        return stored.nearest(np.concatenate([coded.ids, tail_ids]), np.concatenate([coded.cosines, tail]), self.limit)

    def _share(self) -> float:
        """About which share of the coded embeddings passes; 1 where finding out would cost more than it saves."""
        total = len(self.view.coded_ids)
        if total <= 2 * SAMPLE:
            return 1
        sample = self.view.coded_ids[:: total // SAMPLE + 1]
        return len(self._admitted(sample)) / len(sample)

    def _listed(self, share: float) -> Ids | None:
        """All that pass, when they are so few that ranking them beats walking to them."""
        total = max(len(self.view.coded_ids), 1)
        few = (LISTING_GAIN * self._compared().step / total) ** 0.5
        return self.within.ids(max(LISTED, int(2 * few * total))) if share < few else None

    def _walk(self, share: float) -> Compared:
        """From the closest code outwards, asking in batches which pass, until enough were compared."""
        compared, tested = self._compared(), 0
        share = max(share, LEAST_SHARE)
        for ids, estimates in self._windows(int(4 * compared.step / share)):
            start = 0
            while start < len(ids):
                in_vain = tested >= max(PATIENCE, 10 * len(compared.ids))
                if in_vain and (listed := self.within.ids(EVERYTHING)) is not None:
                    return self._among(listed)
                size = min(max(1.1 * compared.step / share, tested / 2), MOST_ASKED)
                batch = slice(start, start + int(size))
                passing = self._passing(ids[batch])
                if self._compare((ids[batch][passing], estimates[batch][passing]), compared):
                    return compared
                start, tested = batch.stop, tested + len(passing)
        return compared

    def _windows(self, size: int) -> Iterator[Ranked]:
        """All coded embeddings, in growing windows of code distance, each window ranked."""
        total, generation = len(self.view.coded_ids), self.view.state.generation
        if not total or generation is None:
            return
        distances = scan(self.view.blocks, generation.coding.signs_of(self.vector), self.deadline)
        start, end = 0, max(WINDOW, int(WINDOW_SHARE * total), size)
        while start < total:
            yield self._ranked(np.sort(closest(distances, end)[start:]), generation.coding)
            start, end = end, 4 * end

    def _among(self, listed: Ids) -> Compared:
        """The likeliest of those listed."""
        compared, generation, coded = self._compared(), self.view.state.generation, self.view.coded_ids
        if len(coded) and generation is not None:
            places = np.minimum(np.searchsorted(coded, listed), len(coded) - 1)
            self._compare(self._ranked(places[coded[places] == listed], generation.coding), compared)
        return compared

    def _ranked(self, positions: Positions, coding: Coding) -> Ranked:
        """The embeddings at these ascending positions; ties by ascending id."""
        estimates = estimate(self.view.blocks, positions, coding, self.vector, self.deadline)
        order = np.argsort(-estimates, kind="stable")
        return self.view.coded_ids[positions[order]], estimates[order]

    def _compare(self, ranked: Ranked, compared: Compared) -> bool:
        """Compare the vectors of those that still exist, the likeliest first; whether that suffices."""
        ids, estimates = ranked
        start = 0
        while start < len(ids):
            if compared.suffices_at(float(estimates[start])):
                return True
            end = start + compared.step
            with self.database.read(self.deadline) as connection:
                found, vectors = stored.read(connection, self.space, ids[start:end].tolist())
            exist = slice(None) if len(found) == len(ids[start:end]) else np.isin(ids[start:end], found)
            compared.add(found, stored.cosines(vectors, self.vector), estimates[start:end][exist])
            start = end
        return False

    def _tail(self, listed: Ids | None) -> tuple[Ids, Vectors]:
        """What is newer than the codes, compared exactly: the best that pass, at least `limit` of them."""
        similarities = stored.cosines(self.view.tail, self.vector)
        order = np.lexsort((self.view.tail_ids, -similarities))
        ids, similarities = self.view.tail_ids[order], similarities[order]
        if not len(ids):
            return ids, similarities
        passing = np.isin(ids, self._first_passing(ids) if listed is None else listed)
        return ids[passing], similarities[passing]

    def _first_passing(self, ids: Ids) -> Ids:
        """Of `ids` those that pass, until there are `limit`."""
        passing = NO_IDS
        for start, end in _pieces(len(ids), max(SAMPLE, 2 * self.limit)):
            passing = np.concatenate([passing, self._admitted(ids[start:end])])
            if len(passing) >= self.limit:
                break
        return passing

    def _passing(self, ids: Ids) -> npt.NDArray[np.bool_]:
        """Which of these pass."""
        self.deadline.check()
        given = ids.tolist()
        return np.fromiter(map(self.within.admit(given).__contains__, given), dtype=np.bool_, count=len(given))

    def _admitted(self, ids: Ids) -> Ids:
        """Those that pass."""
        return ids[self._passing(ids)]

    def _compared(self) -> Compared:
        return Compared(self.limit, self.precision)


def _pieces(total: int, size: int) -> Iterator[tuple[int, int]]:
    """The ends of consecutive pieces of `total`, each twice as long as the one before."""
    start = 0
    while start < total:
        yield start, min(start + size, total)
        start, size = start + size, 2 * size
