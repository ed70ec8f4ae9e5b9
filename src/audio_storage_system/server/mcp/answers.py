"""What the tools answer. Names and descriptions are for the language model that reads it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Seconds = Annotated[float, Field(description="Seconds from the beginning of the recording.")]
ClockTime = Annotated[str, Field(description="Clock time (ISO 8601), in the recording's own zone where it is known.")]
Uri = Annotated[str, Field(description="Where it can be read as a resource.")]
NextCursor = Annotated[str | None, Field(description="Give it as `cursor` for the next page; absent on the last one.")]
Cut = Annotated[bool, Field(description="It is longer than was asked for; this is its beginning.")]
MetadataValues = dict[str, Any]


class Answer(BaseModel):
    """What is empty is left out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return self.model_dump(mode="json", exclude_defaults=True)


class Line(Answer):
    """A segment: a piece of what is said."""

    start: Seconds
    end: Seconds
    text: str
    speaker: str | None = None


class Hit(Answer):
    """A passage that was found."""

    audio_id: int
    name: Annotated[str, Field(description="The recording's file name.")]
    start: Seconds
    end: Seconds
    at: Annotated[float, Field(description="The second to listen from: where the match begins.")]
    said_at: ClockTime
    text: Annotated[str, Field(description="What is said there; empty for a sound without speech.")]
    citation: Annotated[str, Field(description="How to name this place when it is quoted.")]
    uri: Uri
    transcript_id: int | None = None
    speaker: str | None = None
    language: str | None = None
    similarity: Annotated[float | None, Field(description="Likeness of meaning to the query, -1 to 1.")] = None
    flags: Annotated[list[str], Field(description="Doubts about the transcript, such as fallback: made by a simple "
                                      "recogniser, with many errors.")] = []  # fmt: skip
    text_cut: Cut = False
    before: list[Line] = []
    after: list[Line] = []


class SearchAnswer(Answer):
    """What `search_audio` answers: passages, the best first."""

    results: list[Hit]
    next_cursor: NextCursor = None
    warnings: Annotated[list[str], Field(description="What was not searched, and why.")] = []


class Source(Answer):
    """Where a numbered part of a context comes from."""

    number: Annotated[int, Field(description="Its number in the text: [1], [2] …")]
    citation: str
    audio_id: int
    start: Seconds
    end: Seconds
    said_at: ClockTime
    uri: Uri
    speaker: str | None = None


class ContextAnswer(Answer):
    """What `get_context` answers: one text, and the sources of its parts."""

    text: Annotated[str, Field(description="The best passages, each below its numbered source; empty: nothing found.")]
    tokens: Annotated[int, Field(description="About how many tokens the text has.")]
    sources: list[Source]


class RecordingLine(Answer):
    """A recording in a list."""

    audio_id: int
    name: Annotated[str, Field(description="Its file name.")]
    recorded_at: ClockTime
    uri: Annotated[str, Field(description="Where its transcript can be read as a resource.")]
    duration: Annotated[float | None, Field(description="In seconds.")] = None
    metadata: MetadataValues = {}
    metadata_cut: Cut = False


class ListAnswer(Answer):
    """What `list_recordings` answers: recordings, the latest first."""

    recordings: list[RecordingLine]
    next_cursor: NextCursor = None


class Version(Answer):
    """A version of what is said in a recording."""

    transcript_id: int
    active: Annotated[bool, Field(description="Whether search follows this one.")]
    outcome: Annotated[
        str, Field(description="ok; silence: nothing is said; running: not finished; else why it failed.")
    ]
    engine: Annotated[str, Field(description="What made it.")]
    model: str
    created_at: ClockTime
    characters: int
    reason: str | None = None
    language: str | None = None
    confidence: Annotated[float | None, Field(description="How sure the engine was, 0 to 1.")] = None
    flags: list[str] = []


class RecordingAnswer(Answer):
    """What `get_recording` answers."""

    audio_id: int
    name: Annotated[str, Field(description="Its file name.")]
    status: str
    recorded_at: ClockTime
    created_at: Annotated[str, Field(description="When it was stored.")]
    size: Annotated[int, Field(description="In bytes.")]
    sha256: str
    uri: Annotated[str, Field(description="Where its transcript can be read as a resource.")]
    versions: Annotated[list[Version], Field(description="The latest last.")]
    duration: Annotated[float | None, Field(description="In seconds.")] = None
    media_type: str | None = None
    codec: str | None = None
    sample_rate: int | None = None
    channels: int | None = None
    metadata: MetadataValues = {}
    metadata_cut: Cut = False
    versions_left_out: Annotated[int, Field(description="How many earlier versions are not shown.")] = 0
    warnings: Annotated[list[str], Field(description="What is wrong with the file.")] = []


class TranscriptAnswer(Answer):
    """What `get_transcript` answers: segments in order."""

    audio_id: int
    name: Annotated[str, Field(description="The recording's file name.")]
    recorded_at: Annotated[
        str, Field(description="Clock time of second 0; add a segment's start for when it was said.")
    ]
    version: Version
    segments: list[Line]
    uri: Uri
    duration: Annotated[float | None, Field(description="Of the recording, in seconds.")] = None
    next_cursor: NextCursor = None


class NoteAnswer(Answer):
    """What `add_note` answers."""

    audio_id: int
    notes: Annotated[int, Field(description="How many notes the recording has now.")]


class MetadataAnswer(Answer):
    """What `set_metadata` answers: all metadata of the recording, as it is now."""

    audio_id: int
    metadata: MetadataValues
    metadata_cut: Cut = False


class TranscribedAnswer(Answer):
    """What `transcribe_file` answers."""

    audio_id: int
    duplicate: Annotated[bool, Field(description="Whether these bytes were in the archive before.")]
    version: Version
    text: str
    uri: Uri
    text_cut: Cut = False
