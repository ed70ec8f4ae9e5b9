"""What a search answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any

from audio_storage_system.records import Segment, jsonable
from audio_storage_system.vectors import IndexState


@dataclass(frozen=True)
class Hit:
    """One place where something was said or heard. Answers to attributes and to `[]`.

    start, end: the passage's span in seconds; transcription: its text (empty for a sound without speech).
    at: the second to jump to: where the first matching word, else the best matching segment, begins.
    similarity: cosine with the query, -1…1; NaN where the passage has no vector in the space searched.
    score: what the hits are ordered by; comparable within one answer only.
    before, after: neighbouring segments, as many as were asked for.
    """

    audio_id: int
    original_name: str
    transcript_id: int | None
    passage_id: int | None
    segment_id: int | None
    start: float
    end: float
    at: float
    transcription: str
    similarity: float
    score: float
    speaker: str | None
    language: str | None
    recorded_at: datetime
    recorded_offset_minutes: int | None
    metadata: Mapping[str, Any]
    flags: tuple[str, ...] = ()
    before: tuple[Segment, ...] = ()
    after: tuple[Segment, ...] = ()

    def __getitem__(self, name: str) -> Any:
        if name not in self.keys():
            raise KeyError(name)
        return getattr(self, name)

    def get(self, name: str, default: Any = None) -> Any:
        """As `dict.get`."""
        return self[name] if name in self.keys() else default

    @classmethod
    def keys(cls) -> list[str]:
        """The names that `[]` takes."""
        return [field.name for field in fields(cls)]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; neighbours as text with their times."""
        data = {field.name: getattr(self, field.name) for field in fields(self)}
        for side in ("before", "after"):
            data[side] = [{"start": s.start, "end": s.end, "speaker": s.speaker, "text": s.text} for s in data[side]]
        return {name: jsonable(value) for name, value in data.items()}


@dataclass(frozen=True)
class SearchResults:
    """The hits, best first, and what there is to know about them. A sequence of `Hit`.

    total: how many hits were ranked to fill the page; a page further on may rank more. warnings: what was not searched,
    and what to do. index: how far the vector index is, where it lags; what it lacks was searched exactly.
    """

    query: str
    mode: str
    total: int
    hits: tuple[Hit, ...]
    warnings: tuple[str, ...] = ()
    index: IndexState | None = None

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def __len__(self) -> int:
        return len(self.hits)

    def __getitem__(self, index: int) -> Hit:
        return self.hits[index]

    def as_dict(self) -> dict[str, Any]:
        """The answer as the command line and the server give it."""
        return {
            "query": self.query,
            "mode": self.mode,
            "total": self.total,
            "hits": [hit.as_dict() for hit in self.hits],
            "warnings": list(self.warnings),
            "index": self.index and asdict(self.index),
        }
