"""What the security check says."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from audio_storage_system.archive import Archive


class Gravity(StrEnum):
    """`serious`: somebody can read or change what he must not. `moderate`: one step more, and he can. `note`: know it,
    and decide."""

    SERIOUS = "serious"
    MODERATE = "moderate"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Weakness:
    """Something an auditor would name. name: what it is called, always the same. evidence: what was seen. fix: a
    command, or what to do."""

    name: str
    gravity: Gravity
    evidence: str
    fix: str

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**asdict(self), "gravity": self.gravity.value}


@dataclass(frozen=True, slots=True)
class SecurityReport:
    """The weaknesses found, the worst first, and what could not be looked at, with the reason."""

    weaknesses: tuple[Weakness, ...]
    unchecked: dict[str, str] = field(default_factory=dict)

    @property
    def serious(self) -> bool:
        """Whether one of them is."""
        return any(weakness.gravity is Gravity.SERIOUS for weakness in self.weaknesses)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        found = [weakness.as_dict() for weakness in self.weaknesses]
        return {"serious": self.serious, "weaknesses": found, "unchecked": self.unchecked}


@dataclass(frozen=True, slots=True)
class Audited:
    """What is looked at. advisories: a folder or file of known vulnerabilities. stale_days: what nobody has used for so
    long is stale. unchecked: what cannot be looked at is noted there."""

    archive: Archive
    advisories: Path | None = None
    stale_days: float = 90.0
    unchecked: dict[str, str] = field(default_factory=dict)
