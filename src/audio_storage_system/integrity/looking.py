"""What a check is given, and what it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from audio_storage_system.archive import Archive
from audio_storage_system.integrity.findings import Finding

Progress = Callable[[str, int, int], None]
# How long what is seen across two places must last to be a finding: somebody may be in the middle of a change.
SETTLE_SECONDS = 2.0


@dataclass
class Look:
    """One verification under way. deep: read contents too. after: of files, only those of recordings with a higher id.
    progress: called with a stage, and how much of how much of it is done. total: how many recordings, and how many
    bytes, there are to look at."""

    archive: Archive
    deep: bool = False
    after: int = 0
    progress: Progress = lambda stage, done, total: None
    total: tuple[int, int] = (0, 0)
    recordings: int = 0
    bytes: int = 0
    last_id: int = 0
    skipped: dict[str, str] = field(default_factory=dict)

    def settle(self) -> None:
        """Let those who are in the middle of a change come to its end."""
        time.sleep(SETTLE_SECONDS)


@dataclass(frozen=True, slots=True)
class Check:
    """Something to be looked at. look: what is wrong. repair: makes anew what it can of these findings. settles: it
    looks at two places that change one after the other, so only what a second look confirms is a finding. deep: only
    made when contents are to be read."""

    name: str
    look: Callable[[Look], Iterator[Finding]]
    repair: Callable[[Archive, Sequence[Finding]], None] | None = None
    settles: bool = False
    deep: bool = False
