"""Parts of recordings (sound, words, vectors) that were removed after a set was taken, as newer sets know."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select

from audio_storage_system.backup.envelope import Envelope
from audio_storage_system.backup.format import Manifest
from audio_storage_system.backup.packs import Row
from audio_storage_system.backup.places import BackupPlace
from audio_storage_system.backup.reading import rows_of, unseen_rows
from audio_storage_system.database.queries import within
from audio_storage_system.database.tables import audio_files, removals
from audio_storage_system.records import Stage

Key = tuple[int, str, datetime]


def key_of(row: Row) -> Key:
    """Which removal this is: of which recording, what, when."""
    return row["audio_id"], row["stage"], row["removed_at"]


@dataclass
class Removed:
    """The removals of parts that a set does not know of. own: those that it does. parts: by recording, with its hash:
    its id alone could be that of another in an archive that went its own way since."""

    own: set[Key] = field(default_factory=set)
    parts: dict[tuple[int, str], dict[Key, Row]] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)

    @classmethod
    def since(cls, place: BackupPlace, envelope: Envelope, chosen: Manifest) -> Removed:
        """Nothing but what the set itself knows, so far. Raises `BackupDamaged`."""
        known = cls()
        known.own = {key_of(row) for row in known._unseen(place, envelope, chosen)}
        return known

    def add_set(self, place: BackupPlace, envelope: Envelope, manifest: Manifest) -> None:
        """Know what another set knows. Raises `BackupDamaged`."""
        new = self._new(self._unseen(place, envelope, manifest))
        self._add(new, _hashes(place, envelope, manifest, {row["audio_id"] for row in new}))

    def add_archive(self, connection: Connection) -> None:
        """Know what another archive knows."""
        new = self._new(dict(row) for row in connection.execute(select(removals)).mappings())
        mine = within(audio_files.c.id, {row["audio_id"] for row in new})
        rows = connection.execute(select(audio_files.c.id, audio_files.c.file_hash).where(mine))
        self._add(new, {row.id: row.file_hash for row in rows})

    def of(self, audio_id: int, file_hash: str) -> dict[Key, Row]:
        """What was removed of this recording."""
        return self.parts.get((audio_id, file_hash), {})

    def _unseen(self, place: BackupPlace, envelope: Envelope, manifest: Manifest) -> Iterator[Row]:
        return unseen_rows(place, envelope, manifest, removals, self.seen)

    def _new(self, rows: Iterable[Row]) -> list[Row]:
        whole = Stage.RECORDING.value
        return [row for row in rows if row["stage"] != whole and key_of(row) not in self.own]

    def _add(self, rows: Iterable[Row], hashes: dict[int, str]) -> None:
        for row in rows:
            if (file_hash := hashes.get(row["audio_id"])) is not None:  # else it is deleted by now
                self.parts.setdefault((row["audio_id"], file_hash), {})[key_of(row)] = row


def _hashes(place: BackupPlace, envelope: Envelope, manifest: Manifest, audio_ids: set[int]) -> dict[int, str]:
    """The hashes of these recordings, as the set has them."""
    cut = manifest.tables.get(audio_files.name)
    found: dict[int, Any] = {}
    for part in cut.parts if cut and audio_ids else ():
        if any(part.start <= audio_id < part.start + cut.window for audio_id in audio_ids):  # type: ignore[union-attr]
            rows = rows_of(place, envelope, audio_files, part)
            found |= {row["id"]: row["file_hash"] for row in rows if row["id"] in audio_ids}
    return found
