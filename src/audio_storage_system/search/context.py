"""Context packs: the best passages for a question, within a token budget, each with a citation that can be checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from audio_storage_system.clock import clock_time, mm_ss
from audio_storage_system.records import jsonable
from audio_storage_system.search.results import Hit

CountTokens = Callable[[str], int]
# Passages of one recording that are closer than this belong into one citation.
JOIN_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Citation:
    """A numbered source: where it was said, when, by whom. `start`, `end` in seconds; `said_at` is the clock time at
    `start`, in the recording's own zone where that is known."""

    number: int
    audio_id: int
    original_name: str
    start: float
    end: float
    said_at: datetime
    speaker: str | None
    passage_ids: tuple[int, ...]
    text: str

    @property
    def label(self) -> str:
        """`[1] standup.wav, Anna, 2026-11-22 12:00:30 UTC, 00:30–00:58`"""
        parts = [_one_line(part) for part in (self.original_name, self.speaker) if part]
        return f"[{self.number}] {', '.join(parts)}, {self.said_at:%Y-%m-%d %H:%M:%S %Z}, {self.span}"

    @property
    def span(self) -> str:
        return f"{mm_ss(self.start)}–{mm_ss(self.end)}"

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        data = {name: getattr(self, name) for name in self.__slots__}
        return {**{name: jsonable(value) for name, value in data.items()}, "label": self.label}


@dataclass(frozen=True, slots=True)
class ContextPack:
    """Text to put before a language model, and the same as data. `tokens` is its size as counted."""

    query: str
    text: str
    tokens: int
    citations: tuple[Citation, ...]

    def __str__(self) -> str:
        return self.text

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        citations = [citation.as_dict() for citation in self.citations]
        return {"query": self.query, "text": self.text, "tokens": self.tokens, "citations": citations}


def estimate_tokens(text: str) -> int:
    """About how many tokens a language model makes of `text`, rather too many than too few: 0.28 per ASCII character
    (English takes some 0.23) and 1.2 for each other (a Chinese character takes about one)."""
    plain = sum(character.isascii() for character in text)
    return math.ceil(0.28 * plain + 1.2 * (len(text) - plain))


def build_context_pack(
    query: str, hits: Iterable[Hit], *, max_tokens: int, count_tokens: CountTokens = estimate_tokens
) -> ContextPack:
    """Take hits, best first, while their text and citation fit into `max_tokens`. Passages that follow one another in
    a recording become one citation."""
    chosen: list[Hit] = []
    for hit in hits:
        if hit.transcription and count_tokens(_render(_number(_join([*chosen, hit])))) <= max_tokens:
            chosen.append(hit)
    citations = _number(_join(chosen))
    text = _render(citations)
    return ContextPack(query, text, count_tokens(text), citations)


def _join(hits: list[Hit]) -> list[list[Hit]]:
    """Neighbouring passages together, in the order of the best of each group."""
    groups: list[list[Hit]] = []
    for hit in hits:
        touching = [group for group in groups if any(_touch(hit, other) for other in group)]
        joined = sorted([hit, *(item for group in touching for item in group)], key=lambda item: item.start)
        place = min((groups.index(group) for group in touching), default=len(groups))
        groups = [group for group in groups if group not in touching]
        groups.insert(place, joined)
    return groups


def _touch(one: Hit, other: Hit) -> bool:
    apart = max(one.start, other.start) - min(one.end, other.end)
    return one.transcript_id == other.transcript_id and apart <= JOIN_SECONDS


def _number(groups: list[list[Hit]]) -> tuple[Citation, ...]:
    return tuple(replace(_citation(group), number=number) for number, group in enumerate(groups, 1))


def _citation(group: list[Hit]) -> Citation:
    first = group[0]
    speakers = {hit.speaker for hit in group if hit.speaker}
    return Citation(
        number=0,
        audio_id=first.audio_id,
        original_name=first.original_name,
        start=first.start,
        end=max(hit.end for hit in group),
        said_at=clock_time(first.recorded_at, first.recorded_offset_minutes, first.start),
        speaker=", ".join(sorted(speakers)) or None,
        passage_ids=tuple(hit.passage_id for hit in group if hit.passage_id is not None),
        text=" ".join(" ".join(hit.transcription for hit in group).split()),
    )


def _one_line(text: str) -> str:
    """What others named, without the line breaks and invisible characters that could make it look like a citation."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _render(citations: Iterable[Citation]) -> str:
    return "\n\n".join(f"{citation.label}\n{citation.text}" for citation in citations)
