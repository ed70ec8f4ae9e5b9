"""Writing to the log: changes in their own transaction, reads in groups."""

from __future__ import annotations

import atexit
import logging
import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from audio_storage_system.audit.chains import Chains
from audio_storage_system.audit.entries import Event, plain, text
from audio_storage_system.audit.origins import origin
from audio_storage_system.audit.reads import Reads
from audio_storage_system.database import Database
from audio_storage_system.errors import AudioStorageSystemError
from audio_storage_system.keys import ArchiveKeys
from audio_storage_system.records import OWNER_ID

logger = logging.getLogger(__name__)

PURPOSE = "audit"


class AuditLog:
    """The log of an archive that has keys, as one process writes it. Safe to share between threads; after a fork the
    child writes chains of its own."""

    def __init__(self, database: Database, keys: ArchiveKeys) -> None:
        self.database = database
        self.keys = keys
        self._chains = Chains(keys.derive(PURPOSE))
        self._reads = Reads(self._write)
        _forget_after_fork(self)
        _write_at_exit(self)

    def note(self, connection: Connection, event: Event) -> None:
        """Enter a change in this transaction."""
        self._chains.write(connection, [event])

    def read(self, event: Event) -> None:
        """Enter a read, soon."""
        self._reads.add(event)

    def flush(self) -> None:
        """Enter the reads collected so far. Raises what the database says."""
        self._reads.flush()

    def close(self) -> None:
        """Enter the reads collected so far, or say that they are lost."""
        try:
            self.flush()
        except AudioStorageSystemError as error:
            logger.warning("The last reads could not be entered in the audit log and are lost: %s", error)

    def forget(self) -> None:
        """Leave everything to the process that this one was forked from."""
        self._chains.forget()
        self._reads.forget()

    def _write(self, events: Sequence[Event]) -> None:
        with self.database.write() as connection:
            self._chains.write(connection, events)


@dataclass(frozen=True, slots=True)
class Audit:
    """Enters what one principal does. Without a log it does nothing."""

    log: AuditLog | None = None
    principal_id: int = OWNER_ID
    principal: str = "owner"

    def note(self, connection: Connection, action: str, audio_id: int | None = None, **details: Any) -> None:
        """Enter a change in the transaction that makes it. `details` hold no text of the recording, no value of its
        metadata, no secret."""
        if self.log is not None:
            self.log.note(connection, self._event(action, audio_id, details))

    def read(self, action: str, audio_id: int | None = None, **details: Any) -> None:
        """Enter that something was read; it is written with others within a second."""
        if self.log is not None:
            self.log.read(self._event(action, audio_id, details))

    def _event(self, action: str, audio_id: int | None, details: dict[str, Any]) -> Event:
        audio_id = None if audio_id is None else int(audio_id)
        return Event(action, audio_id, self.principal_id, text(self.principal), text(origin()), plain(details))


OFF = Audit()


def _forget_after_fork(log: AuditLog) -> None:
    if not hasattr(os, "register_at_fork"):
        return
    reference = weakref.ref(log)

    def forget() -> None:
        if (inherited := reference()) is not None:
            inherited.forget()

    os.register_at_fork(after_in_child=forget)


def _write_at_exit(log: AuditLog) -> None:
    reference = weakref.ref(log)

    def write() -> None:
        if (open_still := reference()) is not None:
            open_still.close()

    atexit.register(write)
