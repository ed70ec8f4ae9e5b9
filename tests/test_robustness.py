"""What must hold when things go wrong at the worst moment: nothing lost, nothing half-stored, nothing blocked."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest

from audio_storage_system import AudioStorageSystem, load_audio
from audio_storage_system.audio.spool import SpoolWriter
from audio_storage_system.catalogue import recordings, transcripts
from audio_storage_system.errors import (
    ArchiveBusy,
    EngineUnavailable,
    InvalidInput,
    InvalidMetadata,
    InvalidSetting,
    NotAudio,
    NotFound,
    StorageFull,
    TranscriptionFailed,
    WeightsUnavailable,
)
from audio_storage_system.pipeline import adopt_orphans
from audio_storage_system.records import Outcome
from audio_storage_system.testing.scripted import ScriptedTranscriber
from audio_storage_system.transcribers import Window

pytestmark = pytest.mark.usefixtures("scripted_engine")
MOMENT = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[AudioStorageSystem]:
    with AudioStorageSystem(tmp_path / "archive", transcriber="scripted") as opened:
        yield opened


def sql(storage: AudioStorageSystem, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(storage.home / "audio_storage.db")) as connection:
        rows = connection.execute(statement).fetchall()
        connection.commit()
        return rows


def blobs(storage: AudioStorageSystem) -> list[Path]:
    return [path for path in (storage.home / "audio_files").rglob("*") if path.is_file()]


# Storing and deleting


def test_a_blob_that_another_process_adopts_while_its_own_gives_up_keeps_its_bytes(
    storage: AudioStorageSystem, call: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = storage._archive
    real_add, real_delete = recordings.add, archive.blobs.delete

    def adopt() -> None:
        adopt_orphans(archive.database, archive.blobs, owner_id=1)

    adopter = threading.Thread(target=adopt)

    def give_up(*_: object, **__: object) -> int:
        monkeypatch.setattr(recordings, "add", real_add)
        raise LookupError

    def delete(key: str) -> bool:
        adopter.start()  # it finds the blob without a row, and waits until it is decided whose it is
        adopter.join(1)
        return real_delete(key)

    monkeypatch.setattr(recordings, "add", give_up)
    monkeypatch.setattr(archive.blobs, "delete", delete)
    with pytest.raises(LookupError):
        storage.store_audio_file(call)
    adopter.join()
    assert all(archive.blobs.has(recording.file_path) for recording in storage.list_recordings())


def test_a_blob_that_is_withdrawn_while_orphans_are_looked_for_is_no_error(
    storage: AudioStorageSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = storage._archive
    monkeypatch.setattr(archive.blobs, "keys", lambda prefix: iter(["audio_files/2026/11/audio_20261122_120000.wav"]))
    assert adopt_orphans(archive.database, archive.blobs, owner_id=1) == []


@pytest.mark.parametrize("moment", ["2026-01-01", datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))])
def test_a_time_of_recording_that_is_none_is_refused(storage: AudioStorageSystem, call: Path, moment: datetime) -> None:
    with pytest.raises(InvalidInput, match="recorded_at"):
        storage.store_audio_file(call, recorded_at=moment)
    assert not blobs(storage)


def test_a_path_with_a_nul_in_it_is_refused_like_any_other_bad_one(storage: AudioStorageSystem) -> None:
    with pytest.raises(InvalidInput, match="no path"):
        storage.add("a\0b.wav")


def test_a_year_of_less_than_four_digits_is_filled_up(storage: AudioStorageSystem, call: Path) -> None:
    audio_id = storage.store_audio_file(call, recorded_at=datetime(5, 1, 2, tzinfo=UTC))
    assert storage.get_recording(audio_id).file_path == "audio_files/0005/01/audio_00050102_000000.flac"


def test_finishing_an_old_deletion_spares_a_new_recording_of_the_same_name(
    storage: AudioStorageSystem, call: Path
) -> None:
    storage.delete(storage.store_audio_file(call, recorded_at=MOMENT))
    sql(storage, "UPDATE tombstones SET completed = 0")  # as if the process had died before noting it
    again = storage.store_audio_file(call, recorded_at=MOMENT)
    with AudioStorageSystem(storage.home) as reopened, reopened.open_audio(again) as file:
        assert file.read() == call.read_bytes()


def test_a_deletion_cut_short_is_finished_at_the_next_opening(storage: AudioStorageSystem, call: Path) -> None:
    audio_id = storage.store_audio_file(call)
    path = storage.home / storage.get_recording(audio_id).file_path
    shutil.copy(path, path.parent / "kept")
    storage.delete(audio_id)
    shutil.move(path.parent / "kept", path)
    sql(storage, "UPDATE tombstones SET completed = 0")
    with AudioStorageSystem(storage.home) as reopened:
        assert reopened.list_recordings() == [] and not path.exists()


def test_when_the_row_cannot_be_written_the_bytes_go_too(
    storage: AudioStorageSystem, call: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> int:
        raise StorageFull(place="here")

    with monkeypatch.context() as patch:
        patch.setattr(recordings, "add", full)
        with pytest.raises(StorageFull):
            storage.add(call)
    assert blobs(storage) == []
    storage.add(call)
    assert len(blobs(storage)) == 1


def test_a_time_without_a_zone_is_refused_before_anything_is_stored(storage: AudioStorageSystem, call: Path) -> None:
    with pytest.raises(InvalidInput, match="time zone"):
        storage.add(call, recorded_at=datetime(2026, 1, 1))
    with pytest.raises(InvalidInput, match="on_duplicate"):
        storage.add(call, on_duplicate="whatever")  # type: ignore[arg-type]
    assert blobs(storage) == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_is_refused_without_waiting_for_it(storage: AudioStorageSystem, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(NotAudio, match="ordinary"):
        storage.add(tmp_path / "pipe.wav")


def test_thousands_of_recordings_do_not_need_thousands_of_parameters(storage: AudioStorageSystem, demo: Path) -> None:
    for path in demo.glob("*.flac"):
        storage.store_audio_file(path, metadata={"user": "john"})
    with storage._archive.database.read() as connection:
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        driver.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 2)
        try:
            assert [r.metadata for r in recordings.select_where(connection)] == [{"user": "john"}] * 3
        finally:
            driver.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 32_766)


# Opening


def test_a_capture_that_cannot_be_recovered_does_not_block_the_archive(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    AudioStorageSystem(tmp_path / "a").close()
    writer = SpoolWriter(tmp_path / "a" / "spool" / "one", 16_000, 1)
    writer.write(np.zeros(24_000, "<i2").tobytes())
    writer.close().release()
    for piece in (tmp_path / "a" / "spool" / "one").glob("*.pcm"):
        piece.write_bytes(bytes([1]) * piece.stat().st_size)
    with AudioStorageSystem(tmp_path / "a") as storage:
        assert storage.recovered == [] and storage.list_recordings() == []
    assert "could not be recovered" in caplog.text
    assert (tmp_path / "a" / "spool" / "one" / "manifest.json").exists()


def test_a_capture_longer_than_the_limit_for_files_is_recovered(tmp_path: Path) -> None:
    AudioStorageSystem(tmp_path / "a").close()
    writer = SpoolWriter(tmp_path / "a" / "spool" / "one", 16_000, 1)
    writer.write(np.ones(48_000, "<i2").tobytes())
    writer.close().release()
    with AudioStorageSystem(tmp_path / "a", max_file_bytes=10) as storage:
        assert [found.seconds for found in storage.recovered] == [3.0]


def test_an_archive_whose_founding_was_cut_short_is_completed(tmp_path: Path, call: Path) -> None:
    AudioStorageSystem(tmp_path / "a").close()
    (tmp_path / "a" / "metadata.json").unlink()
    with closing(sqlite3.connect(tmp_path / "a" / "audio_storage.db")) as connection:
        connection.execute("DELETE FROM embedding_spaces")
        connection.execute("UPDATE archive SET bound = 0")
        connection.commit()
    with AudioStorageSystem(tmp_path / "a", transcriber="scripted") as storage:
        assert storage.add(call).outcome is Outcome.OK
        assert (tmp_path / "a" / "metadata.json").exists()


def test_an_embedder_that_cannot_be_had_leaves_no_archive_behind(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable):
        AudioStorageSystem(tmp_path / "a", text_embedder="openai:text-embedding-3-small")
    assert not (tmp_path / "a").exists()


# Transcribing


def test_only_missing_weights_bring_in_the_fallback(tmp_path: Path, call: Path) -> None:
    with AudioStorageSystem(tmp_path / "a") as storage:
        for model in ("openai:whisper-1", f"faster-whisper:{tmp_path / 'nowhere'}"):
            with pytest.raises(TranscriptionFailed) as caught:
                storage.add(call, whisper_model=model)
            cause = caught.value.__cause__
            assert isinstance(cause, EngineUnavailable) and not isinstance(cause, WeightsUnavailable)
        assert {v.outcome for v in storage.transcripts(1)} == {Outcome.ENGINE_UNAVAILABLE}


def test_a_folder_named_like_a_size_is_not_taken_for_its_weights(
    tmp_path: Path, call: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "base").mkdir()
    monkeypatch.chdir(tmp_path)
    with AudioStorageSystem(tmp_path / "a", transcriber_fallback=None) as storage:
        with pytest.raises(TranscriptionFailed, match="Systran/faster-whisper-base"):
            storage.add(call, whisper_model="base")


def test_a_busy_archive_leaves_the_transcription_to_be_taken_up_again(storage: AudioStorageSystem, call: Path) -> None:
    def busy(window: Window) -> None:
        raise ArchiveBusy(place="here")

    ScriptedTranscriber.before = busy  # type: ignore[assignment]
    with pytest.raises(ArchiveBusy):
        storage.add(call)
    [version] = storage.transcripts(1)
    assert version.outcome is None
    ScriptedTranscriber.before = None
    assert storage.add(call).transcript_id == version.id


def test_a_callback_that_fails_is_no_failure_of_the_transcription(storage: AudioStorageSystem, call: Path) -> None:
    def stop(done: float, total: float) -> None:
        assert 0 <= done <= total
        raise LookupError

    with pytest.raises(LookupError):
        storage.add(call, progress=stop)
    assert storage.transcripts(1)[0].outcome is None
    assert storage.add(call).outcome is Outcome.OK


def test_one_workers_failure_does_not_undo_anothers_success(storage: AudioStorageSystem, call: Path) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def first_waits_and_fails(window: Window) -> None:
        if threading.current_thread().name == "slow":
            entered.set()
            go_on.wait(20)
            raise MemoryError

    ScriptedTranscriber.before = first_waits_and_fails  # type: ignore[assignment]
    audio_id = storage.store_audio_file(call)

    def fail() -> None:
        with pytest.raises(TranscriptionFailed):
            storage.generate_transcript(audio_id)

    slow = threading.Thread(target=fail, name="slow")
    slow.start()
    assert entered.wait(20)
    made = storage.generate_transcript(audio_id)
    go_on.set()
    slow.join()
    assert storage.get_transcript(made).outcome is Outcome.OK and storage.get_transcript(made).active


def test_embeddings_belong_to_their_own_recording_and_to_finished_versions(
    storage: AudioStorageSystem, demo: Path
) -> None:
    one, other = storage.add(demo / "call.flac"), storage.add(demo / "meeting.flac")
    with pytest.raises(NotFound):
        storage.generate_embeddings(one, other.transcript_id)
    third = storage.store_audio_file(demo / "voice_note.flac")
    with storage._archive.database.write() as connection:
        running = transcripts.start(
            connection, third, asked="scripted", engine="scripted", parameters={}, language=None
        )
    assert storage.generate_embeddings(third, running) == 0


# Sidecars


def test_sidecars_written_at_once_stay_one_file_and_go_with_the_recording(tmp_path: Path, call: Path) -> None:
    with AudioStorageSystem(tmp_path / "a", transcriber="scripted", sidecars=True) as storage:
        audio_id = storage.add(call)
        threads = [threading.Thread(target=storage.set_metadata, args=(audio_id, {"n": n})) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        names = [path.name for path in storage.home.glob("transcripts/*/*/*")]
        assert len(names) == 1
        storage.delete(audio_id)
        assert not list(storage.home.glob("transcripts/*/*/*")) + list(storage.home.glob("embeddings/*/*/*"))


# What can never work


@pytest.mark.parametrize("values", [["user"], "user", None, 5])
def test_metadata_that_is_no_mapping_is_refused_and_changes_nothing(
    storage: AudioStorageSystem, call: Path, values: object
) -> None:
    audio_id = storage.store_audio_file(call, metadata={"user": "john"})
    with pytest.raises(InvalidMetadata):
        storage.set_metadata(audio_id, values)  # type: ignore[arg-type]
    assert storage.get_recording(audio_id).metadata == {"user": "john"}


@pytest.mark.parametrize("samples", [np.zeros((2, 16_000), np.float32), np.zeros(16_000, np.int16)])
def test_samples_of_the_wrong_kind_are_refused_before_there_is_a_version(
    storage: AudioStorageSystem, call: Path, samples: np.ndarray
) -> None:
    audio_id = storage.store_audio_file(call)
    with pytest.raises(InvalidInput, match="audio_data"):
        storage.generate_transcript(audio_id, samples)  # type: ignore[arg-type]
    assert storage.transcripts(audio_id) == []


def test_a_plain_array_is_an_example_to_search_by(storage: AudioStorageSystem, call: Path) -> None:
    storage.add(call)
    sound = np.array(load_audio(call, 16_000))
    assert storage.search_similar_audio(audio=sound, by="audio")[0].original_name == "call.flac"  # type: ignore[arg-type]


@pytest.mark.parametrize("days", ["3", None])
def test_a_retention_that_is_no_number_deletes_nothing(storage: AudioStorageSystem, call: Path, days: float) -> None:
    storage.store_audio_file(call)
    with pytest.raises(InvalidInput):
        storage.cleanup_old_files(days)
    assert len(storage.list_recordings()) == 1


@pytest.mark.parametrize("weight", [7, -1, float("nan")])
def test_a_weight_that_is_no_share_is_refused_before_there_is_an_archive(tmp_path: Path, weight: float) -> None:
    with pytest.raises(InvalidSetting, match="combined_weight"):
        AudioStorageSystem(tmp_path / "new", combined_weight=weight)
    assert not (tmp_path / "new").exists()


def test_what_cannot_be_called_is_no_embedding_function(storage: AudioStorageSystem) -> None:
    with pytest.raises(InvalidInput, match="can be called"):
        storage.generate_text_embedding = 5  # type: ignore[assignment]


@pytest.mark.parametrize("page", [{"limit": -1}, {"offset": -1}])
def test_a_listing_has_no_negative_page(storage: AudioStorageSystem, page: dict[str, int]) -> None:
    with pytest.raises(InvalidInput):
        storage.list_recordings(**page)  # type: ignore[arg-type]
