"""What a verification says: findings, each with what it means and what is to be done about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

# Of the ids that a finding is about, so many are named.
MOST_IDS = 20


class Severity(StrEnum):
    """`error`: something of the truth is lost or wrong. `warning`: something derived is, and can be made anew. `note`:
    nothing is wrong, but worth knowing."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be.

    check: which check found it. what: said in a sentence. kind: what `ids` are ids of; at most 20 of the `count` there
    are. remedy: what `repair` does about it where it is `repairable`, else what you can do.
    """

    check: str
    severity: Severity
    what: str
    remedy: str
    kind: str = ""
    ids: tuple[int | str, ...] = ()
    count: int = 0
    repairable: bool = False
    repaired: bool = False

    @classmethod
    def of(cls, ids: Iterable[int | str], **given: Any) -> Finding | None:
        """The finding about these; `None` where there are none. Reads as many as there are, keeps few."""
        named: list[int | str] = []
        count = 0
        for id_ in ids:
            count += 1
            if len(named) < MOST_IDS:
                named.append(id_)
        return cls(**given, ids=tuple(named), count=count) if count else None

    def still(self, later: Finding) -> Finding | None:
        """This, as far as a later look saw it as well; `None` where it is over. A finding that names all its ids keeps
        those that both saw."""
        if (self.check, self.what) != (later.check, later.what):
            return None
        if self.count > len(self.ids) or later.count > len(later.ids):
            return later
        both = tuple(id_ for id_ in later.ids if id_ in self.ids)
        return replace(later, ids=both, count=len(both)) if both or not later.ids else None

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**asdict(self), "severity": self.severity.value, "ids": list(self.ids)}


@dataclass(frozen=True, slots=True)
class Verification:
    """What was looked at, and what was found.

    checks: the names of those made. skipped: what could not be looked at, and why. recordings, bytes: whose files were
    looked at, and how much of them was read. last_id: the last recording whose file was.
    """

    archive_id: str
    deep: bool
    checks: tuple[str, ...]
    findings: tuple[Finding, ...]
    skipped: dict[str, str] = field(default_factory=dict)
    recordings: int = 0
    bytes: int = 0
    last_id: int = 0
    seconds: float = 0.0

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong: what was repaired is not wrong any more, and notes do not count."""
        return all(finding.repaired or finding.severity is Severity.NOTE for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        findings = [finding.as_dict() for finding in self.findings]
        return {"clean": self.clean, **asdict(self), "checks": list(self.checks), "findings": findings}
