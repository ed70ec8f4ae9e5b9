"""Orphans: what belongs to no recording is moved aside and can be put back; what is missing is named."""

from __future__ import annotations

import io
import os
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select

from audio_storage_system import AudioStorageSystem
from audio_storage_system.archive import orphans, sidecars
from audio_storage_system.clock import utc_now
from audio_storage_system.database.tables import data_keys
from audio_storage_system.errors import InvalidInput, InvalidSetting
from audio_storage_system.jobs.upkeep import RECURRING
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


# How long it stays


def aside(storage: AudioStorageSystem, data: bytes, days: float, key: str = KEY) -> str:
    """A file that was moved aside so many days ago; its key."""
    at = utc_now() - timedelta(days=days)
    moved = orphans.quarantine(storage._archive, [put(storage, data, key)])[key]
    old = f"quarantine/{at:%Y%m%d}/{moved.split('/', 2)[2]}"
    if old != moved:
        (storage.home / old).parent.mkdir(parents=True)
        (storage.home / moved).rename(storage.home / old)
    os.utime(storage.home / old, (at.timestamp(), at.timestamp()))
    return old


def test_the_quarantine_is_emptied_when_its_term_is_over(storage: AudioStorageSystem, demo: Path) -> None:
    mine = storage.add(demo / "call.flac")
    sound = (demo / "voice_note.flac").read_bytes()
    old = aside(storage, sound, 32)
    derived = aside(storage, b"{}", 40, "transcripts/2026/11/transcript_20200101_120000.json")
    young = aside(storage, sound, 29, "audio_files/2026/11/audio_20261122_130000.flac")
    odd = put(storage, sound, "quarantine/elsewhere/audio_files/x.flac")
    just = f"quarantine/{utc_now() - timedelta(days=50):%Y%m%d}/copies/just.flac"  # of an old day, and stored just now
    put(storage, sound, just)
    RECURRING["keep"].do(storage._archive, storage.jobs)
    assert sorted(storage.quarantine.list()) == sorted([young, odd, just])
    assert {old, derived}.isdisjoint(storage._archive.blobs.keys("quarantine"))
    assert storage.quarantine.empty() == []
    for wrong in (-1, float("nan"), 1e9):
        with pytest.raises(InvalidInput):
            storage.quarantine.empty(older_than_days=wrong)
    assert storage.quarantine.empty(older_than_days=20) == [young]
    with storage.open_audio(mine) as file:
        assert file.read() == (demo / "call.flac").read_bytes()


def test_the_term_is_a_setting(tmp_path: Path) -> None:
    with AudioStorageSystem(tmp_path / "archive", quarantine_days=3) as storage:
        gone, stays = aside(storage, b"one", 5, "copies/one.flac"), aside(storage, b"two", 2, "copies/two.flac")
        assert (storage.quarantine.empty(), storage.quarantine.list()) == ([gone], [stays])
    with pytest.raises(InvalidSetting):
        AudioStorageSystem(tmp_path / "archive", quarantine_days=0)


def test_what_was_adopted_again_is_never_removed(storage: AudioStorageSystem, demo: Path) -> None:
    sound = (demo / "voice_note.flac").read_bytes()
    back = storage.quarantine.restore(aside(storage, sound, 100))
    os.utime(storage.home / back, (0, 0))
    assert storage.quarantine.empty(older_than_days=0) == []
    RECURRING["keep"].do(storage._archive, storage.jobs)
    [recording] = storage.list_recordings()
    storage.holds.place("case", audio_ids=[recording.id])
    with storage.open_audio(recording.id) as file:
        assert file.read() == sound


def test_the_bytes_that_a_recording_is_missing_stay_until_it_has_them(storage: AudioStorageSystem, demo: Path) -> None:
    audio_id, sound = storage.store_audio_file(demo / "call.flac"), (demo / "call.flac").read_bytes()
    key = storage.get_recording(audio_id).file_path
    storage._archive.blobs.delete(key)
    stray = key.replace("audio_files/", "audio_files/1999/")
    kept = aside(storage, sound, 100, stray)
    assert storage.quarantine.empty() == [], "it may be all there is"
    with storage._archive.blobs.open(kept) as file:
        put(storage, file.read(), key)
    assert storage.quarantine.empty() == [kept]
    with storage.open_audio(audio_id) as file:
        assert file.read() == sound


def test_nothing_is_removed_while_a_legal_hold_stands(storage: AudioStorageSystem, demo: Path) -> None:
    held = storage.add(demo / "call.flac")
    kept = aside(storage, (demo / "voice_note.flac").read_bytes(), 100)
    storage.holds.place("case", audio_ids=[held])
    assert storage.quarantine.empty() == [] and storage.quarantine.list() == [kept]
    storage.holds.release("case")
    assert storage.quarantine.empty() == [kept] and storage.quarantine.list() == []


def test_of_an_encrypted_archive_the_data_key_goes_too(tmp_path: Path, demo: Path) -> None:
    with AudioStorageSystem(tmp_path / "archive", encryption=bytes(range(32))) as storage:

        def keys() -> int:
            with storage._archive.database.read() as connection:
                return int(connection.execute(select(func.count()).select_from(data_keys)).scalar_one())

        audio_id = storage.store_audio_file(demo / "call.flac")
        aside(storage, b"secret", 0, "copies/young.flac")
        aside(storage, b"secret", 100)
        assert len(storage.quarantine.empty()) == 1
        with storage.open_audio(audio_id) as file:
            assert file.read() == (demo / "call.flac").read_bytes()
        assert keys() == 2, "of the recording, and of what has not been there for its time"
