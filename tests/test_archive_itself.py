"""The archive itself, as its users see it: deletion, the marker, threads, crashes, moving, damage."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from audio_storage_system import AudioStorageSystem, load_audio
from audio_storage_system.errors import (
    ArchiveDamaged,
    ArchiveMismatch,
    ArchiveNotFound,
    InvalidInput,
    InvalidSetting,
    NewerFormat,
    NotFound,
)
from catalogues import database_url, plain_sql

pytestmark = pytest.mark.usefixtures("scripted_engine")


def rows(storage: AudioStorageSystem, query: str, *values: object) -> list[tuple[object, ...]]:
    """Plain SQL, as the guide has it."""
    return plain_sql(storage.home, query, *values)


def test_deleting_removes_every_trace_and_leaves_a_receipt(home: Path, demo: Path) -> None:
    with AudioStorageSystem(home, transcriber="scripted", sidecars=True, compress="flac") as storage:
        gone, kept = storage.add(demo / "call.flac"), storage.add(demo / "meeting.flac")
        receipt = storage.delete(gone)
        assert receipt.rows["audio_files"] == 1 and receipt.rows["segments"] >= 1 and receipt.rows["embeddings"] >= 3
        for table in ("transcripts", "passages", "embeddings", "metadata"):
            assert rows(storage, f"SELECT count(*) FROM {table} WHERE audio_file_id = ?", int(gone)) == [(0,)]  # noqa: S608
        assert {hit.audio_id for hit in storage.search_similar_audio("spoken", limit=100)} == {kept}
        files = [path.name for path in storage.home.glob("*/*/*/*")]
        assert len(files) == 4, files  # the other recording, its copy and its two sidecars
        with pytest.raises(NotFound):
            storage.get_recording(gone)
        again = storage.add(demo / "call.flac")
        assert again > kept and not again.duplicate


def test_sidecars_show_the_active_transcript(tmp_path: Path, call: Path) -> None:
    moment = datetime(2026, 11, 22, 12, tzinfo=UTC)
    with AudioStorageSystem(tmp_path / "a", transcriber="scripted", sidecars=True, compress="pcm16") as storage:
        storage.add(call, recorded_at=moment)
        document = json.loads((storage.home / "transcripts/2026/11/transcript_20261122_120000_flac.json").read_text())
        assert document["transcription"] == storage.transcripts(1)[0].transcription
        vectors = np.load(storage.home / "embeddings/2026/11/embedding_20261122_120000_flac.npy")
        assert vectors.ndim == 2 and np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
        copy = load_audio(storage.home / "copies/2026/11/copy_20261122_120000_flac.wav")
        assert copy.duration == pytest.approx(storage.get_recording(1).duration or 0, abs=0.01)


def test_old_recordings_are_cleaned_up_by_when_they_were_stored(storage: AudioStorageSystem, demo: Path) -> None:
    long_ago = datetime(2020, 1, 1, tzinfo=UTC)
    storage.add(demo / "call.flac", recorded_at=long_ago)
    assert storage.cleanup_old_files(days_old=30) == []
    assert [receipt.audio_id for receipt in storage.cleanup_old_files(days_old=0)] == [1]
    with pytest.raises(InvalidInput):
        storage.cleanup_old_files(days_old=-1)


def test_a_users_audio_is_only_his(storage: AudioStorageSystem, call: Path) -> None:
    audio_id = storage.add(call, metadata={"user_id": "john"})
    assert storage.get_user_audio("john", audio_id).id == audio_id
    with pytest.raises(NotFound):
        storage.get_user_audio("anna", audio_id)


def test_the_marker_says_which_archive_it_is(storage: AudioStorageSystem) -> None:
    marker = json.loads((storage.home / "metadata.json").read_text())
    assert marker["archive_id"] == storage.stats()["archive_id"] and marker["format_version"] == 1
    assert {space["kind"] for space in marker["spaces"]} == {"transcript", "audio", "combined"}


def test_archives_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    home = tmp_path / "a"
    AudioStorageSystem(home).close()
    marker = home / "metadata.json"
    good = marker.read_text()
    for content, error in [
        (good.replace('"format_version": 1', '"format_version": 99'), NewerFormat),
        ("{broken", ArchiveDamaged),
        (good.replace(json.loads(good)["archive_id"], "another"), ArchiveMismatch),
    ]:
        marker.write_text(content)
        with pytest.raises(error):
            AudioStorageSystem(home)
    marker.write_text(good)
    (home / "audio_storage.db").rename(home / "elsewhere")
    with pytest.raises(ArchiveDamaged, match="catalogue"):
        AudioStorageSystem(home)
    with pytest.raises(ArchiveNotFound, match="init"):
        AudioStorageSystem(tmp_path / "nowhere", create=False)


def test_ids_and_places_that_cannot_be_are_refused(storage: AudioStorageSystem, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        storage.get_recording(10**9)
    with pytest.raises(InvalidInput):
        storage.get_recording(2**70)
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInput, match="not the folder"):
        AudioStorageSystem(tmp_path / "file")


def test_postgres_without_an_address_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="AUDIO_STORAGE_DATABASE_URL"):
        AudioStorageSystem(storage_backend="postgres")
    with pytest.raises(InvalidSetting, match="sqlite"):
        AudioStorageSystem(storage_backend="oracle")


def test_the_index_can_be_made_anew(storage: AudioStorageSystem, call: Path) -> None:
    storage.add(call)
    before = storage.search_similar_audio("second spoken").hits
    table = "passage_search WHERE space_id = 0" if database_url(storage.home) else "passages_fts"
    rows(storage, f"DELETE FROM {table}")  # noqa: S608
    assert not storage.search_similar_audio("spoken", mode="keyword").hits
    states = storage.reindex()
    assert all(state.indexed == state.total for state in states.values()) and len(states) == 3
    after = storage.search_similar_audio("second spoken")
    assert after.hits == before and after.as_dict()["index"] is None


def test_threads_share_one_archive(storage: AudioStorageSystem, demo: Path) -> None:
    errors: list[BaseException] = []

    def work(path: Path) -> None:
        try:
            storage.add(path)
            assert storage.search_similar_audio("spoken").hits
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(path,)) for path in [*demo.glob("*.flac")] * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == [] and len(storage.list_recordings()) == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_has_connections_of_its_own(storage: AudioStorageSystem, call: Path) -> None:
    storage.add(call)
    child = os.fork()
    if child == 0:
        os._exit(0 if len(storage.list_recordings()) == 1 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert len(storage.list_recordings()) == 1


CRASHES = """
import sys
from audio_storage_system import AudioStorageSystem
from audio_storage_system.catalogue import recordings
import os, signal
from datetime import UTC, datetime
def die(*args, **kwargs): os.kill(os.getpid(), signal.SIGKILL)
recordings.add = die
AudioStorageSystem(sys.argv[1]).store_audio_file(sys.argv[2], recorded_at=datetime(2025, 3, 4, 5, 6, 7, tzinfo=UTC))
"""


def test_a_blob_whose_row_was_never_written_is_adopted(home: Path, call: Path) -> None:
    AudioStorageSystem(home).close()
    child = subprocess.run([sys.executable, "-W", "ignore", "-c", CRASHES, str(home), str(call)], check=False)
    assert child.returncode == -signal.SIGKILL
    with AudioStorageSystem(home, transcriber="scripted") as storage:
        [recording] = storage.list_recordings()
        assert recording.file_hash == hashlib.sha256(call.read_bytes()).hexdigest()
        assert recording.recorded_at == datetime(2025, 3, 4, 5, 6, 7, tzinfo=UTC)
        [job] = storage.jobs.find()
        assert (job.audio_id, job.state) == (recording.id, "waiting")  # nobody else would transcribe it
        assert storage.add(call).duplicate
        assert [r.original_name for r in storage.list_recordings()] == ["call.flac"]
        assert storage.jobs.get(job.id).state == "done"
    assert len(list((home / "audio_files").rglob("*.flac"))) == 1


def test_moving_the_folder_moves_the_archive(storage: AudioStorageSystem, call: Path, tmp_path: Path) -> None:
    storage.add(call)
    storage.close()
    shutil.move(storage.home, tmp_path / "moved")
    with AudioStorageSystem(tmp_path / "moved") as moved:
        assert moved.search_similar_audio("spoken").hits
        with moved.open_audio(1) as file:
            assert file.read() == call.read_bytes()
