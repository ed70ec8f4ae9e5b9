"""The catalogue on PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import pytest

from audio_storage_system import AudioStorageSystem


def test_an_archive_on_postgresql_finds_what_is_said(
    postgres_url: str, demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDIO_STORAGE_HOME", str(tmp_path / "here"))
    with AudioStorageSystem(postgres_url) as storage:
        audio_id = storage.add(demo / "call.flac", whisper_model="pocketsphinx", metadata={"user": "john"})
        hits = storage.search_similar_audio("my heating is broken", where={"user": "john"})
        assert hits[0].audio_id == audio_id
        assert storage.search_similar_audio("heating", until="2000-01-01").total == 0
