"""Where two transcripts of one recording differ, word by word, with times. Pure.

Words are compared without case, punctuation and the diacritics that people leave out; writing without spaces is
compared character by character. Long transcripts are first cut where both certainly say the same (runs of words that
each has once), else in time, so that ten hours take seconds.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from functools import lru_cache
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from audio_storage_system.catalogue.analysis import bare, characters, is_unspaced, split
from audio_storage_system.records import Segment, Word, jsonable

# Pairs of words that difflib may look at in one go, and from how many on a region is rather cut where both agree:
# its time grows with the square, at worst with the cube.
MOST_PAIRS, MANY_PAIRS = 2_500, 400
# Words in a row that say where the two are at the same place: of long ones first.
RUNS = (4, 2, 1)
# A cut is one only if it leaves no piece longer than this share of the whole.
LARGEST_SHARE = 0.75
CONTEXT_WORDS = 3
APOSTROPHES = str.maketrans(dict.fromkeys("'’ʼ"))

Kind = Literal["added", "removed", "changed"]


@dataclass(frozen=True, slots=True)
class Change:
    """One place where they differ: `before` is what the first says there, `after` the second; times in seconds.

    lead, trail: the few words that both say before and behind it.
    """

    kind: Kind
    start: float
    end: float
    before: str
    after: str
    lead: str
    trail: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two transcripts compared: how many words each has, how many are the same, and every change in order of time."""

    words_before: int
    words_after: int
    same: int
    added: int
    removed: int
    changed: int
    changes: tuple[Change, ...]

    @property
    def agreement(self) -> float:
        """The share of words that are the same, 0…1; two that say nothing agree."""
        total = self.words_before + self.words_after
        return 2 * self.same / total if total else 1.0

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        data: dict[str, Any] = jsonable({"agreement": self.agreement, **asdict(self)})
        return data


class Said(NamedTuple):
    """A word to compare: `key` decides, `text` is shown."""

    key: str
    text: str
    start: float
    end: float


class Region(NamedTuple):
    """Words `a0`…`a1` of the first against `b0`…`b1` of the second."""

    a0: int
    a1: int
    b0: int
    b1: int

    @property
    def longer(self) -> int:
        return max(self.a1 - self.a0, self.b1 - self.b0)

    @property
    def pairs(self) -> int:
        return (self.a1 - self.a0) * (self.b1 - self.b0)


Pair = tuple[int, int]


def compare(before: Iterable[Segment], after: Iterable[Segment]) -> Comparison:
    """How the second transcript of a recording differs from the first."""
    a, b = words_of(before), words_of(after)
    pairs = aligned(a, b)
    regions = list(_between(pairs, Region(0, len(a), 0, len(b))))
    changes = tuple(_change(a, b, region) for region in regions)
    changed = sum(min(r.a1 - r.a0, r.b1 - r.b0) for r in regions)
    return Comparison(
        words_before=len(a),
        words_after=len(b),
        same=len(pairs),
        added=sum(max(r.b1 - r.b0 - (r.a1 - r.a0), 0) for r in regions),
        removed=sum(max(r.a1 - r.a0 - (r.b1 - r.b0), 0) for r in regions),
        changed=changed,
        changes=changes,
    )


def words_of(segments: Iterable[Segment]) -> list[Said]:
    """The words of a transcript as they are compared, in order; what has no times of its own gets its share of the
    segment's."""
    return [said for segment in segments for word in segment.words or _spread(segment) for said in _parts(word)]


def _spread(segment: Segment) -> list[Word]:
    texts = segment.text.split()
    return [Word(*span, text) for span, text in zip(_shares(segment.start, segment.end, texts), texts, strict=True)]


def _parts(word: Word) -> Iterator[Said]:
    found = _units(word.text)
    if len(found) == 1:
        yield Said(found[0][0], word.text.strip(), word.start, word.end)
        return
    for span, (key, text) in zip(_shares(word.start, word.end, found), found, strict=True):
        yield Said(key, text, *span)


@lru_cache(maxsize=65_536)
def _units(text: str) -> tuple[tuple[str, str], ...]:
    """What a word is compared by, and each part as it is shown."""
    pieces = split(text.translate(APOSTROPHES))
    parts = [part for piece in pieces for part in (characters(piece) if is_unspaced(piece) else [piece])]
    return tuple((bare(part), part) for part in parts)


def _shares(start: float, end: float, texts: Sequence[object]) -> Iterator[tuple[float, float]]:
    step = (end - start) / max(len(texts), 1)
    return ((start + i * step, start + (i + 1) * step) for i in range(len(texts)))


