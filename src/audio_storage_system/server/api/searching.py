"""What a search is asked for, and what it answers, as data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, TypeAdapter

from audio_storage_system.errors import InvalidFilter
from audio_storage_system.notation import parse_where
from audio_storage_system.server.fields import Text, parsed_object

Mode = Literal["hybrid", "semantic", "keyword"]
By = Literal["transcript", "audio", "combined"]
Seconds = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Key = Annotated[Text, Field(min_length=1, max_length=255)]
as_text = TypeAdapter(Text).validate_python
LONGEST_TEXT = 100_000  # of which a search uses the first 10,000 characters, and says so
# An address is part of the head of a request, which is bounded (`protocol`); what is longer is sent as JSON.
LONGEST_IN_ADDRESS, MOST_CONDITIONS = 2_000, 8
Condition = Annotated[Text, Field(max_length=500)]

WHERE_MAPPING = (
    "Metadata and facts of the recording: a key and its value, a list of values, or comparisons: "
    "`eq`, `in`, `exists`, `gt`, `gte`, `lt`, `lte`."
)
WHERE_TEXTS = (
    "A condition on metadata or a fact: `project=move`, `week>=40`, `project in move,hire`, `user` (has that key), "
    "`!user`, or a JSON object as for `POST`. Several must all hold."
)


def _sendable(where: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """What JSON itself can say: Python's reader takes more, and answers could not repeat it."""
    rest: list[Any] = [where]
    while rest:
        value = rest.pop()
        if isinstance(value, dict):
            rest += [*value.keys(), *value.values()]
        elif isinstance(value, list):
            rest += value
        elif isinstance(value, str):
            as_text(value)
        elif isinstance(value, float) and not math.isfinite(value):
            raise ValueError("it has a number that is not finite")
    return where


class Limits(BaseModel):
    """What a search is limited to."""

    model_config = ConfigDict(extra="forbid")

    since: Annotated[Text, Field(max_length=64)] | None = Field(
        default=None, description="Recorded then or later (ISO 8601; without a zone: UTC).", examples=["2026-11-01"]
    )
    until: Annotated[Text, Field(max_length=64)] | None = Field(
        default=None, description="Recorded before then.", examples=["2026-12-01T00:00:00+01:00"]
    )
    language: Annotated[Text, Field(max_length=35)] | None = Field(
        default=None, description="Of what is said (ISO 639-1).", examples=["en"]
    )
    speaker: Annotated[Text, Field(max_length=255)] | None = Field(
        default=None, description="Who speaks in the passage.", examples=["Anna"]
    )
    deadline: Seconds | None = Field(
        default=None,
        description="Seconds after which to give up (504); at most, and otherwise, the setting `search_seconds`.",
        examples=[2.5],
    )


class Page(Limits):
    """What hits to give."""

    limit: int = Field(default=10, ge=1, le=1000, description="How many hits.")
    offset: int = Field(default=0, ge=0, le=1_000_000, description="How many of the best hits to leave out.")
    context: int = Field(default=0, ge=0, le=20, description="Neighbouring segments with each hit, on each side.")
    space: Annotated[Text, Field(max_length=255)] | None = Field(
        default=None, description="The model of another embedding space than the active one.", examples=["wordllama"]
    )


class Mapped(BaseModel):
    """Conditions as JSON."""

    where: Annotated[dict[Key, JsonValue], AfterValidator(_sendable)] | None = Field(
        default=None, max_length=64, description=WHERE_MAPPING, examples=[{"project": "move", "week": {"gte": 40}}]
    )


class TextQuery(Page):
    """A text to look for, as query parameters."""

    text: Text = Field(max_length=LONGEST_IN_ADDRESS, description="What to look for.", examples=["next year's budget"])
    mode: Mode = Field(default="hybrid", description="By words (keyword), by meaning (semantic), or both.")
    where: list[Condition] = Field(
        default=[], max_length=MOST_CONDITIONS, description=WHERE_TEXTS, examples=[["project=move"]]
    )


