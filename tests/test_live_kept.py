"""What copies and backups make of a recording that is still being made: nothing yet, and all of it later."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from audio_storage_system import AudioStorageSystem, copy_archive, restore_backup
from living import finals, sentences, speak

pytestmark = pytest.mark.usefixtures("scripted_engine")


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[AudioStorageSystem]:
    with AudioStorageSystem(tmp_path / "archive", transcriber="scripted") as opened:
        with opened.live(transcriber="scripted") as before:
            speak(before, sentences(1))
        yield opened


def test_a_copy_passes_it_over_and_has_all_of_it_the_next_time(storage: AudioStorageSystem, tmp_path: Path) -> None:
    session = storage.live(transcriber="scripted", metadata={"room": "blue"})
    speak(session, sentences(2))
    finals(session, 2)
    report = copy_archive(storage.home, tmp_path / "copy")
    assert report.complete and not report.problems
    with AudioStorageSystem(tmp_path / "copy") as copy:
        assert [recording.id for recording in copy.list_recordings()] == [1]
        assert len(copy.search_similar_audio("spoken", mode="keyword")) == 1
    session.finish()
    report = copy_archive(storage.home, tmp_path / "copy", verify="all")
    assert report.complete and not report.problems
    with AudioStorageSystem(tmp_path / "copy") as copy:
        assert [recording.id for recording in copy.list_recordings()] == [2, 1]
        assert copy.get_recording(2).metadata == {"room": "blue"}
        assert len(copy.search_similar_audio("spoken", mode="keyword")) == 3
        assert copy.verify(deep=True).clean


def test_a_backup_restores_without_it_and_the_next_one_with_it(storage: AudioStorageSystem, tmp_path: Path) -> None:
    session = storage.live(transcriber="scripted")
    speak(session, sentences(2))
    finals(session, 2)
    during = storage.backups.create(tmp_path / "backup")
    assert storage.backups.verify(tmp_path / "backup").whole
    assert storage.backups.rehearse(tmp_path / "backup").whole
    session.finish()
    storage.worker(concurrency=1).run_until_idle(threading.Event())
    storage.backups.create(tmp_path / "backup")
    for set_id, ids in ((during.set_id, [1]), (None, [2, 1])):
        restored = restore_backup(str(tmp_path / "backup"), str(tmp_path / f"restored{len(ids)}"), set_id=set_id)
        assert restored.complete and restored.kept_deleted == 0
        with AudioStorageSystem(tmp_path / f"restored{len(ids)}") as archive:
            assert [recording.id for recording in archive.list_recordings()] == ids
            assert archive.recovered == [] and archive.verify(deep=True).clean


def test_what_was_deleted_after_a_backup_does_not_come_back_by_its_live_text(
    storage: AudioStorageSystem, tmp_path: Path
) -> None:
    session = storage.live(transcriber="scripted")
    speak(session, sentences(1))
    finals(session, 1)
    storage.backups.create(tmp_path / "backup")
    session.finish()
    storage.delete(session.audio_id)
    restore_backup(str(tmp_path / "backup"), str(tmp_path / "restored"), deletions_of=str(storage.home))
    with AudioStorageSystem(tmp_path / "restored") as archive:
        assert [hit.audio_id for hit in archive.search_similar_audio("spoken", mode="keyword")] == [1]
