"""BM25 over posting lists, with numpy: the same ranking whatever database holds the lists. Pure.

Computed here because SQLite's own `bm25()` looks every matching row up: eight times slower at 50,000 rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Ids: TypeAlias = npt.NDArray[np.int64]
Counts: TypeAlias = npt.NDArray[np.int32]
Floats: TypeAlias = npt.NDArray[np.float64]
Positions: TypeAlias = npt.NDArray[np.intp]

K1, B = 1.2, 0.75
# The length that counts as neither short nor long, in characters: about `passages.TARGET_WORDS` words.
TYPICAL_LENGTH = 550.0
# How finely scores are told apart to find the best few before they are sorted.
LEVELS = 1023


@dataclass(frozen=True, slots=True, eq=False)
class Postings:
    """Where something is said: passage ids, ascending, each once, and how often in each; `found` is in how many
    passages of the whole archive, however few of them are kept here."""

    ids: Ids
    counts: Counts
    found: int

    @classmethod
    def of(cls, occurrences: Ids) -> Postings:
        """From ids in any order, one for each occurrence."""
        if np.any(occurrences[1:] < occurrences[:-1]):
            occurrences = np.sort(occurrences)
        starts = np.flatnonzero(np.diff(occurrences, prepend=-1))
        counts = np.diff(starts, append=len(occurrences)).astype(np.int32)
        return cls(occurrences[starts], counts, len(starts))

    @classmethod
    def once(cls, ids: Ids) -> Postings:
        """From ids in any order, each once; that it is said there counts, not how often."""
        if np.any(ids[1:] < ids[:-1]):
            ids = np.sort(ids)
        return cls(ids, np.broadcast_to(np.int32(1), len(ids)), len(ids))

    @classmethod
    def of_any(cls, forms: Sequence[Postings]) -> Postings:
        """Where any of these is said; a passage that says several counts with the most frequent."""
        ids = Postings.of(np.concatenate([form.ids for form in forms])).ids
        counts: Counts = np.max([form.counts_in(ids) for form in forms], axis=0)
        return cls(ids, counts, len(ids))

    def within(self, ids: Ids) -> Postings:
        """The part in these passages, given in ascending order."""
        few, many = (self.ids, ids) if len(self.ids) < len(ids) else (ids, self.ids)
        common = few[contains(many, few)]
        return Postings(common, self.counts_in(common), self.found)

    def only(self, ids: Ids) -> Postings:
        """As if there were no passages but these, given in ascending order."""
        part = self.within(ids)
        return replace(part, found=len(part.ids))

    def without(self, ids: Ids) -> Postings:
        """As if there were not these passages, given in ascending order; the list is a whole one."""
        kept = ~contains(ids, self.ids)
        return Postings(self.ids[kept], self.counts[kept], int(np.count_nonzero(kept)))

    def counts_in(self, ids: Ids) -> Counts:
        """How often in each of these passages."""
        if not len(self.ids):
            return np.zeros(len(ids), np.int32)
        places = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return np.where(self.ids[places] == ids, self.counts[places], np.int32(0))


def contains(ascending: Ids, ids: Ids) -> npt.NDArray[np.bool_]:
    """Which of `ids` are among the `ascending` ones."""
    if not len(ascending):
        return np.zeros(len(ids), np.bool_)
    places = np.minimum(np.searchsorted(ascending, ids), len(ascending) - 1)
    found: npt.NDArray[np.bool_] = ascending[places] == ids
    return found


def rarity(postings: Postings, total: int) -> float:
    """The weight of one list: its inverse document frequency among `total` passages, always above 0."""
    found = postings.found
    return math.log1p((max(total, found) - found + 0.5) / (found + 0.5))


def outline(lists: Sequence[Postings], total: int) -> tuple[Ids, Floats]:
    """Every passage on any list and its score as though all were of typical length: cheap, and nearly in order."""
    if len(lists) == 1:
        return lists[0].ids, rarity(lists[0], total) * _saturated(lists[0].counts, TYPICAL_LENGTH)
    ids = np.concatenate([postings.ids for postings in lists])
    parts = np.concatenate([rarity(p, total) * _saturated(p.counts, TYPICAL_LENGTH) for p in lists])
    order = np.argsort(ids, kind="stable")  # merges the ascending runs
    ids, parts = ids[order], parts[order]
    starts = np.flatnonzero(np.diff(ids, prepend=-1))
    return ids[starts], np.add.reduceat(parts, starts) if len(starts) else parts


def best(scores: Floats, count: int) -> Positions:
    """The positions of the `count` highest scores (all above 0), highest first, ties by position; sorts hardly more
    than those. A histogram finds them: numpy's partition takes 0.3 s for 300,000 scores of which most are equal."""
    if 4 * count >= len(scores):
        return np.argsort(-scores, kind="stable")[:count]
    levels = (scores * (LEVELS / scores.max())).astype(np.int16)
    from_top = np.cumsum(np.bincount(levels)[::-1])
    least = len(from_top) - 1 - np.searchsorted(from_top, count)
    high = np.flatnonzero(levels >= least)
    return high[np.argsort(-scores[high], kind="stable")][:count]


def score(lists: Sequence[Postings], total: int, ids: Ids, lengths: Floats) -> Floats:
    """The BM25 of some passages, whose lengths in characters are known."""
    scores = np.zeros(len(ids))
    for postings in lists:
        scores += rarity(postings, total) * _saturated(postings.counts_in(ids), lengths)
    return scores


def _saturated(counts: Counts, lengths: Floats | float) -> Floats:
    return counts * (K1 + 1) / (counts + K1 * (1 - B + B * lengths / TYPICAL_LENGTH))
