"""Archives whose audit log is kept."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import audio_storage_system
from audio_storage_system import AudioStorageSystem

ROOT = bytes(range(32))


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
