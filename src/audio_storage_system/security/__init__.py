"""The security check: what an auditor would name about an archive, its places and its machine, each with the fix."""

from __future__ import annotations

from pathlib import Path

from audio_storage_system.archive import Archive
from audio_storage_system.security import advisories, places, records
from audio_storage_system.security.weakness import Audited, Gravity, SecurityReport, Weakness

__all__ = ["Gravity", "SecurityReport", "Weakness", "check_security"]


def check_security(
    archive: Archive, *, advisory_database: Path | None = None, stale_days: float = 90.0
) -> SecurityReport:
    """Look at permissions, keys, tokens, people, backups, addresses, versions. Changes nothing and asks no network.

    advisory_database: a folder of OSV advisories (default: `advisories` in the user's data folder). stale_days: what
    nobody has used for so long is stale. Raises `Forbidden`.
    """
    archive.access.require_admin("check the archive's security")
    audited = Audited(archive, advisory_database, stale_days)
    found = [*places.check(audited), *records.check(audited), *advisories.check(audited)]
    order = list(Gravity)
    found.sort(key=lambda weakness: order.index(weakness.gravity))
    return SecurityReport(tuple(found), audited.unchecked)
