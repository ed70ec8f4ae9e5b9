"""Turning a ranking into hits: text, times, neighbours, metadata."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from sqlalchemy import Connection, RowMapping, select

from audio_storage_system.catalogue import analysis, recordings, transcripts
from audio_storage_system.clock import Deadline
from audio_storage_system.database import Database
from audio_storage_system.database.queries import among, given
from audio_storage_system.database.tables import embeddings, passages
from audio_storage_system.records import Recording, Segment, Transcript
from audio_storage_system.search.results import Hit

_PASSAGES = select(passages).where(among(passages.c.id))
_WINDOWS = select(
    *(embeddings.c[name] for name in ("id", "audio_file_id", "transcript_id", "start_seconds", "end_seconds"))
).where(among(embeddings.c.id))


@dataclass(frozen=True, slots=True)
class Ranked:
    """One place in a ranking: a passage, or the embedding of a window that has none."""

    passage_id: int | None
    embedding_id: int | None
    similarity: float
    score: float


def dress(database: Database, page: Sequence[Ranked], query: str, context: int, deadline: Deadline) -> list[Hit]:
    """The hits for a page of a ranking, in its order, with `context` segments on each side."""
    with database.read(deadline) as connection:
        rows = _rows(connection, page)
        found = recordings.get_many(connection, sorted({row["audio_file_id"] for row in rows.values()}))
        said = {t.id: t for t in _transcripts(connection, rows)}
        spoken = transcripts.segments_of_passages(connection, [place.passage_id for place in page])
        hits = []
        for place in page:
            row = rows.get(place)
            if row is not None:  # deleted since it was ranked: it is no hit any more
                transcript = said.get(row["transcript_id"]) if place.passage_id is not None else None
                inside = spoken.get(place.passage_id, [])
                before, after = _neighbours(connection, row, context) if transcript else ((), ())
                recording = found[row["audio_file_id"]]
                hits.append(_hit(place, row, recording, transcript, query, inside, before, after))
    return hits


def _rows(connection: Connection, page: Sequence[Ranked]) -> dict[Ranked, RowMapping]:
    spoken = {place.passage_id: place for place in page if place.passage_id is not None}
    sounds = {place.embedding_id: place for place in page if place.passage_id is None}
    rows = {spoken[row["id"]]: row for row in connection.execute(_PASSAGES, given(spoken)).mappings()}
    if sounds:
        rows.update({sounds[row["id"]]: row for row in connection.execute(_WINDOWS, given(sounds)).mappings()})
    return rows


def _transcripts(connection: Connection, rows: dict[Ranked, RowMapping]) -> list[Transcript]:
    ids = {row["transcript_id"] for row in rows.values()}
    return transcripts.headers(connection, sorted(id_ for id_ in ids if id_ is not None))


def _hit(
    place: Ranked,
    row: RowMapping,
    recording: Recording,
    transcript: Transcript | None,
    query: str,
    inside: Sequence[Segment],
    before: tuple[Segment, ...],
    after: tuple[Segment, ...],
) -> Hit:
    language = transcript.language if transcript else None
    wanted = _terms(query, language)
    best = _best_segment(inside, wanted, language)
    speakers = dict.fromkeys(segment.speaker for segment in inside if segment.speaker)
    return Hit(
        audio_id=recording.id,
        original_name=recording.original_name,
        transcript_id=transcript.id if transcript else None,
        passage_id=place.passage_id,
        segment_id=best.id if best else None,
        start=row["start_seconds"],
        end=row["end_seconds"],
        at=_moment(best, wanted, language) if best else row["start_seconds"],
        transcription=row["text"] if transcript else "",
        similarity=place.similarity,
        score=place.score,
        speaker=", ".join(speakers) or None,
        language=language,
        recorded_at=recording.recorded_at,
        recorded_offset_minutes=recording.recorded_offset_minutes,
        metadata=recording.metadata,
        flags=transcript.flags if transcript else (),
        before=before,
        after=after,
    )


def _neighbours(
    connection: Connection, row: RowMapping, context: int
) -> tuple[tuple[Segment, ...], tuple[Segment, ...]]:
    if not context:
        return (), ()
    before = transcripts.segments_before(connection, row["transcript_id"], row["first_segment_id"], limit=context)
    after = transcripts.segments_after(connection, row["transcript_id"], row["last_segment_id"], limit=context)
    return tuple(before), tuple(after)


@lru_cache(maxsize=1024)
def _terms(text: str, language: str | None) -> frozenset[str]:
    return frozenset({*analysis.words(text), *analysis.stems(text, language)})


def _best_segment(inside: Sequence[Segment], wanted: frozenset[str], language: str | None) -> Segment | None:
    """The segment that shares most terms with the query, the earliest of equals."""
    if len(inside) < 2:  # taking a text apart is what dressing a hit costs most
        return inside[0] if inside else None
    return max(inside, key=lambda segment: len(wanted & _terms(segment.text, language)))


def _moment(segment: Segment, wanted: frozenset[str], language: str | None) -> float:
    """The second where the first of the wanted words is spoken."""
    return next((word.start for word in segment.words if wanted & _terms(word.text, language)), segment.start)
