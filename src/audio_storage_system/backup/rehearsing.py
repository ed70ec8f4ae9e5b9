"""Rehearsing: a set is restored into a scratch place, compared, searched, and removed again."""

from __future__ import annotations

import re
import tempfile
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from sqlalchemy import func, select, true

from audio_storage_system.archive import Archive, open_archive
from audio_storage_system.archive.retrieval import search_text
from audio_storage_system.backup.envelope import envelope_of
from audio_storage_system.backup.places import BackupPlace
from audio_storage_system.backup.report import Progress, VerifyReport
from audio_storage_system.backup.restoring import restore_backup
from audio_storage_system.backup.verifying import note, read_back
from audio_storage_system.catalogue.filters import Filter
from audio_storage_system.clock import NEVER
from audio_storage_system.database.tables import passages, transcripts
from audio_storage_system.errors import AudioStorageSystemError
from audio_storage_system.search import Query
from audio_storage_system.search.query import MAX_LIMIT
from audio_storage_system.settings import Encryption, locate_apart

WORDS = 5


def rehearse_backup(
    archive: Archive, destination: str, set_id: str | None, scratch: Path | None, progress: Progress
) -> VerifyReport:
    """Read a set back, restore it below `scratch` (default: the folder for temporary files), ask what is there for a
    passage by its words, and remove it."""
    archive.access.require_admin("rehearse backups")
    began = time.monotonic()
    with closing(BackupPlace.open(destination)) as place:
        report = read_back(place, envelope_of(archive.keys), place.choose(set_id), progress)
        report = replace(report, how="rehearse")
        if report.whole:
            report = _restored(archive, destination, report, scratch, progress)
        note(archive, place, report)
    return replace(report, seconds=time.monotonic() - began)


def _restored(
    archive: Archive, destination: str, report: VerifyReport, scratch: Path | None, progress: Progress
) -> VerifyReport:
    source = archive.vault.source if archive.vault else None
    with tempfile.TemporaryDirectory(prefix="audio-storage-rehearsal-", dir=scratch) as folder:
        home = Path(folder) / "archive"
        try:
            done = restore_backup(destination, str(home), set_id=report.set_id, progress=progress, encryption=source)
            differences = list(done.differences)
            named = {**locate_apart(home)[1], "blob_cache_bytes": 0}
            with closing(open_archive(home, create=False, encryption=Encryption(source=source), **named)) as restored:
                searched, found = _search(restored)
        except AudioStorageSystemError as error:
            return replace(report, differences=[f"it could not be restored: {error.message}"])
    if not found:
        differences.append(f"a search for words of passage {searched} does not find it")
    return replace(report, differences=differences, searched=searched)


def _search(archive: Archive) -> tuple[int | None, bool]:
    """A passage, and whether some of its words find it; nothing to ask where nothing was said. Which words is not told:
    reports end in logs and mails."""
    with archive.database.read() as connection:
        said = (
            select(passages.c.id, passages.c.audio_file_id, passages.c.text)
            .join(transcripts, transcripts.c.id == passages.c.transcript_id)
            .where(transcripts.c.active == true())
            .order_by(func.length(passages.c.text).desc(), passages.c.id)
            .limit(1)
        )
        row = connection.execute(said).first()
    words = list(dict.fromkeys(re.findall(r"\w+", row.text))) if row else []
    if not row or not words:
        return None, True
    text = " ".join(sorted(words, key=len, reverse=True)[:WORDS])
    only = Filter({"audio_id": row.audio_file_id})
    found = search_text(archive, Query(text, mode="keyword", filter=only, limit=MAX_LIMIT), NEVER)
    return row.id, any(hit.passage_id == row.id for hit in found)
