"""An archive to be damaged, and ways to do it behind its back."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from audio_storage_system import AudioStorageSystem
from audio_storage_system.integrity import Finding, Verification, looking
from catalogues import database_url, plain_sql


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Second looks follow at once."""
    monkeypatch.setattr(looking, "SETTLE_SECONDS", 0.05)


@pytest.fixture
def filled(home: Path, demo: Path) -> Iterator[AudioStorageSystem]:
    """An archive with two recordings, said, embedded and with metadata."""
    with AudioStorageSystem(home, transcriber="scripted") as storage:
        storage.add(demo / "call.flac", metadata={"user": "john", "rank": 3, "when": 1.5, "tags": ["a"]})
        storage.add(demo / "voice_note.flac", metadata={"user": "mary", "seen": True, "none": None})
        yield storage


@contextmanager
def unruled(storage: AudioStorageSystem) -> Iterator[Callable[..., object]]:
    """Change the catalogue behind everybody's back, with no rule of the database enforced."""
    if url := database_url(storage.home):
        import psycopg
        from psycopg.types.json import JsonDumper

        with psycopg.connect(url) as server:
            server.execute("SET session_replication_role = replica")
            server.adapters.register_dumper(dict, JsonDumper)
            server.adapters.register_dumper(list, JsonDumper)
            yield lambda sql, *values: server.execute(sql.replace("?", "%s"), values or None)
        return
    with closing(sqlite3.connect(storage.home / "audio_storage.db")) as file:
        yield lambda sql, *values: file.execute(sql, values)
        file.commit()


def harm(storage: AudioStorageSystem, *statements: str) -> None:
    """Do this to the catalogue."""
    with unruled(storage) as execute:
        for statement in statements:
            execute(statement)


TRUTH = (
    *("principals", "audio_files", "transcripts", "transcription_windows", "segments", "passages"),
    *("embedding_spaces", "embeddings", "metadata", "tombstones"),
)


def everything(storage: AudioStorageSystem) -> dict[str, list[tuple[object, ...]]]:
    """The rows that hold the truth."""
    return {table: plain_sql(storage.home, f"SELECT * FROM {table} ORDER BY id") for table in TRUTH}  # noqa: S608


def put_back(storage: AudioStorageSystem, rows: dict[str, list[tuple[object, ...]]]) -> None:
    """Make these rows what they were."""
    with unruled(storage) as execute:
        for table in TRUTH:
            execute(f"DELETE FROM {table}")  # noqa: S608
            for row in rows[table]:
                execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", *row)  # noqa: S608


def one(storage: AudioStorageSystem, query: str) -> Any:
    return plain_sql(storage.home, query)[0][0]


def found(done: Verification, check: str) -> list[Finding]:
    return [finding for finding in done.findings if finding.check == check]


def blob_of(storage: AudioStorageSystem, audio_id: int) -> Path:
    return storage.home / str(storage.get_recording(audio_id).file_path)
