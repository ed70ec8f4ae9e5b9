"""Verifying: every check in its turn, what it found confirmed, and what is derived repaired."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from audio_storage_system.archive import Archive
from audio_storage_system.errors import StorageFailed
from audio_storage_system.integrity import catalogue, content, files, logged, search
from audio_storage_system.integrity.findings import Finding, Severity, Verification
from audio_storage_system.integrity.looking import Check, Look, Progress

CHECKS: tuple[Check, ...] = (*catalogue.CHECKS, *content.CHECKS, *search.CHECKS, *files.CHECKS, *logged.CHECKS)

# What a check may stumble over: a database or store that refuses, and damaged values where others are expected. Neither
# keeps the rest from being checked.
STUMBLES = (StorageFailed, TypeError, ValueError, ArithmeticError, LookupError)


def verify(
    archive: Archive,
    *,
    deep: bool = False,
    repair: bool = False,
    after: int = 0,
    progress: Progress | None = None,
) -> Verification:
    """Look whether everything is there and fits together; with `deep` also at contents: every file's hash, texts,
    vectors, words. With `repair`, make anew what is derived; recordings and what was said in them are never touched.

    It may run while the archive is in use. after: of files, only those of recordings with a higher id. Raises
    `Forbidden`.
    """
    archive.access.require_admin("verify the archive")
    began, look = time.monotonic(), Look(archive, deep, after, progress or (lambda stage, done, total: None))
    chosen = [check for check in CHECKS if deep or not check.deep]
    findings: list[Finding] = []
    for number, check in enumerate(chosen):
        look.progress(f"checking {check.name}", number, len(chosen))
        found = _found(look, check)
        findings += _repaired(look, check, found) if repair and found else found
    return Verification(
        archive.marker.archive_id,
        deep,
        tuple(check.name for check in chosen),
        tuple(findings),
        skipped=look.skipped,
        recordings=look.recordings,
        bytes=look.bytes,
        last_id=look.last_id,
        seconds=time.monotonic() - began,
    )


def _found(look: Look, check: Check) -> list[Finding]:
    """What a check finds; where two places change one after the other, what it finds twice."""
    found = _look(look, check)
    if not (found and check.settles):
        return found
    look.settle()
    return _still(found, _look(look, check))


def _look(look: Look, check: Check) -> list[Finding]:
    try:
        return list(check.look(look))
    except STUMBLES as error:
        what = f"this could not be looked at to its end: {error}"
        return [Finding(check.name, Severity.ERROR, what, "See what it says, then verify again.")]


def _still(before: Sequence[Finding], now: Sequence[Finding]) -> list[Finding]:
    pairs = [(first.still(second)) for first in before for second in now]
    return [finding for finding in pairs if finding is not None]


def _repaired(look: Look, check: Check, found: list[Finding]) -> list[Finding]:
    """The same, those marked that are gone after the repair."""
    wrong = [finding for finding in found if finding.repairable]
    if check.repair is None or not wrong:
        return found
    try:
        check.repair(look.archive, wrong)
    except STUMBLES as error:
        return [
            replace(finding, repairable=False, remedy=f"It could not be repaired: {error}")
            if finding in wrong
            else finding
            for finding in found
        ]
    with look.archive.database.write() as connection:
        look.archive.audit.note(connection, "archive.repaired", check=check.name)
    left = {(finding.check, finding.what): finding for finding in _look(replace(look), check)}
    return [
        left.get((finding.check, finding.what)) or replace(finding, repaired=finding.repairable) for finding in found
    ]
