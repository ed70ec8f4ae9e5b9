"""Mean-centred codes of vectors: 1 bit per dimension to find what may be near, 2 more to tell how near it is.

Each dimension of a vector, less its mean, falls on one of 8 levels. The upper half of them is the sign bit: the number
of differing bits follows the angle between two vectors (Charikar 2002, "Similarity estimation techniques from rounding
algorithms", with the axes as the hyperplanes). With the mean left in, vectors that share an offset have nearly equal
signs and the order is lost. The whole level tells the cosine to about a hundredth.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from audio_storage_system.clock import Deadline
from audio_storage_system.vectors.base import Ids
from audio_storage_system.vectors.stored import Vectors

Signs: TypeAlias = npt.NDArray[np.uint64]  # one row per 64 dimensions, one column per vector
Remainders: TypeAlias = npt.NDArray[np.uint8]  # one row per vector, one column per 4 dimensions
Levels: TypeAlias = npt.NDArray[np.uint8]
Distances: TypeAlias = npt.NDArray[np.uint16]
Positions: TypeAlias = npt.NDArray[np.intp]

# The levels of so many vectors, as numbers, stay in the processor's cache.
ESTIMATED_TOGETHER = 1024
LEVELS, HALF = 8, 4
# Of 8 even steps over a normal distribution, the ones that lose least (Max 1960, "Quantizing for minimum distortion").
STEP = 0.586


@dataclass(frozen=True, slots=True, eq=False)
class Codes:
    """Vectors as levels: the upper bit of each in `signs`, the lower two in `remainders`, where the byte at k holds the
    dimensions k, k + width, k + 2 width, k + 3 width of a row."""

    signs: Signs
    remainders: Remainders

    def __len__(self) -> int:
        return len(self.remainders)

    def __getitem__(self, which: Any) -> Codes:
        """Those of some vectors: a slice, a mask, or positions."""
        return Codes(self.signs[:, which], self.remainders[which])

    def same_as(self, other: Codes) -> bool:
        """Whether they are those of the same levels."""
        same_signs = np.array_equal(self.signs, other.signs)
        return same_signs and np.array_equal(self.remainders, other.remainders)

    def fit(self, count: int, dimension: int) -> bool:
        """Whether they are as large as those of so many vectors."""
        shapes = (-(-dimension // 64), count), (count, -(-dimension // 4))
        return (self.signs.shape, self.remainders.shape) == shapes

    @classmethod
    def of(cls, levels: Levels) -> Codes:
        """From levels, a row per vector."""
        bits = np.packbits(levels >= HALF, axis=1, bitorder="little")
        words = np.pad(bits, ((0, 0), (0, -bits.shape[1] % 8))).view("<u8")
        lower = np.pad(levels % HALF, ((0, 0), (0, -levels.shape[1] % 4)))
        packed = [part << (2 * place) for place, part in enumerate(np.split(lower, 4, axis=1))]
        return cls(np.ascontiguousarray(words.T), np.bitwise_or.reduce(packed, axis=0))

    @classmethod
    def joined(cls, parts: Sequence[Codes]) -> Codes:
        """One after the other; at least one."""
        signs = np.concatenate([part.signs for part in parts], axis=1)
        return cls(signs, np.concatenate([part.remainders for part in parts]))

    def levels(self, dimension: int) -> Levels:
        """A row of so many per vector."""
        octets = np.ascontiguousarray(self.signs.T).view(np.uint8)
        levels: Levels = np.unpackbits(octets, axis=1, count=dimension, bitorder="little")
        levels *= np.uint8(HALF)
        width = self.remainders.shape[1]
        for place in range(4):
            part = levels[:, place * width : (place + 1) * width]
            part += (self.remainders[:, : part.shape[1]] >> np.uint8(2 * place)) & np.uint8(HALF - 1)
        return levels


@dataclass(frozen=True, slots=True, eq=False)
class Coding:
    """How vectors become levels and levels become vectors again: level 4 of a dimension begins at its `mean`, and every
    level is `step` wide, but for the outermost."""

    mean: Vectors
    step: Vectors

    @classmethod
    def train(cls, sample: Vectors) -> Coding:
        """The coding that fits these vectors."""
        step = STEP * sample.std(axis=0)
        return cls(sample.mean(axis=0), np.where(step > 0, step, 1).astype(np.float32))

    @classmethod
    def from_bytes(cls, data: bytes) -> Coding:
        """As written by `to_bytes`."""
        return cls(*np.frombuffer(data, dtype="<f4").reshape(2, -1))

    def to_bytes(self) -> bytes:
        """As the database keeps it."""
        return np.stack([self.mean, self.step]).astype("<f4").tobytes()

    def encode(self, vectors: Vectors) -> Codes:
        """The codes of these rows."""
        levels = np.floor((vectors - self.mean) / self.step) + HALF
        return Codes.of(np.clip(levels, 0, LEVELS - 1).astype(np.uint8))

    def signs_of(self, query: Vectors) -> Signs:
        """What to compare the signs of vectors with, a single column, to find those nearest to `query`.

        What a query has in common with the mean says nothing about which vectors are near it: that much is taken off,
        which is all of the mean for a query that is like the vectors, and little of it for one that is not, as
        questions are not like what answers them. With all of it taken off, of the ten passages nearest to a question
        .88 are among the closest 2,000 of 100,000 codes, and .97 so.
        """
        common = float(query @ self.mean) / max(float(self.mean @ self.mean), 1e-12)
        above = query > common * self.mean
        return Codes.of(np.where(above, HALF, 0).astype(np.uint8)[None]).signs

    def estimates(self, codes: Codes, vector: Vectors) -> Vectors:
        """What the cosine of `vector` with each coded vector must be about."""
        weights = vector * self.step
        known = vector @ self.mean - (HALF - 0.5) * weights.sum()
        # Not `@`: for so many rows BLAS starts threads, which spin on every processor for nothing.
        estimates: Vectors = np.vecdot(codes.levels(len(vector)).astype(np.float32), weights) + known
        return estimates


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """The codes of consecutive embeddings, as stored: ids ascending. A block never changes; a new one replaces it."""

    id: int
    ids: Ids
    codes: Codes

    def __len__(self) -> int:
        return len(self.ids)


def hamming(signs: Signs, wanted: Signs) -> Distances:
    """How many bits of each column differ from `wanted`, a single column."""
    differing = np.bitwise_count(np.bitwise_xor(signs, wanted))
    distances: Distances = np.add.reduce(differing, axis=0, dtype=np.uint16)
    return distances


def scan(blocks: Sequence[Block], wanted: Signs, deadline: Deadline) -> Distances:
    """The distance of every vector of these blocks, in order."""
    distances = np.empty(sum(map(len, blocks)), dtype=np.uint16)
    start = 0
    for block in blocks:
        deadline.check()
        distances[start : start + len(block)] = hamming(block.codes.signs, wanted)
        start += len(block)
    return distances


def estimate(
    blocks: Sequence[Block], positions: Positions, coding: Coding, vector: Vectors, deadline: Deadline
) -> Vectors:
    """`Coding.estimates` for the vectors at these ascending positions."""
    if not len(positions):
        return np.empty(0, dtype=np.float32)
    codes = Codes.joined(list(_taken(blocks, positions)))
    pieces = []
    for start in range(0, len(codes), ESTIMATED_TOGETHER):
        deadline.check()
        pieces.append(coding.estimates(codes[start : start + ESTIMATED_TOGETHER], vector))
    return np.concatenate(pieces)


def _taken(blocks: Sequence[Block], positions: Positions) -> Iterator[Codes]:
    """The codes at these ascending positions of all blocks, in order."""
    begin = start = 0
    for block in blocks:
        end = begin + len(block)
        stop = int(np.searchsorted(positions, end))
        if stop > start:
            yield block.codes[positions[start:stop] - begin]
        begin, start = end, stop


def closest(distances: Distances, count: int) -> Positions:
    """The positions of the `count` smallest distances, ascending by distance, then by position.

    A histogram gives the threshold, of a sample first: sorting a million distances takes longer than computing them.
    """
    count = min(count, len(distances))
    near = np.empty(0, dtype=np.intp)
    for stride in (16, 1):
        upto = stride * np.cumsum(np.bincount(distances[::stride], minlength=1))
        threshold = np.searchsorted(upto, 1.2 * count if stride > 1 else count)
        near = np.flatnonzero(distances <= threshold)
        if len(near) >= count:
            break
    return near[np.argsort(distances[near], kind="stable")][:count]
