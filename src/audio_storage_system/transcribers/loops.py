"""Removing the loops that speech recognisers fall into: the same words again and again, said once or not at all."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")

# Scripts written without spaces between words: kana, Han, Thai, Lao, Burmese, Khmer. Their characters count alone.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
_UNIT = re.compile(rf"\s*(?:[{_UNSPACED}]|[^\s{_UNSPACED}]+)")


def without_loops(units: Sequence[T], text: Callable[[T], str] = str) -> list[T]:
    """`units` (words, characters or sentences) with every loop reduced to its first round.

    A loop is a run of units repeated at once at least four times, short ones more often, because people do say "no,
    no, no, no": one word eight times, one character sixteen times. Case and punctuation make no difference. A round
    that the end of the window cut short goes with its loop.
    """
    keys = [_key(text(unit)) for unit in units]
    kept: list[T] = []
    position = 0
    while position < len(units):
        size, end = _loop_at(keys, position)
        kept.extend(units[position : position + size])
        position = end
    return kept


def text_without_loops(text: str) -> str:
    """`text` with its loops reduced, whether its script puts spaces between words or not."""
    return "".join(without_loops(_UNIT.findall(text))).strip()


def _loop_at(keys: Sequence[str], start: int) -> tuple[int, int]:
    """Length of the round and end of the loop that begins at `start`; without one, a single unit."""
    for size in range(1, (len(keys) - start) // 4 + 1):
        rounds = _rounds(keys, start, size)
        if rounds >= _needed(keys[start : start + size]):
            end = start + size * rounds
            cut_short = list(keys[end:]) == list(keys[start : start + len(keys) - end])
            return size, len(keys) if cut_short else end
    return 1, start + 1


def _rounds(keys: Sequence[str], start: int, size: int) -> int:
    """How often the `size` keys at `start` come one after the other."""
    end = start + size
    while end < len(keys) and keys[end] == keys[end - size]:
        end += 1
    return (end - start) // size


def _needed(unit: Sequence[str]) -> int:
    weight = sum(0.5 if len(key) == 1 else 1.0 for key in unit)
    return max(4, math.ceil(8 / weight))


def _key(text: str) -> str:
    letters = "".join(char for char in text.casefold() if char.isalnum())
    return letters or text.strip()
