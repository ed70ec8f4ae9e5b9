"""What making, verifying and restoring backups did, and how far they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, TypeAlias

from audio_storage_system.backup.format import Problem
from audio_storage_system.records import jsonable


@dataclass(frozen=True, slots=True)
class BackupProgress:
    """How far it is. `stage` is the name of the table that is being read or written, or `audio`; bytes are those of the
    audio."""

    stage: str
    rows: int
    blobs: int = 0
    of_blobs: int = 0
    bytes: int = 0
    of_bytes: int = 0


Progress: TypeAlias = Callable[[BackupProgress], None]


class _Report:
    """What all reports can do."""

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        data: dict[str, Any] = jsonable(asdict(self))  # type: ignore[call-overload]
        return data


@dataclass(frozen=True)
class BackupReport(_Report):
    """What making a backup did. `destination`: the place, without secrets.

    rows: in the set, by table. packs_written, packs_reused: of the catalogue. blobs, bytes: audio in the set.
    blobs_copied, bytes_copied: what of it was not there yet. expires_at: when pruning removes it, if not by rules.
    problems: recordings whose audio is missing or damaged in the archive; all else of them is in the set.
    """

    set_id: str
    destination: str
    taken_at: datetime
    rows: dict[str, int]
    packs_written: int
    packs_reused: int
    blobs: int
    bytes: int
    blobs_copied: int
    bytes_copied: int
    expires_at: datetime | None = None
    problems: list[Problem] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether the audio of every recording is in the set."""
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**super().as_dict(), "complete": self.complete}


@dataclass(frozen=True)
class BackupSet(_Report):
    """One set. verified_at: when it was read back and found whole last. expires_at, removed_at: as the catalogue knows;
    `there` tells whether it is at the destination, `None` where that was not looked at."""

    set_id: str
    destination: str
    taken_at: datetime
    verified_at: datetime | None = None
    expires_at: datetime | None = None
    removed_at: datetime | None = None
    there: bool | None = None


@dataclass(frozen=True, slots=True)
class Damage:
    """What is rotten: an object of the backup, and what is lost with it: rows of a table from an id on, or the
    audio of a recording."""

    key: str
    reason: str
    table: str | None = None
    from_id: int | None = None
    audio_id: int | None = None


@dataclass(frozen=True)
class VerifyReport(_Report):
    """What reading a set back found. how: `verify`, or `rehearse` where it was restored as well. audit: the anchor of
    the audit log that is in the set, of an archive that keeps one."""

    set_id: str
    destination: str
    how: str
    complete: bool
    rows: dict[str, int]
    blobs: int
    bytes: int
    damages: list[Damage] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    searched: int | None = None
    audit: Any = None
    seconds: float = 0.0

    @property
    def whole(self) -> bool:
        """Whether everything that the set names is there and is what was written."""
        return not self.damages and not self.differences

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**super().as_dict(), "whole": self.whole}


@dataclass(frozen=True)
class RestoreReport(_Report):
    """What restoring did. rows: written, by table. kept_deleted: recordings of the set that were deleted since it was
    taken, and stay so; kept_removed: parts of others (sound, words, vectors). problems: recordings whose audio could
    not be restored; all else of them is there. differences: where the archive is not what the set says."""

    set_id: str
    archive_id: str
    source: str
    destination: str
    taken_at: datetime
    rows: dict[str, int]
    blobs: int
    bytes: int
    kept_deleted: int
    kept_removed: int = 0
    problems: list[Problem] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether the archive equals the set, later deletions excepted."""
        return not self.problems and not self.differences

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**super().as_dict(), "complete": self.complete}
