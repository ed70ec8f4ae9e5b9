"""The audit log: who did what to which recording, when and from where."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection


class Audit:
    """Writes entries of one process."""

    def note(self, connection: Connection, action: str, audio_id: int | None = None, **details: Any) -> None:
        """Enter a change in the transaction that makes it. `details` hold no text of the recording."""

    def read(self, action: str, audio_id: int | None = None, **details: Any) -> None:
        """Enter that something was read; it is written with others within a second."""
