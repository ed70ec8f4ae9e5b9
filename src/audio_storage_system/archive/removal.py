"""Removing from an open archive: from the catalogue, the files, the vector indexes, and what these leave behind."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial

from audio_storage_system import deletion
from audio_storage_system.archive import sidecars
from audio_storage_system.archive.opening import Archive
from audio_storage_system.catalogue import fulltext
from audio_storage_system.clock import NEVER, Deadline
from audio_storage_system.deletion import Receipt
from audio_storage_system.records import Stage
from audio_storage_system.vectors import log

# How long a single deletion may scrub; upkeep, or the next deletion, does the rest.
SCRUBBING_SECONDS = 1.0


def remove(archive: Archive, audio_id: int) -> Receipt:
    """Remove a recording for good; what was removed. A vector database that cannot be reached forgets it when it
    follows again: until then the change log keeps what it has missed. Raises `NotFound`, `UnderLegalHold`."""
    return finish(archive, [remove_stage(archive, audio_id)], Deadline.after(SCRUBBING_SECONDS))[0]


def remove_stage(
    archive: Archive, audio_id: int, stage: Stage = Stage.RECORDING, *, rule: str | None = None
) -> Receipt:
    """Remove a recording or a part of it from the catalogue and the files; `finish` does the rest, for many at once.
    Raises `NotFound`, `UnderLegalHold`."""
    places, audit = (archive.database, archive.blobs), archive.audit
    if stage is Stage.RECORDING:
        return deletion.delete_recording(*places, audio_id, sidecars.derived_keys, audit, rule=rule)
    keys_of = partial(sidecars.keys_of, stage)
    return deletion.delete_stage(*places, audio_id, stage, keys_of, audit, rule=rule)


def finish(archive: Archive, receipts: Iterable[Receipt], deadline: Deadline = NEVER) -> list[Receipt]:
    """Let the vector indexes forget what was removed, and scrub the database; the receipts, saying how far that is."""
    given = list(receipts)
    archive.follow()
    scrub(archive, deadline)
    with archive.database.read() as connection:
        indexes = {name: "pending" if behind else "removed" for name, behind in log.forgetting(connection).items()}
        scrubbed = deletion.is_scrubbed(connection, [receipt.audio_id for receipt in given])
    return [replace(one, indexes=indexes, scrubbed=one.audio_id in scrubbed) for one in given]


def scrub(archive: Archive, deadline: Deadline = NEVER) -> bool:
    """Let nothing be left of what was deleted in the database's own files; whether that is so now. It takes time that
    grows with the full text, is done in short transactions, and goes on where it was left."""
    with archive.database.read() as connection:
        last = deletion.unscrubbed(connection)
    if last is None:
        return True
    if not (_shed(archive, deadline) and not _too_long(archive, deadline) and archive.database.clean()):
        return False
    with archive.database.write() as connection:
        deletion.note_scrubbed(connection, last)
    return True


def _shed(archive: Archive, deadline: Deadline) -> bool:
    first, more = True, True
    while more:
        if deadline.expired:
            return False
        with archive.database.write() as connection:
            more = fulltext.shed(connection, first=first)
        first = False
    return True


def _too_long(archive: Archive, deadline: Deadline) -> bool:
    """A server looks through whole tables: not while somebody waits."""
    return bool(archive.settings.database_url) and deadline is not NEVER
