"""Mean-centred sign-bit codes: 1 bit per dimension, compared by counting the bits that differ.

The number of differing bits follows the angle between two vectors once the mean is taken off both (Charikar 2002,
"Similarity estimation techniques from rounding algorithms", with the axes as the hyperplanes). With the mean left in,
vectors that share an offset have nearly equal signs and the order is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from audio_storage_system.clock import Deadline
from audio_storage_system.vectors.base import Ids
from audio_storage_system.vectors.stored import Vectors

Codes: TypeAlias = npt.NDArray[np.uint64]  # one row per 64 dimensions, one column per vector
Distances: TypeAlias = npt.NDArray[np.uint16]
Positions: TypeAlias = npt.NDArray[np.intp]

# The bits of so many codes, as numbers, stay in the processor's cache.
ESTIMATED_TOGETHER = 2048


@dataclass(frozen=True, slots=True, eq=False)
class Coding:
    """How vectors become bits and bits become vectors again: bit d says whether dimension d lies above its `mean`, and
    stands for the average of those that do (`above`) or do not (`below`)."""

    mean: Vectors
    below: Vectors
    above: Vectors

    @classmethod
    def train(cls, sample: Vectors) -> Coding:
        """The coding that fits these vectors."""
        mean = sample.mean(axis=0)
        deviation = sample - mean
        high = deviation > 0
        counts = np.maximum(high.sum(axis=0), 1), np.maximum((~high).sum(axis=0), 1)
        above = np.where(high, deviation, 0).sum(axis=0) / counts[0]
        below = np.where(high, 0, deviation).sum(axis=0) / counts[1]
        return cls(mean, (mean + below).astype(np.float32), (mean + above).astype(np.float32))

    @classmethod
    def from_bytes(cls, data: bytes) -> Coding:
        """As written by `to_bytes`."""
        return cls(*np.frombuffer(data, dtype="<f4").reshape(3, -1))

    def to_bytes(self) -> bytes:
        """As the database keeps it."""
        return np.stack([self.mean, self.below, self.above]).astype("<f4").tobytes()

    def encode(self, vectors: Vectors) -> Codes:
        """The codes of these rows, as columns."""
        bits = np.packbits(vectors > self.mean, axis=1, bitorder="little")
        words = np.pad(bits, ((0, 0), (0, -bits.shape[1] % 8))).view("<u8")
        return np.ascontiguousarray(words.T)

    def estimates(self, codes: Codes, vector: Vectors) -> Vectors:
        """What the cosine of `vector` with each coded vector must be about.

        This orders neighbours far better than counting bits does, since it knows how much each dimension weighs; at
        0.1 µs per code it is too slow for all of them. With q and x of length 1 and d for the difference from the mean,
        q·x = q·mean + dq·dx + mean·dx, where the last term hardly varies: the bits would only add noise to it.
        """
        octets = np.ascontiguousarray(codes.T).view(np.uint8)
        bits = np.unpackbits(octets, axis=1, count=len(vector), bitorder="little").astype(np.float32)
        difference = vector - self.mean
        known = vector @ self.mean + difference @ (self.below - self.mean)
        # Not `@`: for so many rows BLAS starts threads, which spin on every processor for nothing.
        estimates: Vectors = np.vecdot(bits, difference * (self.above - self.below)) + known
        return estimates


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """The codes of consecutive embeddings, as stored: ids ascending. A block never changes; a new one replaces it."""

    id: int
    ids: Ids
    codes: Codes

    def __len__(self) -> int:
        return len(self.ids)


def hamming(codes: Codes, code: Codes) -> Distances:
    """How many bits of each column differ from `code`, a single column."""
    differing = np.bitwise_count(np.bitwise_xor(codes, code))
    distances: Distances = np.add.reduce(differing, axis=0, dtype=np.uint16)
    return distances


def scan(blocks: Sequence[Block], code: Codes, deadline: Deadline) -> Distances:
    """The distance of every vector of these blocks, in order."""
    distances = np.empty(sum(map(len, blocks)), dtype=np.uint16)
    start = 0
    for block in blocks:
        deadline.check()
        distances[start : start + len(block)] = hamming(block.codes, code)
        start += len(block)
    return distances


def estimate(
    blocks: Sequence[Block], positions: Positions, coding: Coding, vector: Vectors, deadline: Deadline
) -> Vectors:
    """`Coding.estimates` for the vectors at these ascending positions."""
    codes = _taken(blocks, positions)
    estimates = np.empty(len(positions), dtype=np.float32)
    for start in range(0, len(positions), ESTIMATED_TOGETHER):
        deadline.check()
        piece = slice(start, start + ESTIMATED_TOGETHER)
        estimates[piece] = coding.estimates(codes[:, piece], vector)
    return estimates


def _taken(blocks: Sequence[Block], positions: Positions) -> Codes:
    """The codes at these ascending positions of all blocks."""
    ends = np.cumsum([len(block) for block in blocks])
    cuts = np.searchsorted(positions, ends).tolist()
    codes = np.empty((len(blocks[0].codes) if blocks else 0, len(positions)), dtype=np.uint64)
    start = 0
    for block, first, cut in zip(blocks, (ends - [len(block) for block in blocks]).tolist(), cuts, strict=True):
        if cut > start:
            codes[:, start:cut] = block.codes[:, positions[start:cut] - first]
        start = cut
    return codes


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
