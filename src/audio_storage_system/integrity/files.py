"""Whether every recording has its file, as long as it was and, when asked, with the bytes it had; and which files have
no recording."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy import func, select

from audio_storage_system import marker
from audio_storage_system.archive import Archive, orphans
from audio_storage_system.catalogue.recordings import STORED
from audio_storage_system.database.tables import audio_files
from audio_storage_system.errors import (
    AudioStorageSystemError,
    InvalidInput,
    NotFound,
    SealBroken,
    StorageRefused,
    StorageUnavailable,
)
from audio_storage_system.integrity.findings import MOST_IDS, Finding, Severity
from audio_storage_system.integrity.looking import Check, Look
from audio_storage_system.integrity.rules import RESTORE

ROWS_AT_ONCE = 256
# Files looked at together: a bucket answers many at once, and hashing leaves the interpreter to others.
FAR, NEAR = 16, min(4, os.cpu_count() or 1)
COLUMNS = (audio_files.c.id, audio_files.c.file_path, audio_files.c.file_size, audio_files.c.file_hash)


def _files(look: Look) -> Iterator[Finding]:
    """The file of every recording, in the order of their ids."""
    wrong: dict[str, list[int]] = defaultdict(list)
    counts: dict[str, int] = defaultdict(int)
    with ThreadPoolExecutor(FAR if look.archive.blobs.remote else NEAR) as pool:
        for rows in _batches(look):
            for row, fault in zip(rows, pool.map(lambda row: _fault(look, row), rows), strict=True):
                if fault and _is_still_there(look, row):
                    counts[fault] += 1
                    wrong[fault] += [row.id] * (len(wrong[fault]) < MOST_IDS)
            _note(look, rows)
    for fault, ids in wrong.items():
        given: dict[str, Any] = {"kind": "recording", "ids": tuple(ids), "count": counts[fault]}
        yield Finding("files", Severity.ERROR, fault, f"{RESTORE} Nothing else has these bytes.", **given)


def _batches(look: Look) -> Iterator[Sequence[Any]]:
    last = look.after
    query = select(*COLUMNS).where(audio_files.c.status == STORED).order_by(audio_files.c.id).limit(ROWS_AT_ONCE)
    while True:
        with look.archive.database.read() as connection:
            rows = connection.execute(query.where(audio_files.c.id > last)).all()
        if not rows:
            return
        yield rows
        last = rows[-1].id


def _note(look: Look, rows: Sequence[Any]) -> None:
    if not look.recordings:
        with look.archive.database.read() as connection:
            of = select(func.count(), func.coalesce(func.sum(audio_files.c.file_size), 0))
            number, size = connection.execute(of.where(audio_files.c.id > look.after)).one()
        look.total = (int(number), int(size))
    look.recordings += len(rows)
    look.bytes += sum(row.file_size or 0 for row in rows) if look.deep else 0
    look.last_id = rows[-1].id
    if look.deep:
        look.progress("bytes", look.bytes, look.total[1])
    else:
        look.progress("recordings", look.recordings, look.total[0])


def _fault(look: Look, row: Any) -> str:
    """What is wrong with the file of a recording; empty for nothing. Raises where the store itself cannot be used."""
    blobs = look.archive.blobs
    try:
        size = blobs.size(row.file_path)
        if row.file_size is not None and size != row.file_size:
            return "their files have another size than they were stored with"
        if look.deep and blobs.fingerprint(blobs.describe(row.file_path).sha256) != row.file_hash:
            return "their files have other bytes than they were stored with"
    except NotFound:
        return "their files are missing"
    except InvalidInput:
        return "their files would lie outside the archive, or behind a link"
    except SealBroken:
        return "their files are not what was sealed"
    except (StorageUnavailable, StorageRefused):
        raise
    except (AudioStorageSystemError, OSError):
        return "their files cannot be read"
    return ""


def _is_still_there(look: Look, row: Any) -> bool:
    """Whether the recording is there, with this file. Rows go before files and come after them: one that is there after
    its file was looked at was there then."""
    same = (audio_files.c.id == row.id, audio_files.c.file_path == row.file_path)
    with look.archive.database.read() as connection:
        return connection.execute(select(audio_files.c.id).where(*same)).first() is not None


def _orphans(look: Look) -> Iterator[Finding]:
    """Files without a recording, leaving out what is being stored, copied or deleted at this moment."""
    if marker.is_filling(look.archive.blobs):
        look.skipped["orphans"] = "a copy into this archive is not done"
        return
    finding = Finding.of(
        orphans.unowned(look.archive),
        check="orphans",
        severity=Severity.WARNING,
        what="they are files that no recording has",
        remedy="They are moved into quarantine once they are a day old; see audio-storage quarantine.",
        kind="file",
        repairable=True,
    )
    if finding:
        yield finding


def _move_aside(archive: Archive, found: Sequence[Finding]) -> None:
    """A finding names few of the files, so they are looked for again."""
    orphans.quarantine(archive, list(orphans.unowned(archive, older_than=orphans.SAFE_AGE)))


CHECKS = (Check("files", _files), Check("orphans", _orphans, _move_aside, settles=True))
