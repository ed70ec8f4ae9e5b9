"""What the fields of requests can be: the words in which every part of the server says what it takes."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from fastapi import Path, Query
from pydantic import AfterValidator, AwareDatetime, Field, JsonValue, Strict

from audio_storage_system.errors import InvalidFilter, InvalidInput
from audio_storage_system.notation import parse_where

LARGEST_ID = 2**63 - 1
LARGEST_PAGE = 1_000
MOST_JSON_CHARACTERS = 64 << 10
# No database takes NUL; a pattern also refuses halves of characters.
TEXT_PATTERN = r"^[^\x00]*$"

T = TypeVar("T")


def checked(value: T) -> T:
    """JSON, if all of it can be kept and said again. Raises `ValueError`: Python's reader takes numbers that are not
    finite and halves of characters, and no database takes NUL."""
    rest: list[Any] = [value]
    while rest:
        one = rest.pop()
        if isinstance(one, dict):
            rest += [*one.keys(), *one.values()]
        elif isinstance(one, list):
            rest += one
        elif isinstance(one, str) and ("\0" in one or any("\ud800" <= character <= "\udfff" for character in one)):
            raise ValueError("it has characters that are not text")
        elif isinstance(one, float) and not math.isfinite(one):
            raise ValueError("it has a number that is not finite")
    return value


Text = Annotated[str, Field(pattern=TEXT_PATTERN)]
Name = Annotated[Text, Field(min_length=1, max_length=255)]
Model = Annotated[Text, Field(max_length=255)]  # an empty one is none
Language = Annotated[Text, Field(max_length=35)]
Id = Annotated[int, Field(ge=1, le=LARGEST_ID)]
AudioId = Annotated[Id, Path(description="The recording.", examples=[7])]
# JSON has no times: what is strict elsewhere takes text here.
Until = Annotated[AwareDatetime, Strict(False)]

Limit = Annotated[int, Field(ge=1, le=LARGEST_PAGE, description="At most so many.")]
Cursor = Annotated[
    Annotated[Text, Field(max_length=4_096)] | None,
    Query(description="The `next_cursor` of the page before; none for the first."),
]

Key = Annotated[str, Field(min_length=1, max_length=255)]
Values = Annotated[dict[Key, JsonValue], AfterValidator(checked)]
Conditions = Annotated[
    dict[Key, JsonValue],
    Field(
        max_length=64,
        description="Conditions on metadata and facts of the recording, all of which hold: a key and its value, a list "
        "of values, or comparisons: `eq`, `in`, `exists`, `gt`, `gte`, `lt`, `lte`.",
        examples=[{"project": "move", "week": {"gte": 40}}],
    ),
    AfterValidator(checked),
]
# The same in an address.
ConditionTexts = Annotated[
    list[Annotated[Text, Field(max_length=8_000)]],
    Field(
        max_length=8,
        description="A condition on metadata or a fact of the recording, as on the command line: `project=move`, "
        "`week>=40`, `project in move,hire`, `user` (has that key), `!user`; or several as a JSON object, as in the "
        "body of `POST /search`. May be repeated: all must hold.",
        examples=[["project=move", "week>=40"], ['{"project": ["move", "hire"]}']],
    ),
]


def where_of(conditions: Sequence[str]) -> dict[str, Any]:
    """The conditions of an address as `where` takes them. Raises `InvalidFilter`, `InvalidInput`."""
    objects = [one for one in conditions if one.lstrip().startswith("{")]
    found = parse_where(one for one in conditions if one not in objects)
    for one in objects:
        further = parsed_object(one, "where")
        if twice := found.keys() & further.keys():
            raise InvalidFilter(key=min(twice), reason="it is given twice")
        found |= further
    return found


def parsed_object(text: str, what: str) -> dict[str, Any]:
    """A JSON object in a text. Raises `InvalidInput`."""
    if len(text) > MOST_JSON_CHARACTERS:
        raise InvalidInput(reason=f"{what} has at most {MOST_JSON_CHARACTERS:,} characters")
    try:
        found = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(reason=f"{what} is not JSON") from error
    if not isinstance(found, dict):
        raise InvalidInput(reason=f"{what} is not a JSON object")
    return found


def _no_number(name: str) -> None:
    raise ValueError(name)
