"""What the fields of requests can be."""

from __future__ import annotations

import base64
import binascii
import json
from datetime import datetime
from typing import Annotated, Any

from fastapi import Path
from pydantic import AfterValidator

from audio_storage_system.errors import InvalidInput

LARGEST_ID = 2**63 - 1
MOST_JSON_CHARACTERS = 64 << 10


def checked_text(value: str) -> str:
    """The same. Raises `ValueError` where it has what no text has: NUL, and halves of characters."""
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError("it has characters that are not text")
    return value


Text = Annotated[str, AfterValidator(checked_text)]
AudioId = Annotated[int, Path(ge=1, le=LARGEST_ID, description="The recording.", examples=[7])]


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


def cursor_of(recorded_at: datetime, audio_id: int) -> str:
    """The place behind a recording in a listing, as text that says nothing."""
    return base64.urlsafe_b64encode(f"{recorded_at.isoformat()} {audio_id}".encode()).decode()


def place_of(cursor: str | None) -> tuple[datetime, int] | None:
    """The place that a cursor stands for. Raises `InvalidInput`."""
    if cursor is None:
        return None
    try:
        moment, _, number = base64.urlsafe_b64decode(cursor.encode()).decode().partition(" ")
        place = datetime.fromisoformat(moment), int(number)
        if place[0].tzinfo is None or not 0 < place[1] <= LARGEST_ID:
            raise ValueError
    except (ValueError, binascii.Error) as error:
        raise InvalidInput(reason="The cursor is not one that was given out") from error
    return place
