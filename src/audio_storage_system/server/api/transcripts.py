"""What was said: versions, their segments and words, and what is done with them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import PurePath
from typing import Annotated, Any, Literal

from anyio import to_thread
from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, Field

from audio_storage_system import AudioStorageSystem, records
from audio_storage_system.formats import FORMATS
from audio_storage_system.server import forms, incoming, problems
from audio_storage_system.server.api.audio import disposition
from audio_storage_system.server.api.jobs import Job, Retranscription
from audio_storage_system.server.api.shapes import Answer, Given, Page, number_in, page
from audio_storage_system.server.fields import AudioId, Cursor, Id, Language, Limit
from audio_storage_system.server.gate import Caller
from audio_storage_system.server.waiting import in_turn

router = APIRouter(tags=["transcripts"], responses=problems.documented(404))

ExportFormat = Literal["srt", "vtt", "txt", "tsv", "json"]
TranscriptId = Annotated[Id, Path(description="The version.", examples=[3])]
OtherVersion = Annotated[Id | None, Query(description="Another version than the active one.")]


class Version(Answer):
    """One version of what is said in a recording."""

    transcript_id: int = Field(examples=[3])
    audio_id: int = Field(examples=[7])
    whisper_model: str = Field(description="What was asked for.", examples=["base"])
    engine: str = Field(description="What ran.", examples=["faster-whisper"])
    parameters: dict[str, Any]
    outcome: str | None = Field(description="`ok`, `silence`, or how it failed; null while it runs.", examples=["ok"])
    reason: str | None = Field(description="Why it failed.")
    retryable: bool = Field(description="Whether the same transcription can end differently.")
    transcription: str
    language: str | None = Field(examples=["en"])
    confidence: float | None = Field(description="0…1")
    processing_time: float | None = Field(description="Seconds.")
    active: bool = Field(description="Whether search follows it.")
    created_at: str = Field(json_schema_extra={"format": "date-time"})
    flags: list[str] = Field(description="`fallback` where the bundled recogniser stood in.")


class Word(BaseModel):
    """A spoken word."""

    start: float
    end: float
    text: str
    probability: float | None


class Segment(Answer):
    """A timed piece."""

    id: int
    start: float
    end: float
    text: str
    speaker: str | None
    words: list[Word] = Field(description="Where the engine times them.")
    confidence: float | None
    avg_logprob: float | None
    no_speech_prob: float | None
    compression_ratio: float | None


class SpokenWord(Word):
    """A word, and where it stands."""

    segment_id: int
    speaker: str | None


class Change(BaseModel):
    """A place where two versions differ."""

    kind: Literal["added", "removed", "changed"]
    start: float
    end: float
    before: str
    after: str
    lead: str = Field(description="The words that both say before it.")
    trail: str


class Comparison(Answer):
    """Two versions compared, in words."""

    agreement: float = Field(description="The share of words that are the same, 0…1.")
    words_before: int
    words_after: int
    same: int
    added: int
    removed: int
    changed: int
    changes: list[Change]


class Embedded(BaseModel):
    """How many embeddings were made."""

    made: int


class Import(Given):
    """What is said of a transcript that is brought: the fields of the form beside the file."""

    language: Language | None = Field(default=None, examples=["en"])
    activate: bool | None = Field(
        default=None, description="Whether search follows it; else only where it follows none so far."
    )
    generate_embeddings: bool = True


class Imported(Answer):
    """What became of a transcript that was brought."""

    audio_id: int
    transcript_id: int
    duplicate: bool = Field(description="Whether the recording was stored before.")
    known: bool = Field(description="Whether this transcript was brought before.")
    active: bool
    segments: int
    language: str | None
    warnings: list[str] = Field(description="What is odd about the file.")


@router.get("/recordings/{audio_id}/transcripts", summary="The versions of a recording")
def list_transcripts(storage: Caller, audio_id: AudioId, limit: Limit = 100, cursor: Cursor = None) -> Page[Version]:
    """Every version of what is said in it, the oldest first; one of them is active."""
    found = storage.transcripts(audio_id, after=number_in(cursor), limit=limit + 1)
    shown, following = page(found, limit, lambda one: str(one.id))
    return Page(items=[Version.of(one) for one in shown], next_cursor=following)


@router.post(
    "/recordings/{audio_id}/transcripts",
    status_code=201,
    response_model=Imported,
    summary="Bring a transcript",
    openapi_extra=forms.documented(Import, "The transcript: .srt, .vtt, .tsv, or .json of whisper and its like."),
    responses={**problems.documented(404, 409), 200: {"model": Imported, "description": "It was brought before."}},
)
async def import_transcript(request: Request, response: Response, storage: Caller, audio_id: AudioId) -> Imported:
    """It becomes a version with the engine `import`; the same file again makes nothing new."""
    incoming.must_write(storage, "import transcripts")
    async with incoming.form_of(request, storage) as form:
        file, wanted = incoming.file_in(form), forms.read(form, Import)
        name = PurePath((file.filename or "").replace("\\", "/")).name[:255]
        options = wanted.model_dump()
        found = await to_thread.run_sync(lambda: storage.import_transcript(audio_id, file.file, name=name, **options))
    if found.known:
        response.status_code = 200
    return Imported.of(found)


@router.get("/transcripts/{transcript_id}", summary="One version")
def get_transcript(storage: Caller, transcript_id: TranscriptId) -> Version:
    """What was said, by which engine, how it ended."""
    return Version.of(storage.get_transcript(transcript_id))


@router.get("/transcripts/{transcript_id}/segments", summary="The timed pieces of a version")
def list_segments(
    storage: Caller, transcript_id: TranscriptId, limit: Limit = 200, cursor: Cursor = None
) -> Page[Segment]:
    """In order, with their words."""
    found, following = _segments(storage, transcript_id, limit, cursor)
    return Page(items=[Segment.of(one) for one in found], next_cursor=following)


@router.get("/transcripts/{transcript_id}/words", summary="The words of a version")
def list_words(
    storage: Caller, transcript_id: TranscriptId, limit: Limit = 200, cursor: Cursor = None
) -> Page[SpokenWord]:
    """In order, where the engine times them; a page has those of `limit` segments."""
    found, following = _segments(storage, transcript_id, limit, cursor)
    words = [
        SpokenWord(
            start=word.start,
            end=word.end,
            text=word.text,
            probability=word.probability,
            segment_id=one.id or 0,
            speaker=one.speaker,
        )
        for one in found
        for word in one.words
    ]
    return Page(items=words, next_cursor=following)


def _segments(
    storage: AudioStorageSystem, transcript_id: int, limit: int, cursor: str | None
) -> tuple[Sequence[records.Segment], str | None]:
    """A page, and where the next one begins."""
    found = storage.segments(transcript_id, after=number_in(cursor), limit=limit + 1)
    return page(found, limit, lambda one: str(one.id))


@router.get("/transcripts/{transcript_id}/diff/{other_id}", summary="Where two versions differ")
def diff_transcripts(storage: Caller, transcript_id: TranscriptId, other_id: TranscriptId) -> Comparison:
    """Word by word, from the first to the second; both are of one recording."""
    return Comparison.of(storage.diff_transcripts(transcript_id, other_id))


@router.post(
    "/transcripts/{transcript_id}/activate",
    summary="Have search follow a version",
    responses=problems.documented(404, 409),
)
async def activate_transcript(request: Request, storage: Caller, transcript_id: TranscriptId) -> Version:
    """Nothing is lost, and it can be undone the same way."""
    return await in_turn(request, partial(_activated, storage, transcript_id))


def _activated(storage: AudioStorageSystem, transcript_id: int) -> Version:
    storage.activate_transcript(transcript_id)
    return Version.of(storage.get_transcript(transcript_id))


@router.get(
    "/recordings/{audio_id}/export",
    summary="What is said, as a file",
    response_class=Response,
    responses={
        200: {
            "description": "The file.",
            "content": {one.media_type.partition(";")[0]: {"schema": {"type": "string"}} for one in FORMATS.values()},
        }
    },
)
def export(
    storage: Caller,
    audio_id: AudioId,
    format: Annotated[ExportFormat, Query()] = "srt",
    transcript_id: OtherVersion = None,
) -> Response:
    """Subtitles (srt, vtt), plain text, a table, or whisper's JSON."""
    text = storage.export(audio_id, format, transcript_id)
    name = PurePath(storage.get_recording(audio_id).original_name).stem + FORMATS[format].suffix
    headers = {"Content-Disposition": disposition(name, "attachment")}
    return Response(text, media_type=FORMATS[format].media_type, headers=headers)


@router.post(
    "/recordings/{audio_id}/retranscribe", status_code=202, summary="Transcribe a recording again", tags=["jobs"]
)
def retranscribe_recording(storage: Caller, audio_id: AudioId, wanted: Retranscription) -> Job:
    """A worker makes a new version; earlier ones stay."""
    [job] = storage.retranscribe([audio_id], **wanted.arguments(storage))
    return Job.of(job)


@router.post("/recordings/{audio_id}/embeddings", summary="Make the embeddings that are missing")
async def generate_embeddings(
    request: Request,
    storage: Caller,
    audio_id: AudioId,
    transcript_id: OtherVersion = None,
) -> Embedded:
    """Of all kinds, for one version; answers once they are there."""
    return Embedded(made=await in_turn(request, lambda: storage.generate_embeddings(audio_id, transcript_id)))
