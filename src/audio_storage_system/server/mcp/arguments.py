"""What the tools take. Descriptions are for the language model that calls them."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from audio_storage_system.server.fields import Text, checked
from audio_storage_system.server.mcp.cursors import MAX_CHARACTERS

MAX_SEARCH_LIMIT, MAX_LIST_LIMIT, MAX_SEGMENTS = 50, 100, 500
MAX_CHARS, MIN_CHARS, MAX_TOKENS = 100_000, 200, 20_000
MAX_KEYS, MAX_JSON_CHARS, MAX_NOTE_CHARS = 50, 20_000, 10_000
# Integers that every reader of JSON keeps exactly.
MAX_ID = 2**53 - 1


def _is_bounded(value: dict[str, Any]) -> dict[str, Any]:
    try:
        text = json.dumps(value, ensure_ascii=False)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if len(text) > MAX_JSON_CHARS:
        raise ValueError(f"at most {MAX_JSON_CHARS:,} characters of JSON are taken")
    return checked(value)


Json = Annotated[dict[str, Any], Field(max_length=MAX_KEYS), AfterValidator(_is_bounded)]
AudioId = Annotated[int, Field(ge=1, le=MAX_ID, description="The recording's number, as search and listings give it.")]
Cursor = Annotated[
    str | None,
    Field(max_length=MAX_CHARACTERS, description="The `next_cursor` of the page before, with the same arguments."),
]
MaxChars = Annotated[
    int, Field(ge=MIN_CHARS, le=MAX_CHARS, description="About how many characters of text to answer at most.")
]


class Arguments(BaseModel):
    """Nothing is converted, and nothing unknown is taken."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)

    @property
    def asked(self) -> dict[str, Any]:
        """What is asked, apart from where in the answer and how much of it."""
        return self.model_dump(exclude={"cursor", "limit", "max_chars", "max_segments"})


class Filters(Arguments):
    """To what recordings something is limited."""

    where: Annotated[
        Json,
        Field(
            description='Conditions on metadata, all of which must hold: {"project": "apollo"} equal, '
            '{"tag": ["a", "b"]} any of these, {"price": {"gte": 3, "lt": 5}} a range of numbers or ISO 8601 times, '
            '{"customer": {"exists": true}} is there. The names audio_id, original_name, media_type, duration, '
            "created_at, recorded_at, engine, whisper_model, outcome and confidence mean facts of the recording.",
        ),
    ] = Field(default_factory=dict)
    since: Annotated[
        Text | None, Field(max_length=40, description="Only what was recorded then or later (ISO 8601, else UTC).")
    ] = None
    until: Annotated[
        Text | None, Field(max_length=40, description="Only what was recorded before then (ISO 8601, else UTC).")
    ] = None
    language: Annotated[
        Text | None, Field(max_length=20, description="Only what is spoken in this language (ISO 639-1, such as en).")
    ] = None
    speaker: Annotated[
        Text | None, Field(max_length=300, description="Only where this speaker, named exactly so, speaks.")
    ] = None

    @property
    def limits(self) -> dict[str, Any]:
        """As the facade takes them."""
        return {name: getattr(self, name) for name in ("where", "since", "until", "language", "speaker")}


class SearchAudio(Filters):
    """What `search_audio` takes."""

    query: Annotated[
        Text,
        Field(min_length=1, max_length=2000, description="What to look for: a question, or words that were said."),
    ]
    mode: Annotated[
        Literal["hybrid", "semantic", "keyword"],
        Field(description="hybrid: by meaning and by words; semantic: by meaning only; keyword: by words only."),
    ] = "hybrid"
    limit: Annotated[int, Field(ge=1, le=MAX_SEARCH_LIMIT, description="At most so many results.")] = 10
    max_chars: MaxChars = 12_000
    context_segments: Annotated[
        int, Field(ge=0, le=5, description="Give so many segments before and after each result, too.")
    ] = 0
    cursor: Cursor = None


class GetContext(Filters):
    """What `get_context` takes."""

    question: Annotated[Text, Field(min_length=1, max_length=2000, description="The question to be answered.")]
    max_tokens: Annotated[int, Field(ge=50, le=MAX_TOKENS, description="How long the text may be, in tokens.")] = 2000


class ListRecordings(Filters):
    """What `list_recordings` takes."""

    limit: Annotated[int, Field(ge=1, le=MAX_LIST_LIMIT, description="At most so many recordings.")] = 20
    cursor: Cursor = None


class GetRecording(Arguments):
    """What `get_recording` takes."""

    audio_id: AudioId
    max_chars: MaxChars = 20_000


class GetTranscript(Arguments):
    """What `get_transcript` takes."""

    audio_id: AudioId
    transcript_id: Annotated[
        int | None,
        Field(ge=1, le=MAX_ID, description="Another version than the one in use; get_recording lists them."),
    ] = None
    start: Annotated[float | None, Field(ge=0, le=1e9, description="Only from this second of the recording on.")] = None
    end: Annotated[float | None, Field(ge=0, le=1e9, description="Only up to this second of the recording.")] = None
    max_segments: Annotated[int, Field(ge=1, le=MAX_SEGMENTS, description="At most so many segments.")] = 100
    max_chars: MaxChars = 20_000
    cursor: Cursor = None


class AddNote(Arguments):
    """What `add_note` takes."""

    audio_id: AudioId
    text: Annotated[Text, Field(min_length=1, max_length=MAX_NOTE_CHARS, description="The note.")]


class SetMetadata(Arguments):
    """What `set_metadata` takes."""

    audio_id: AudioId
    values: Annotated[
        Json,
        Field(description='Keys and what to set them to: {"project": "apollo", "priority": 2}.'),
    ] = Field(default_factory=dict)
    remove: Annotated[
        list[Annotated[Text, Field(max_length=300)]], Field(max_length=MAX_KEYS, description="Keys to take away.")
    ] = Field(default_factory=list)


class TranscribeFile(Arguments):
    """What `transcribe_file` takes."""

    path: Annotated[
        Text, Field(min_length=1, max_length=4096, description="The audio or video file, below a permitted folder.")
    ]
    language: Annotated[
        Text | None, Field(max_length=20, description="What is spoken (ISO 639-1), where that is known.")
    ] = None
    metadata: Annotated[Json, Field(description="Metadata for the recording.")] = Field(default_factory=dict)
    max_chars: MaxChars = 20_000
