"""The board of legal holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from audio_storage_system.archive import Archive
from audio_storage_system.catalogue import holds, locks, recordings
from audio_storage_system.catalogue.holds import Hold
from audio_storage_system.catalogue.selections import Selection
from audio_storage_system.errors import InvalidInput
from audio_storage_system.retention import rules

MOST_REASON_CHARACTERS = 10_000


Held = list[Hold]  # inside the class `list` is the method


class Holds:
    """Legal holds: what they cover is removed by no rule and by no hand, until they are released."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    def place(
        self,
        name: str,
        *,
        audio_ids: Sequence[int] = (),
        where: Mapping[str, Any] | None = None,
        owner: str | None = None,
        tag: str | None = None,
        reason: str = "",
    ) -> Hold:
        """Hold these recordings, or every one that meets the conditions now or later. A name is used once.

        Who may change metadata can take a recording out of a hold on metadata: hold by ids what must not be lost so.
        Raises `InvalidInput` where nothing is said about which, `NotFound`, `Conflict`, `Forbidden`.
        """
        self._archive.access.require_admin("place a legal hold")
        selection = Selection(_with_ids(where or {}, audio_ids), owner, tag)
        selection.check()
        if not selection.limits:
            raise InvalidInput(reason="Say what to hold: recordings by their ids, by metadata, owner or tag")
        if len(reason) > MOST_REASON_CHARACTERS:
            raise InvalidInput(reason=f"A reason has at most {MOST_REASON_CHARACTERS:,} characters")
        name = rules.checked_name(name)
        with self._archive.database.write(locks.HOLDS) as connection:
            for audio_id in audio_ids:
                recordings.get(connection, int(audio_id), trashed=True)
            placed = holds.place(connection, name, selection, reason, self._archive.access.principal_id)
            self._archive.audit.note(connection, "hold.placed", None, hold=name)
        return placed

    def list(self, *, released: bool = False) -> Held:
        """The holds, in the order in which they were placed; with `released`, those that hold no longer too. Raises
        `Forbidden`."""
        self._archive.access.require_admin("read legal holds")
        with self._archive.database.read() as connection:
            return holds.every(connection, released=released)

    def release(self, name: str) -> Hold:
        """End a hold. What it covered is then under the rules again. Raises `NotFound`, `Forbidden`."""
        self._archive.access.require_admin("release a legal hold")
        with self._archive.database.write(locks.HOLDS) as connection:
            released = holds.release(connection, name)
            self._archive.audit.note(connection, "hold.released", None, hold=name)
        return released


def _with_ids(where: Mapping[str, Any], audio_ids: Sequence[int]) -> dict[str, Any]:
    if not audio_ids:
        return dict(where)
    if "audio_id" in where:
        raise InvalidInput(reason="Give ids either as audio_ids or as a condition on audio_id")
    return {**where, "audio_id": {"in": [int(audio_id) for audio_id in audio_ids]}}
