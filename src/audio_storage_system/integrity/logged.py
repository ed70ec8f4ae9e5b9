"""Whether the audit log is as it was written."""

from __future__ import annotations

from collections.abc import Iterator

from audio_storage_system import audit
from audio_storage_system.integrity.findings import MOST_IDS, Finding, Severity
from audio_storage_system.integrity.looking import Check, Look

REMEDY = "Ask who could write the database; compare with an anchor: audio-storage audit verify."


def _audit_log(look: Look) -> Iterator[Finding]:
    """Every chain of the log, computed again; nothing where none is kept."""
    log = look.archive.audit_log
    if log is None:
        return
    report = audit.verify(log.database, log.keys)
    if not report.ok:
        places = tuple(f"{fault.chain}/{fault.sequence}" for fault in report.faults[:MOST_IDS])
        what = f"the audit log is not as it was written: {report.faults[0].message}"
        yield Finding("audit log", Severity.ERROR, what, REMEDY, "entry", places, report.fault_count)


CHECKS = (Check("audit log", _audit_log),)
