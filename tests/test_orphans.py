"""Orphans: what belongs to no recording is moved aside and can be put back; what is missing is named."""

from __future__ import annotations

import io
from datetime import timedelta
from pathlib import Path

import pytest

from audio_storage_system import AudioStorageSystem
from audio_storage_system.archive import orphans, sidecars
from audio_storage_system.errors import InvalidInput
from audio_storage_system.pipeline import storing

pytestmark = pytest.mark.usefixtures("scripted_engine")
KEY = "audio_files/2026/11/audio_20261122_120000.flac"
AT_ONCE = timedelta(0)


def put(storage: AudioStorageSystem, data: bytes, key: str) -> str:
    blobs = storage._archive.blobs
    return blobs.publish(blobs.stage(io.BytesIO(data)), key)


def test_a_blob_without_a_row_is_moved_aside_and_put_back(storage: AudioStorageSystem, demo: Path) -> None:
    archive, sound = storage._archive, (demo / "voice_note.flac").read_bytes()
    kept = storage.add(demo / "call.flac")
    key = put(storage, sound, KEY)
    derived = put(storage, b"{}", "transcripts/2026/11/transcript_20200101_120000.json")
    assert orphans.scan(archive).unowned == (), "too young to be sure"
    found = orphans.scan(archive, older_than=AT_ONCE)
    assert found.unowned == (key, derived) and found.missing == {}
    mine = storage.get_recording(kept).file_path
    moved = orphans.quarantine(archive, [*found.unowned, mine])
    assert moved.keys() == {key, derived}, "not what is a recording's"
    assert sorted(moved.values()) == sorted(orphans.quarantined(archive))
    assert not archive.blobs.has(key) and archive.blobs.has(mine)
    with archive.blobs.open(moved[key]) as file:
        assert file.read() == sound
    assert orphans.restore(archive, moved[key]) == key
    assert [one.file_path for one in storage.list_recordings()].count(key) == 1, "audio becomes a recording"
    with pytest.raises(InvalidInput):
        orphans.restore(archive, mine)


def test_a_missing_blob_is_named_and_its_row_stays(storage: AudioStorageSystem, demo: Path) -> None:
    lost, silent = storage.add(demo / "call.flac"), storage.add(demo / "voice_note.flac", metadata={"a": 1})
    storage.retention.add("sound", 0, stage="audio", where={"a": 1})
    storage.retention.run()
    key = storage.get_recording(lost).file_path
    storage._archive.blobs.delete(key)
    assert orphans.scan(storage._archive).missing == {lost: key}, "what a rule removed is not missing"
    assert storage.stats()["recordings"] == 2 and storage.get_recording(silent).status == "audio_removed"


def test_whoever_is_storing_it_loses_nothing(
    storage: AudioStorageSystem, demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, enter, moved = storage._archive, storing._enter, dict[str, str]()

    def entering(*given: object) -> object:
        if not moved:  # published, and not entered yet
            moved.update(orphans.quarantine(archive, orphans.scan(archive, older_than=AT_ONCE).unowned))
        return enter(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(storing, "_enter", entering)
    audio_id = storage.store_audio_file(demo / "call.flac")
    assert moved
    with storage.open_audio(audio_id) as file:
        assert file.read() == (demo / "call.flac").read_bytes()
    assert sidecars.derived_keys(storage.get_recording(audio_id).file_path)
    assert orphans.scan(archive, older_than=AT_ONCE) == orphans.Orphans((), {})
