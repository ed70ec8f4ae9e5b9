"""What requests and answers have in common."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, Generic, Protocol, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from audio_storage_system.errors import InvalidInput
from audio_storage_system.server.fields import LARGEST_ID, Language, Name, Text

Item = TypeVar("Item")
Key = TypeVar("Key", int, str)


class Dictable(Protocol):
    """The values of the Python API."""

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""


class Asked(BaseModel):
    """The body of a request. Fields that nobody knows are refused, and so are values of another type."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Given(BaseModel):
    """The same of an address or a form, where all values are text."""

    model_config = ConfigDict(extra="forbid")


class Filters(Given):
    """To what recordings something is limited, beside conditions."""

    since: Annotated[Text, Field(max_length=64)] | None = Field(
        default=None, description="Recorded then or later (ISO 8601; without a zone: UTC).", examples=["2026-11-01"]
    )
    until: Annotated[Text, Field(max_length=64)] | None = Field(
        default=None, description="Recorded before then.", examples=["2026-12-01T00:00:00+01:00"]
    )
    language: Language | None = Field(default=None, description="Of what is said (ISO 639-1).", examples=["en"])
    speaker: Name | None = Field(default=None, description="Who speaks.", examples=["Anna"])

    def limits(self, where: dict[str, Any] | None) -> dict[str, Any]:
        """As the Python API takes them, with these conditions."""
        return {"where": where, **{name: getattr(self, name) for name in Filters.model_fields}}


class Answer(BaseModel):
    """The content of an answer: what a value of the Python API says of itself."""

    @classmethod
    def of(cls, value: Dictable) -> Self:
        """The answer that such a value is."""
        return cls.model_validate(value.as_dict())


class RecordingSelection(Answer):
    """Which recordings a rule or a hold is about."""

    where: dict[str, Any] = {}
    owner: str | None = None
    tag: str | None = None


# Lists, page by page


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
    if not (cursor.isascii() and cursor.isdigit()) or len(cursor) > 19 or int(cursor) > LARGEST_ID:
        raise _no_cursor()
    return int(cursor)


def cursor_of(moment: datetime, number: int) -> str:
    """The place behind something in a list by time, as text that says nothing."""
    return base64.urlsafe_b64encode(f"{moment.isoformat()} {number}".encode()).decode()


def place_of(cursor: str | None) -> tuple[datetime, int] | None:
    """The place that such a cursor stands for; `None` for the first page. Raises `InvalidInput`."""
    if cursor is None:
        return None
    try:
        moment, _, number = base64.urlsafe_b64decode(cursor.encode()).decode().partition(" ")
        place = datetime.fromisoformat(moment), int(number)
        if place[0].tzinfo is None or not 0 < place[1] <= LARGEST_ID:
            raise ValueError
    except (ValueError, binascii.Error) as error:
        raise _no_cursor() from error
    return place


def _no_cursor() -> InvalidInput:
    return InvalidInput(reason="The cursor is not one that this list gave")
