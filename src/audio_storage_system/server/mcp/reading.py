"""`get_recording`, `get_transcript`, and transcripts as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from audio_storage_system.clock import mm_ss
from audio_storage_system.errors import NotFound
from audio_storage_system.records import Segment, Transcript
from audio_storage_system.server.mcp import cursors, telling
from audio_storage_system.server.mcp.answers import Line, RecordingAnswer, TranscriptAnswer, Version
from audio_storage_system.server.mcp.arguments import GetRecording, GetTranscript
from audio_storage_system.server.mcp.caller import Caller
from audio_storage_system.server.mcp.finding import line

MAX_VERSIONS, MAX_WARNINGS, MAX_REASON_CHARS = 30, 20, 500
# How much a resource gives at most, which has no pages.
MAX_RESOURCE_CHARS, BATCH = 200_000, 1_000


def get_recording(caller: Caller, given: GetRecording) -> RecordingAnswer:
    """A recording with its metadata and versions."""
    one, versions = caller.storage.get_recording(given.audio_id), caller.storage.transcripts(given.audio_id)
    metadata, cut = telling.brief_metadata(one.metadata, given.max_chars)
    return RecordingAnswer(
        audio_id=one.id,
        name=telling.called(one.original_name),
        status=one.status,
        recorded_at=telling.at_clock(one.recorded_at, one.recorded_offset_minutes),
        created_at=one.created_at.isoformat(timespec="seconds"),
        size=one.file_size,
        sha256=one.file_hash,
        uri=telling.transcript_uri(one.id),
        versions=[version(said) for said in versions[-MAX_VERSIONS:]],
        duration=one.duration,
        media_type=one.media_type,
        codec=one.codec,
        sample_rate=one.sample_rate,
        channels=one.channels,
        metadata=metadata,
        metadata_cut=cut,
        versions_left_out=max(0, len(versions) - MAX_VERSIONS),
        warnings=[warning[:MAX_REASON_CHARS] for warning in one.warnings[:MAX_WARNINGS]],
    )


def version(said: Transcript) -> Version:
    """What is told of a version, without its text."""
    return Version(
        transcript_id=said.id,
        active=said.active,
        outcome=said.outcome.value if said.outcome else "running",
        engine=said.engine,
        model=said.whisper_model,
        created_at=said.created_at.isoformat(timespec="seconds"),
        characters=len(said.transcription),
        reason=said.reason and said.reason[:MAX_REASON_CHARS],
        language=said.language,
        confidence=None if said.confidence is None else round(said.confidence, 3),
        flags=list(said.flags),
    )


def chosen(caller: Caller, audio_id: int, transcript_id: int | None = None) -> Transcript:
    """This version of what is said in a recording; without a number the one that search follows, else the latest.
    Raises `NotFound`."""
    if transcript_id is not None:
        return _version_of(caller, audio_id, transcript_id)
    versions = caller.storage.transcripts(audio_id)
    if not versions:
        raise NotFound(f"Recording {audio_id} has no transcript yet.")
    return next((one for one in versions if one.active), versions[-1])


def _version_of(caller: Caller, audio_id: int, transcript_id: int) -> Transcript:
    absent = NotFound(kind=f"transcript of recording {audio_id}", id=transcript_id)
    try:
        found = caller.storage.get_transcript(transcript_id)
    except NotFound:
        raise absent from None
    if found.audio_id != audio_id:
        raise absent
    return found


def get_transcript(caller: Caller, given: GetTranscript) -> TranscriptAnswer:
    """A page of what is said in a recording."""
    place = cursors.read(given.cursor, given.asked, version=given.transcript_id or 0, after=0, character=0)
    recording = caller.storage.get_recording(given.audio_id)
    said = chosen(caller, given.audio_id, place["version"] or None)
    found = caller.storage.segments(
        said.id, start=given.start, end=given.end, after=place["after"], limit=given.max_segments + 1
    )
    shown, following = page(found, place["after"], place["character"], given.max_segments, given.max_chars)
    cursor = following and cursors.make(given.asked, version=said.id, after=following[0], character=following[1])
    return TranscriptAnswer(
        audio_id=recording.id,
        name=telling.called(recording.original_name),
        recorded_at=telling.at_clock(recording.recorded_at, recording.recorded_offset_minutes),
        version=version(said),
        segments=shown,
        uri=telling.transcript_uri(recording.id, given.start, given.end),
        duration=recording.duration,
        next_cursor=cursor,
    )


def page(
    segments: Iterable[Segment], after: int, character: int, max_segments: int, max_chars: int
) -> tuple[list[Line], tuple[int, int] | None]:
    """What fits of segments that follow the one with the id `after`, the first from this character on; and where the
    next page begins, in the same way. A segment that is longer than a page goes on on the next one."""
    shown: list[Line] = []
    left = max_chars
    for segment in segments:
        text = segment.text.strip()[character:]
        if len(shown) == max_segments or (shown and len(text) > left):
            return shown, (after, character)
        shown.append(line(segment, text[:left]))
        if len(text) > left:
            return shown, (after, character + left)
        left -= len(text)
        after, character = segment.id or 0, 0
    return shown, None


def as_text(caller: Caller, audio_id: int, start: float | None, end: float | None) -> str:
    """What is said in a recording, a line for each segment: `[mm:ss] Speaker: words`; the beginning of what is very
    long, and then where to read on. Raises `NotFound`."""
    said = chosen(caller, audio_id)
    told: list[str] = []
    left = MAX_RESOURCE_CHARS
    for segment in _all_segments(caller, said.id, start, end):
        words = text_line(segment)
        if len(words) > left:
            rest = telling.transcript_uri(audio_id, segment.start, end)
            told.append(f"(cut here; read on at {rest}, or in pages with get_transcript)")
            break
        told.append(words)
        left -= len(words) + 1
    return "\n".join(told)


def text_line(segment: Segment) -> str:
    """`[mm:ss] Speaker: words`"""
    speaker = f"{telling.called(segment.speaker)}: " if segment.speaker else ""
    return f"[{mm_ss(segment.start)}] {speaker}{telling.one_line(segment.text)}"


def _all_segments(caller: Caller, transcript_id: int, start: float | None, end: float | None) -> Iterator[Segment]:
    after = 0
    while True:
        found = caller.storage.segments(transcript_id, start=start, end=end, after=after, limit=BATCH)
        yield from found
        if len(found) < BATCH:
            return
        after = found[-1].id or 0
