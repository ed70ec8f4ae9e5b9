"""Archives whose audit log is kept, with keys made by hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import audio_storage_system
from audio_storage_system import AudioStorageSystem
from audio_storage_system.audit import AuditLog
from audio_storage_system.jobs import Jobs
from audio_storage_system.keys import ArchiveKeys

ROOT = bytes(range(32))


@contextmanager
def audited(home: Path, **settings: Any) -> Iterator[AudioStorageSystem]:
    """An archive that keeps its audit log."""
    with AudioStorageSystem(home, **{"transcriber": "scripted", **settings}) as storage:
        keep_log(storage)
        yield storage


def speech_file(path: Path) -> Path:
    """A recording of somebody talking, under this name."""
    path.write_bytes((Path(audio_storage_system.__file__).parent / "demo" / "voice_note.flac").read_bytes())
    return path


def keep_log(storage: AudioStorageSystem) -> None:
    """Have the log of an open archive kept from now on."""
    archive = storage._archive
    keys = ArchiveKeys(archive.marker.archive_id, ROOT, encrypted=False)
    storage._archive = replace(archive, keys=keys, audit_log=AuditLog(archive.database, keys))
    storage._jobs.close()
    storage._jobs = Jobs(storage._archive)


def actions(storage: AudioStorageSystem, **wanted: Any) -> list[str]:
    """What was entered, the oldest first, without the beginnings of chains and without this look at it."""
    page = storage.audit.list(limit=10_000, **wanted)
    return [one.action for one in reversed(page.entries) if one.action not in ("chain.begun", "audit.listed")]
