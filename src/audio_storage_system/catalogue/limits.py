"""What queries take to hold back what whoever asks may not see."""

from __future__ import annotations

from typing import Protocol

from sqlalchemy import ColumnElement, CompoundSelect, Connection


class Limit(Protocol):
    """Who asks, where not everything exists for them: see `access.Access`, which comes above this layer. How it is
    written (`repr`) tells it from any other: what is remembered goes by that."""

    def recordings(self) -> CompoundSelect[int]:
        """The ids of what they may see."""

    def holds(self) -> ColumnElement[bool]:
        """The same as a condition on `audio_files`, for asking about given recordings."""

    def standing(self, connection: Connection) -> Limit | None:
        """The same as of now; `None` where it holds nothing back."""