class Search(Page, Mapped):
    """A text to look for."""

    model_config = ConfigDict(strict=True)

    text: Text = Field(max_length=LONGEST_TEXT, description="What to look for.", examples=["budget for next year"])
    mode: Mode = Field(default="hybrid", description="By words (keyword), by meaning (semantic), or both.")


class Example(Page, Mapped):
    """What is to be like the example: the fields of the form beside the file."""

    by: By = Field(default="audio", description="What it sounds like (audio), what it says (transcript), or both.")
    mode: Mode = Field(default="hybrid", description="With `by=transcript`: how to look for what it says.")
    whisper_model: Annotated[Text, Field(max_length=255)] | None = Field(
        default=None, description="What understands the example.", examples=["base"]
    )


class Question(Limits, Mapped):
    """A question for which passages are wanted."""

    model_config = ConfigDict(strict=True)

    text: Text = Field(max_length=LONGEST_TEXT, description="The question.", examples=["When do we move?"])
    max_tokens: int = Field(default=2000, ge=1, le=1_000_000, description="How long the text may be, estimated.")


class Neighbour(BaseModel):
    """A segment beside a hit."""

    start: float
    end: float
    speaker: str | None
    text: str


class Hit(BaseModel):
    """One place where something was said or heard."""

    audio_id: int = Field(examples=[7])
    original_name: str = Field(examples=["meeting.m4a"])
    transcript_id: int | None
    passage_id: int | None
    segment_id: int | None
    start: float = Field(description="Of the passage, in seconds.")
    end: float
    at: float = Field(description="The second to jump to.")
    transcription: str
    similarity: float | None = Field(description="Cosine with the query; null where there is no vector.")
    score: float = Field(description="What the hits are ordered by; comparable within one answer.")
    speaker: str | None
    language: str | None = Field(examples=["en"])
    recorded_at: str = Field(json_schema_extra={"format": "date-time"})
    recorded_offset_minutes: int | None
    metadata: dict[str, Any]
    flags: list[str] = Field(description="What to know of the transcript: `fallback`.")
    before: list[Neighbour]
    after: list[Neighbour]


class Lag(BaseModel):
    """How far a vector index is."""

    indexed: int
    total: int


class SearchAnswer(BaseModel):
    """The hits, best first."""

    query: str = Field(description="The text; of an example, what was understood.")
    mode: Mode
    total: int = Field(description="How many hits were ranked to fill the page; there may be more.")
    hits: list[Hit]
    warnings: list[str] = Field(description="What was not searched, and what to do.")
    index: Lag | None = Field(description="Where the vector index lags; what it lacks was searched all the same.")


class Citation(BaseModel):
    """A numbered source."""

    number: int
    audio_id: int
    original_name: str
    start: float
    end: float
    said_at: str = Field(json_schema_extra={"format": "date-time"})
    speaker: str | None
    passage_ids: list[int]
    text: str
    label: str = Field(examples=["[1] standup.wav, Anna, 2026-11-22 12:00:30 UTC, 00:30–00:58"])
    audio: str = Field(description="Where to listen to it.", examples=["/api/v1/recordings/7/audio#t=30,58"])


class Pack(BaseModel):
    """Text to put before a language model, and the same as data."""

    query: str
    text: str
    tokens: int = Field(description="Its size, estimated: rather too many than too few.")
    citations: list[Citation]


def where_of(conditions: Sequence[str]) -> dict[str, Any]:
    """The conditions of query parameters as `where` takes them. Raises `InvalidFilter`, `InvalidInput`."""
    objects = [one for one in conditions if one.lstrip().startswith("{")]
    words = [one for one in conditions if one not in objects]
    found = parse_where(words)
    for one in objects:
        further = parsed_object(one, "where")
        if twice := found.keys() & further.keys():
            raise InvalidFilter(key=min(twice), reason="it is given twice")
        found |= further
    return found
