"""Cursors: where the next page begins.

A cursor is the place alone, with a digest of the question that it belongs to. It holds no right and no content: the
call that brings it is answered as any other, to who asks, within what they may see. So there is nothing to gain from
changing one; what cannot be one is refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from datetime import datetime, timedelta
from typing import Any

from audio_storage_system.errors import InvalidInput

MAX_CHARACTERS = 300
# Places are numbers of rows, ids, characters, and microseconds since the beginning of the calendar.
_MOST = (datetime.max - datetime.min) // timedelta(microseconds=1)


def make(question: Any, **place: int) -> str:
    """The cursor of a place in the answer to `question`, which is JSON-able."""
    text = json.dumps([_mark(question), place], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read(cursor: str | None, question: Any, **first: int) -> dict[str, int]:
    """The place that a cursor names, `first` where there is none. Raises `InvalidInput` for what is no cursor, or one
    of another question."""
    if cursor is None:
        return first
    asked, place = _decoded(cursor)
    if asked != _mark(question) or not isinstance(place, dict) or place.keys() != first.keys():
        raise _refused()
    if any(type(value) is not int or not 0 <= value <= _MOST for value in place.values()):
        raise _refused()
    return place


def _decoded(cursor: str) -> tuple[Any, Any]:
    if len(cursor) > MAX_CHARACTERS:
        raise _refused()
    try:
        asked, place = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, TypeError, RecursionError) as error:
        raise _refused() from error
    return asked, place


def _mark(question: Any) -> str:
    """What tells questions apart; no secret, and no proof of anything."""
    text = json.dumps(question, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _refused() -> InvalidInput:
    reason = "The cursor does not belong to this call: give the arguments that it came from, or leave it out"
    return InvalidInput(reason=reason)
