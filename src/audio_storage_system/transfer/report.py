"""What a copy did, and how far it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class CopyProgress:
    """How far a copy is. `stage` is `recordings` or the name of the table whose rows are being copied; bytes are those
    of the audio."""

    stage: str
    recordings: int
    of_recordings: int
    bytes: int
    of_bytes: int
    rows: int


Progress: TypeAlias = Callable[[CopyProgress], None]


@dataclass(frozen=True, slots=True)
class CopyProblem:
    """A recording that could not be copied, and why."""

    audio_id: int
    key: str
    reason: str


@dataclass(frozen=True, slots=True)
class TableCount:
    """How many rows a table has on either side, of those that were there when the copy began, and how many this copy
    wrote."""

    source: int
    destination: int
    copied: int


@dataclass(frozen=True, slots=True)
class CopyReport:
    """What a copy did. `source`, `destination`: the places, without secrets.

    tables: the rows counted on either side after the copy. blobs_copied, bytes_copied: audio copied by this run, each
    read back and compared with its hash. blobs_verified: audio at the destination whose hash this run computed.
    deleted: recordings deleted at the destination because they were at the source. kept_deleted: recordings of the
    source that were deleted at the destination and stay so.
    """

    archive_id: str
    source: str
    destination: str
    tables: dict[str, TableCount]
    blobs_copied: int
    bytes_copied: int
    blobs_verified: int
    deleted: int
    kept_deleted: int
    problems: list[CopyProblem] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether the destination equals the source as it was when the copy began."""
        return not self.problems and all(count.source == count.destination for count in self.tables.values())

    @property
    def rows_copied(self) -> int:
        return sum(count.copied for count in self.tables.values())

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**asdict(self), "complete": self.complete}
