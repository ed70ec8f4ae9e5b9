"""The board of the quarantine: files that no recording has, moved aside by `verify(repair=True)`."""

from __future__ import annotations

from audio_storage_system.archive import Archive, orphans

# Inside the class `list` is the method.
Keys = list[str]


class Quarantine:
    """Files that belong to no recording. Nothing looks at them until they are put back, and nothing removes them."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    def list(self) -> Keys:
        """Their keys, `quarantine/<date>/<key before>`. Raises `Forbidden`."""
        self._archive.access.require_admin("see what is in quarantine")
        return orphans.quarantined(self._archive)

    def restore(self, key: str) -> str:
        """Put a file back where it was, or under the next free name; its key now. Audio becomes a recording, which is
        yours, unless the archive has these bytes already. Raises `NotFound`, `InvalidInput`, `Forbidden`."""
        self._archive.access.require_admin("restore what is in quarantine")
        return orphans.restore(self._archive, key)
