"""The audit log: who did what to which recording, when and from where.

Entries are only ever added. Each process writes chains of its own: an entry's MAC is made with a key from outside the
database over the entry and the MAC before it, so nobody without the key can change, remove, add or reorder entries
unseen. What this shows and what not: docs/howto/audit.md.
"""

from audio_storage_system.audit.anchors import Anchor, Head, heads
from audio_storage_system.audit.entries import Entry, Event
from audio_storage_system.audit.log import OFF, Audit, AuditLog
from audio_storage_system.audit.origins import came_from, process_is
from audio_storage_system.audit.verification import AuditReport, Fault, verify

__all__ = [
    "OFF",
    "Anchor",
    "Audit",
    "AuditLog",
    "AuditReport",
    "Entry",
    "Event",
    "Fault",
    "Head",
    "came_from",
    "heads",
    "process_is",
    "verify",
]