def aligned(a: Sequence[Said], b: Sequence[Said]) -> list[Pair]:
    """Which words of `a` are which of `b`: pairs of places, ascending in both."""
    numbers: dict[str, int] = {}
    x = [numbers.setdefault(said.key, len(numbers)) for said in a]
    y = [numbers.setdefault(said.key, len(numbers)) for said in b]
    pairs: list[Pair] = []
    regions = [Region(0, len(a), 0, len(b))]
    while regions:
        region = _trimmed(x, y, regions.pop(), pairs)
        if region.pairs > MANY_PAIRS and (pieces := _cut_at_anchors(x, y, region, pairs)):
            regions += pieces
        elif region.pairs > MOST_PAIRS:
            regions += _cut_in_time(a, b, region)
        elif region.pairs:
            pairs += _matched(x, y, region)
    return sorted(pairs)


def _trimmed(x: list[int], y: list[int], region: Region, pairs: list[Pair]) -> Region:
    """The region without what is the same at its beginning and its end."""
    a0, a1, b0, b1 = region
    while a0 < a1 and b0 < b1 and x[a0] == y[b0]:
        pairs.append((a0, b0))
        a0, b0 = a0 + 1, b0 + 1
    while a0 < a1 and b0 < b1 and x[a1 - 1] == y[b1 - 1]:
        a1, b1 = a1 - 1, b1 - 1
        pairs.append((a1, b1))
    return Region(a0, a1, b0, b1)


def _matched(x: list[int], y: list[int], region: Region) -> Iterator[Pair]:
    a0, a1, b0, b1 = region
    for block in SequenceMatcher(None, x[a0:a1], y[b0:b1], autojunk=False).get_matching_blocks():
        for step in range(block.size):
            yield a0 + block.a + step, b0 + block.b + step


def _cut_at_anchors(x: list[int], y: list[int], region: Region, pairs: list[Pair]) -> list[Region]:
    """The pieces between words that are certainly the same; nothing where there are too few of those."""
    for length in RUNS:
        anchors = _ascending(_unique_in_both(x, y, region, length))
        pieces = list(_between(anchors, region))
        if anchors and max(piece.longer for piece in pieces) <= LARGEST_SHARE * region.longer:
            pairs += anchors
            return pieces
    return []


def _unique_in_both(x: list[int], y: list[int], region: Region, length: int) -> list[Pair]:
    """Where the runs of words are that each side has once, in the order of the first."""
    here, there = _once(x, region.a0, region.a1, length), _once(y, region.b0, region.b1, length)
    return [(place, there[run]) for run, place in here.items() if there.get(run, -1) >= 0 and place >= 0]


def _once(words: list[int], begin: int, end: int, length: int) -> dict[tuple[int, ...], int]:
    """Where each run begins; -1 for one that there is more than once."""
    places: dict[tuple[int, ...], int] = {}
    for place in range(begin, end - length + 1):
        run = tuple(words[place : place + length])
        places[run] = -1 if run in places else place
    return places


def _ascending(pairs: list[Pair]) -> list[Pair]:
    """As many of these (ascending in the first) as ascend in the second too."""
    tails: list[int] = []
    best: list[int] = []
    before: list[int] = []
    for number, (_, place) in enumerate(pairs):
        rank = bisect_left(tails, place)
        tails[rank : rank + 1] = [place]
        best[rank : rank + 1] = [number]
        before.append(best[rank - 1] if rank else -1)
    chain: list[Pair] = []
    number = best[-1] if best else -1
    while number >= 0:
        chain.append(pairs[number])
        number = before[number]
    return chain[::-1]


def _between(pairs: Sequence[Pair], region: Region) -> Iterator[Region]:
    """What lies between these pairs, as far as there is anything."""
    edges = [(region.a0 - 1, region.b0 - 1), *pairs, (region.a1, region.b1)]
    for (a0, b0), (a1, b1) in pairwise(edges):
        if a1 - a0 > 1 or b1 - b0 > 1:
            yield Region(a0 + 1, a1, b0 + 1, b1)


def _cut_in_time(a: Sequence[Said], b: Sequence[Said], region: Region) -> list[Region]:
    """Two pieces, cut where the longer side is half over."""
    a0, a1, b0, b1 = region
    if a1 - a0 >= b1 - b0:
        i = (a0 + a1) // 2
        j = bisect_left(b, a[i].start, b0, b1, key=lambda said: said.start)
    else:
        j = (b0 + b1) // 2
        i = bisect_left(a, b[j].start, a0, a1, key=lambda said: said.start)
    return [Region(a0, i, b0, j), Region(i, a1, j, b1)]


def _change(a: Sequence[Said], b: Sequence[Said], region: Region) -> Change:
    old, new = a[region.a0 : region.a1], b[region.b0 : region.b1]
    return Change(
        kind="changed" if old and new else "added" if new else "removed",
        start=min(said.start for said in (*old, *new)),
        end=max(said.end for said in (*old, *new)),
        before=_text(old),
        after=_text(new),
        lead=_text(b[max(region.b0 - CONTEXT_WORDS, 0) : region.b0]),
        trail=_text(b[region.b1 : region.b1 + CONTEXT_WORDS]),
    )


def _text(words: Sequence[Said]) -> str:
    return " ".join(said.text for said in words)
