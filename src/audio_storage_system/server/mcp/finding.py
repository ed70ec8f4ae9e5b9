"""`search_audio`, `get_context`, `list_recordings`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from audio_storage_system import Hit as Found
from audio_storage_system.errors import InvalidInput
from audio_storage_system.records import Recording, Segment
from audio_storage_system.server.mcp import answers, cursors, telling
from audio_storage_system.server.mcp.answers import ContextAnswer, Hit, Line, ListAnswer, SearchAnswer
from audio_storage_system.server.mcp.arguments import GetContext, ListRecordings, SearchAudio
from audio_storage_system.server.mcp.caller import Caller

# A reader who has not found it among so many asks something else.
MAX_RESULTS = 1_000
METADATA_IN_LIST = 1_000
BEGINNING = datetime(1, 1, 1, tzinfo=UTC)


def search_audio(caller: Caller, given: SearchAudio) -> SearchAnswer:
    """Passages that were found, as many as fit."""
    first = cursors.read(given.cursor, given.asked, offset=0)["offset"]
    if first >= MAX_RESULTS:
        raise InvalidInput(reason=f"The first {MAX_RESULTS:,} results can be seen; ask for something narrower")
    found = caller.storage.search_similar_audio(
        given.query,
        given.limit + 1,
        mode=given.mode,
        context=given.context_segments,
        offset=first,
        deadline=caller.seconds,
        cancellation=caller.cancellation,
        **given.limits,
    )
    shown = list(_fitting(found.hits[: given.limit], given.max_chars))
    more = len(found) > len(shown) and first + len(shown) < MAX_RESULTS
    cursor = cursors.make(given.asked, offset=first + len(shown)) if more else None
    return SearchAnswer(results=shown, next_cursor=cursor, warnings=list(found.warnings))


def _fitting(hits: Iterable[Found], max_chars: int) -> Iterable[Hit]:
    """Hits until their texts are longer than this; of the first at least the beginning."""
    left = max_chars
    for number, hit in enumerate(hits):
        around = sum(len(segment.text) for segment in (*hit.before, *hit.after))
        if number and len(hit.transcription) + around > left:
            return
        yield _hit(hit, left)
        left -= len(hit.transcription) + around


def _hit(hit: Found, max_chars: int) -> Hit:
    text = hit.transcription[:max_chars]
    before = lines(hit.before, max_chars - len(text))
    after = lines(hit.after, max_chars - len(text) - sum(len(one.text) for one in before))
    said_at = telling.at_clock(hit.recorded_at, hit.recorded_offset_minutes, hit.start)
    return Hit(
        audio_id=hit.audio_id,
        name=telling.called(hit.original_name),
        start=telling.seconds(hit.start),
        end=telling.seconds(hit.end),
        at=telling.seconds(hit.at),
        said_at=said_at,
        text=text,
        citation=telling.citation(hit.original_name, hit.speaker, said_at, hit.start, hit.end),
        uri=telling.transcript_uri(hit.audio_id, hit.start, hit.end),
        transcript_id=hit.transcript_id,
        speaker=hit.speaker and telling.called(hit.speaker),
        language=hit.language,
        similarity=None if math.isnan(hit.similarity) else round(hit.similarity, 3),
        flags=list(hit.flags),
        text_cut=len(text) < len(hit.transcription),
        before=before,
        after=after,
    )


def lines(segments: Iterable[Segment], max_chars: int) -> list[Line]:
    """Segments, of which the later ones are cut where all of them are longer than this."""
    told: list[Line] = []
    for segment in segments:
        told.append(line(segment, segment.text.strip()[:max_chars]))
        max_chars -= len(told[-1].text)
    return told


def line(segment: Segment, text: str) -> Line:
    """A segment with this text."""
    start, end = telling.seconds(segment.start), telling.seconds(segment.end)
    return Line(start=start, end=end, text=text, speaker=segment.speaker and telling.called(segment.speaker))


def get_context(caller: Caller, given: GetContext) -> ContextAnswer:
    """The best passages for a question, as one text with sources."""
    until: dict[str, Any] = {"deadline": caller.seconds, "cancellation": caller.cancellation}
    pack = caller.storage.context_pack(given.question, given.max_tokens, **until, **given.limits)
    sources = [
        answers.Source(
            number=one.number,
            citation=one.label,
            audio_id=one.audio_id,
            start=telling.seconds(one.start),
            end=telling.seconds(one.end),
            said_at=one.said_at.isoformat(timespec="seconds"),
            uri=telling.transcript_uri(one.audio_id, one.start, one.end),
            speaker=one.speaker and telling.called(one.speaker),
        )
        for one in pack.citations
    ]
    return ContextAnswer(text=pack.text, tokens=pack.tokens, sources=sources)


def list_recordings(caller: Caller, given: ListRecordings) -> ListAnswer:
    """A page of recordings, the latest first."""
    found, cursor = listing(caller, given.asked, given.cursor, given.limit, **given.limits)
    return ListAnswer(recordings=[_recording(one) for one in found], next_cursor=cursor)


def listing(
    caller: Caller, question: Any, cursor: str | None, limit: int, **limits: Any
) -> tuple[list[Recording], str | None]:
    """A page of recordings, and the cursor of the next one. Raises `InvalidInput` for another question's cursor."""
    place = cursors.read(cursor, question, microsecond=0, audio_id=0)
    after = (BEGINNING + timedelta(microseconds=place["microsecond"]), place["audio_id"]) if cursor else None
    found = caller.storage.list_recordings(**limits, limit=limit + 1, after=after)
    if len(found) <= limit:
        return found, None
    last = found[limit - 1]
    microsecond = (last.recorded_at - BEGINNING) // timedelta(microseconds=1)
    return found[:limit], cursors.make(question, microsecond=microsecond, audio_id=last.id)


def _recording(one: Recording) -> answers.RecordingLine:
    metadata, cut = telling.brief_metadata(one.metadata, METADATA_IN_LIST)
    return answers.RecordingLine(
        audio_id=one.id,
        name=telling.called(one.original_name),
        recorded_at=telling.at_clock(one.recorded_at, one.recorded_offset_minutes),
        uri=telling.transcript_uri(one.id),
        duration=one.duration,
        metadata=metadata,
        metadata_cut=cut,
    )
