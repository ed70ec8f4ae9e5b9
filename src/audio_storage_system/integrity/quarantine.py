"""The board of the quarantine: files that no recording has, moved aside by `verify(repair=True)`."""

from __future__ import annotations

from datetime import timedelta

from audio_storage_system.archive import Archive, orphans
from audio_storage_system.clock import MOST_DAYS
from audio_storage_system.errors import InvalidInput

# Inside the class `list` is the method.
Keys = list[str]


class Quarantine:
    """Files that belong to no recording. Nothing looks at them until they are put back; once their term is over
    (`quarantine_days`), workers remove them for good."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    def list(self) -> Keys:
        """Their keys, `quarantine/<date>/<key before>`. Raises `Forbidden`."""
        self._archive.access.require_admin("see what is in quarantine")
        return orphans.quarantined(self._archive)

    def empty(self, *, older_than_days: float | None = None) -> Keys:
        """Remove for good what has been there for so many whole days (default: for its term); the keys of what is gone.
        While a legal hold stands nothing is, and never what a recording is missing. Raises `InvalidInput`,
        `Forbidden`."""
        self._archive.access.require_admin("empty the quarantine")
        days = self._archive.settings.quarantine_days if older_than_days is None else older_than_days
        if not 0 <= days <= MOST_DAYS:
            raise InvalidInput(reason=f"older_than_days is 0…{MOST_DAYS:,}, not {days:g}")
        return orphans.purge(self._archive, timedelta(days=days))

    def restore(self, key: str) -> str:
        """Put a file back where it was, or under the next free name; its key now. Audio becomes a recording, which is
        yours, unless the archive has these bytes already. Raises `NotFound`, `InvalidInput`, `Forbidden`."""
        self._archive.access.require_admin("restore what is in quarantine")
        return orphans.restore(self._archive, key)
