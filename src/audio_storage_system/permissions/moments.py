"""Until when something holds."""

from __future__ import annotations

from datetime import UTC, datetime

from audio_storage_system.clock import utc_now
from audio_storage_system.errors import InvalidInput


def future(moment: datetime | None) -> datetime | None:
    """The same moment in UTC; `None` stays that, for ever. Raises `InvalidInput` for one that has passed."""
    if moment is None:
        return None
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise InvalidInput(reason=f"expires_at is a time with its zone, not {moment!r}")
    try:
        moment = moment.astimezone(UTC)
    except OverflowError as error:
        raise InvalidInput(reason=f"expires_at={moment} is no time in UTC") from error
    if moment <= utc_now():
        raise InvalidInput(reason=f"expires_at={moment.isoformat()} has passed already")
    return moment
