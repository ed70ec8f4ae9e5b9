"""Passages: consecutive segments of one transcript grouped to the size that is embedded and searched.

Pure. Grouping is incremental: a passage once closed stays as it is, whatever is said later, and pushing a transcript
piece by piece gives what pushing it at once gives.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise

from audio_storage_system.catalogue.analysis import count_words
from audio_storage_system.records import Passage, Segment

# Words in a passage, chosen by measuring retrieval over real meetings: see docs/benchmarks.md.
TARGET_WORDS = 100
# A group is cut once it is this many times the target, and a segment is split when it alone is twice the target.
CUT_AT, SPLIT_AT = 1.5, 2.0
# Where little is said, a passage ends before it gets longer than this: a hit has to lead to its moment, and how a
# passage sounds is computed with all of it in memory.
LONGEST_SECONDS = 300.0
# What a change of speaker, and a pause of a second or more, are worth against a target missed by 100 %.
SPEAKER_CHANGE, LONG_PAUSE = 0.3, 0.3

_SENTENCE_END = re.compile(r"[.!?…]\s+|[。！？]\s*")
_SPACE = re.compile(r"\s+")


class Grouper:
    """Groups the segments of one transcript as they arrive.

    To go on with a stored transcript, make one with the next passage's `sequence` and push every segment after the last
    stored passage's `last_segment_id`.
    """

    def __init__(self, *, sequence: int = 0, target_words: float = TARGET_WORDS) -> None:
        self._sequence = sequence
        self._target = target_words
        self._open: list[Segment] = []
        self._sizes: list[float] = []

    def push(self, segments: Iterable[Segment]) -> list[Passage]:
        """Take the next segments, as stored (with their ids), and return the passages that they close."""
        return [passage for segment in segments if segment.text.strip() for passage in self._take(segment)]

    def finish(self) -> list[Passage]:
        """Close what is open: at most one passage."""
        return self._close(len(self._open))

    def _take(self, segment: Segment) -> list[Passage]:
        size = count_words(segment.text)
        if size > SPLIT_AT * self._target:
            return self.finish() + [self._passage([part]) for part in _parts(segment, math.ceil(size / self._target))]
        closed = self.finish() if self._open and segment.end - self._open[0].start > LONGEST_SECONDS else []
        self._open.append(segment)
        self._sizes.append(size)
        while len(self._open) > 1 and sum(self._sizes) > CUT_AT * self._target:
            closed += self._close(self._best_cut())
        return closed

    def _best_cut(self) -> int:
        """How many of the open segments make the next passage: near the target, at a speaker change or a pause."""
        totals = accumulate(self._sizes)
        values = [
            boundary_strength(before, after) - abs(total - self._target) / self._target
            for (before, after), total in zip(pairwise(self._open), totals, strict=False)
        ]
        return values.index(max(values)) + 1

    def _close(self, count: int) -> list[Passage]:
        chosen, self._open = self._open[:count], self._open[count:]
        self._sizes = self._sizes[count:]
        return [self._passage(chosen)] if chosen else []

    def _passage(self, segments: Sequence[Segment]) -> Passage:
        first, last = segments[0], segments[-1]
        if first.id is None or last.id is None:
            raise ValueError("a passage is made of stored segments, which have ids")
        text = " ".join(segment.text.strip() for segment in segments)
        sequence, self._sequence = self._sequence, self._sequence + 1
        return Passage(sequence, first.id, last.id, first.start, max(s.end for s in segments), text)


def group(segments: Iterable[Segment], *, target_words: float = TARGET_WORDS) -> list[Passage]:
    """The passages of a whole transcript."""
    grouper = Grouper(target_words=target_words)
    return grouper.push(segments) + grouper.finish()


def boundary_strength(before: Segment, after: Segment) -> float:
    """How well a passage ends between two segments."""
    pause = min(max(after.start - before.end, 0.0), 1.0)
    return LONG_PAUSE * pause + SPEAKER_CHANGE * (before.speaker != after.speaker)


def _parts(segment: Segment, count: int) -> list[Segment]:
    """One very long segment as `count` segments with its id; times by their share of the text."""
    text = " ".join(segment.text.split())
    cuts = [0, *_cuts(text, count), len(text)]
    seconds = (segment.end - segment.start) / len(text)
    return [
        Segment(
            segment.start + a * seconds, segment.start + b * seconds, text[a:b], speaker=segment.speaker, id=segment.id
        )
        for a, b in pairwise(cuts)
    ]


def _cuts(text: str, count: int) -> list[int]:
    """Where to cut `text` into `count` about equal parts: after a sentence, else after a word."""
    step = len(text) / count
    slack = int(step / 4)
    ideals = [int(step * i) for i in range(1, count)]
    return [ideal - slack + _best_break(text[ideal - slack : ideal + slack]) for ideal in ideals]


def _best_break(window: str) -> int:
    for pattern in (_SENTENCE_END, _SPACE):
        if ends := [match.end() for match in pattern.finditer(window)]:
            return min(ends, key=lambda end: abs(end - len(window) / 2))
    return len(window) // 2
