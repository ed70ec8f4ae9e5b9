"""Archives whose audit log is kept, an audit log to write to, and what is in its rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import pytest

import audio_storage_system
from audio_storage_system import AudioStorageSystem
from audio_storage_system.audit import Audit, AuditLog
from audio_storage_system.database import Database
from audio_storage_system.keys import ArchiveKeys
from catalogues import open_database, plain_sql

ROOT = bytes(range(32))
KEYS = ArchiveKeys("an archive", ROOT)


def audited(home: Path, **settings: Any) -> AbstractContextManager[AudioStorageSystem]:
    """An archive that keeps its audit log, whose engine is the scripted one where a test uses that."""
    return AudioStorageSystem(home, audit=True, **{"transcriber": "scripted", **settings})


def speech_file(path: Path) -> Path:
    """A recording of somebody talking, under this name."""
    path.write_bytes((Path(audio_storage_system.__file__).parent / "demo" / "voice_note.flac").read_bytes())
    return path


def actions(storage: AudioStorageSystem, **wanted: Any) -> list[str]:
    """What was entered, the oldest first, without the beginnings of chains and without this look at it."""
    page = storage.audit.list(limit=10_000, **wanted)
    return [one.action for one in reversed(page.entries) if one.action not in ("chain.begun", "audit.listed")]


@pytest.fixture
def database(home: Path) -> Iterator[Database]:
    with closing(open_database(home)) as opened:
        yield opened


@pytest.fixture
def log(database: Database) -> Iterator[AuditLog]:
    log = AuditLog(database, KEYS)
    yield log
    log.close()


@pytest.fixture
def kept(home: Path, scripted_engine: object) -> Iterator[AudioStorageSystem]:
    with audited(home) as storage:
        yield storage


def note(log: AuditLog, action: str = "recording.stored", audio_id: int | None = 1, **details: object) -> None:
    with log.database.write() as connection:
        Audit(log).note(connection, action, audio_id, **details)


def rows(home: Path) -> list[tuple[object, ...]]:
    return plain_sql(home, "SELECT chain, sequence, action, audio_id, id FROM audit_log ORDER BY chain, sequence")
