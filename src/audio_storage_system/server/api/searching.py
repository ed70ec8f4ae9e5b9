"""What a search is asked for, and what it answers, as data."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from audio_storage_system.server.api.shapes import Filters
from audio_storage_system.server.fields import Conditions, ConditionTexts, Model, Name, Text

Mode = Literal["hybrid", "semantic", "keyword"]
By = Literal["transcript", "audio", "combined"]
Seconds = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
LONGEST_TEXT = 100_000  # of which a search uses the first 10,000 characters, and says so
# An address is part of the head of a request, which is bounded (`protocol`); what is longer is sent as JSON.
LONGEST_IN_ADDRESS = 2_000


class Limits(Filters):
    """What a search is limited to."""

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
    space: Name | None = Field(
        default=None, description="The model of another embedding space than the active one.", examples=["wordllama"]
    )


class TextQuery(Page):
    """A text to look for, as query parameters."""

    text: Text = Field(max_length=LONGEST_IN_ADDRESS, description="What to look for.", examples=["next year's budget"])
    mode: Mode = Field(default="hybrid", description="By words (keyword), by meaning (semantic), or both.")
    where: ConditionTexts = Field(default=[])


class Search(Page):
    """A text to look for."""

    model_config = ConfigDict(strict=True)

    text: Text = Field(max_length=LONGEST_TEXT, description="What to look for.", examples=["budget for next year"])
    mode: Mode = Field(default="hybrid", description="By words (keyword), by meaning (semantic), or both.")
    where: Conditions | None = None


class Example(Page):
    """What is to be like the example: the fields of the form beside the file."""

    by: By = Field(default="audio", description="What it sounds like (audio), what it says (transcript), or both.")
    mode: Mode = Field(default="hybrid", description="With `by=transcript`: how to look for what it says.")
    whisper_model: Model | None = Field(default=None, description="What understands the example.", examples=["base"])
    where: Conditions | None = None


class Question(Limits):
    """A question for which passages are wanted."""

    model_config = ConfigDict(strict=True)

    text: Text = Field(max_length=LONGEST_TEXT, description="The question.", examples=["When do we move?"])
    max_tokens: int = Field(default=2000, ge=1, le=1_000_000, description="How long the text may be, estimated.")
    where: Conditions | None = None


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
