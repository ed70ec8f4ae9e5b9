"""What requests and answers have in common."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Generic, Protocol, Self, TypeVar

from fastapi import Path, Query
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, Strict

from audio_storage_system.errors import InvalidInput
from audio_storage_system.server.fields import LARGEST_ID

LARGEST_PAGE = 1_000
# Text without NUL, which no database takes; the pattern also refuses halves of characters.
PATTERN = r"^[^\x00]*$"

Id = Annotated[int, Field(ge=1, le=LARGEST_ID)]
IdInPath = Annotated[int, Path(ge=1, le=LARGEST_ID)]
IdInQuery = Annotated[int | None, Query(ge=1, le=LARGEST_ID)]
Name = Annotated[str, Field(min_length=1, max_length=255, pattern=PATTERN)]
NameInPath = Annotated[str, Path(min_length=1, max_length=255, pattern=PATTERN)]
NameInQuery = Annotated[str | None, Query(min_length=1, max_length=255, pattern=PATTERN)]
NeededName = Annotated[str, Query(min_length=1, max_length=255, pattern=PATTERN)]
Text = Annotated[str, Field(max_length=10_000, pattern=PATTERN)]
Limit = Annotated[int, Query(ge=1, le=LARGEST_PAGE, description="At most so many.")]
Cursor = Annotated[
    str | None,
    Query(max_length=4_096, pattern=PATTERN, description="The `next_cursor` of the page before; none for the first."),
]

# JSON has no times and no pairs: what is strict elsewhere takes text and lists here.
Until = Annotated[AwareDatetime, Strict(False)]

Item = TypeVar("Item")
Key = TypeVar("Key", int, str)


class Dictable(Protocol):
    """The values of the Python API."""

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""


class Asked(BaseModel):
    """The body of a request. Fields that nobody knows are refused, and so are values of another type."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Answer(BaseModel):
    """The content of an answer: what a value of the Python API says of itself."""

    @classmethod
    def of(cls, value: Dictable) -> Self:
        """The answer that such a value is."""
        return cls.model_validate(value.as_dict())


class Page(BaseModel, Generic[Item]):
    """Some of a list."""

    items: list[Item]
    next_cursor: str | None = Field(
        default=None,
        description="Give it back as `cursor` for the next page; `null` where there is none.",
        examples=[None],
    )


def page(found: Sequence[Item], limit: int, cursor_of: Callable[[Item], str]) -> tuple[Sequence[Item], str | None]:
    """Of what was found, one more than was asked for if there are more: the page, and the cursor of the next one."""
    return found[:limit], cursor_of(found[limit - 1]) if len(found) > limit else None


def part(
    found: Sequence[Item], limit: int, after: Key, key_of: Callable[[Item], Key]
) -> tuple[Sequence[Item], str | None]:
    """The page of a list that is at hand, in the order of its keys, of those with a higher key."""
    rest = [item for item in found if key_of(item) > after]
    return page(rest, limit, lambda item: str(key_of(item)))


def number_in(cursor: str | None) -> int:
    """The id that a cursor is; 0 for the first page. Raises `InvalidInput`."""
    if cursor is None:
        return 0
    if not (cursor.isascii() and cursor.isdigit()) or int(cursor[:20]) > LARGEST_ID:
        raise InvalidInput(reason="The cursor is none that this list gave")
    return int(cursor)


def _checked(value: dict[str, Any]) -> dict[str, Any]:
    """JSON whose text is whole: halves of characters (`\\ud800`) are text in JSON, and nowhere else."""
    json.dumps(value, ensure_ascii=False).encode()
    return value


Values = Annotated[dict[str, Any], AfterValidator(_checked)]
Conditions = Annotated[
    Values,
    Field(
        description="Conditions on metadata and fields, all of which hold: as of a search.",
        examples=[{"session": "meeting_1", "duration": {"gt": 60}}],
    ),
]


class RecordingSelection(Answer):
    """Which recordings a rule or a hold is about."""

    where: dict[str, Any] = {}
    owner: str | None = None
    tag: str | None = None
