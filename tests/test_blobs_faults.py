"""A server that fails now and then, or for good: what is retried, what is said, and what is left."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from audio_storage_system import AudioStorageSystem
from audio_storage_system.blobs import open_blob_store
from audio_storage_system.errors import StorageFailed, StorageUnavailable
from audio_storage_system.testing.blobs import KEY, LARGE, get, put
from servers.faulty import Day, Fault


@pytest.mark.parametrize("fault", [429, 500, 503, "silence", "lost", "half"])
def test_what_fails_now_and_then_is_done_again(s3_url: str, bad_day: Day, fault: Fault) -> None:
    bad_day.fault = lambda method, path, number: (
        fault if number % 3 == 0 and (fault != "half" or method == "GET") else None
    )
    store = open_blob_store(s3_url)
    contents = [os.urandom(1000), os.urandom(LARGE), os.urandom(1000)]
    stem = KEY.removesuffix(".wav")
    keys = [put(store, data) for data in contents]
    assert keys == [KEY, f"{stem}-2.wav", f"{stem}-3.wav"]
    assert [get(store, key) for key in keys] == contents
    assert [b"".join(store.stream(key)) for key in keys] == contents
    assert sorted(store.keys()) == sorted(keys)
    assert store.delete(KEY)
    assert not store.has(KEY)


@pytest.mark.parametrize(("fault", "honest"), [(503, 0), (503, 5), ("silence", 6)])
def test_a_server_that_fails_for_good_is_an_error_soon_and_nothing_is_half_stored(
    s3_url: str, bad_day: Day, fault: Fault, honest: int
) -> None:
    bad_day.fault = lambda method, path, number: fault if number > honest else None
    store, data = open_blob_store(s3_url), os.urandom(LARGE)
    staged, began = store.stage(io.BytesIO(data)), time.monotonic()
    with pytest.raises(StorageUnavailable) as caught:
        store.publish(staged, KEY)
    assert (caught.value.retryable and "503" in str(caught.value)) or fault == "silence"
    assert time.monotonic() - began < 45
    bad_day.fault = lambda method, path, number: None
    assert list(store.keys()) == [] and not store.has(KEY)
    assert get(store, store.publish(staged, KEY)) == data
    assert len(list(store.keys())) == 1


def test_a_blob_stored_without_an_answer_is_found_by_whoever_opens_the_archive_next(
    s3_url: str, bad_day: Day, tmp_path: Path, demo: Path
) -> None:
    gone: list[str] = []

    def lost_then_down(method: str, path: str, number: int) -> Fault:
        if method == "PUT" and "audio_files" in path and not gone:
            gone.append(path)
            return "lost"
        return 503 if gone else None

    with AudioStorageSystem(tmp_path / "archive", blobs=s3_url) as storage:
        bad_day.fault = lost_then_down
        with pytest.raises(StorageUnavailable):
            storage.store_audio_file(demo / "call.flac")
        assert len(storage.list_recordings()) == 0
    bad_day.fault = lambda method, path, number: None
    with AudioStorageSystem(tmp_path / "archive", blobs=s3_url) as storage:
        (found,) = storage.list_recordings()
        with storage.open_audio(found.id) as file:
            assert file.read() == (demo / "call.flac").read_bytes()
        assert not storage._archive.blobs.crashed()


def _at_completion(method: str, path: str, number: int) -> Fault:
    return 503 if method == "POST" and "uploadId" in path else None


def _in_mid_upload(method: str, path: str, number: int) -> Fault:
    return "silence" if "partNumber=2" in path else None


@pytest.mark.parametrize("fault", [_at_completion, _in_mid_upload])
def test_an_upload_that_cannot_be_finished_leaves_no_blob_and_no_row(
    s3_url: str, bad_day: Day, tmp_path: Path, demo: Path, fault: Callable[[str, str, int], Fault]
) -> None:
    path = tmp_path / "long.wav"
    samples = os.urandom(LARGE // 2 * 2)
    header = b"RIFF" + (36 + len(samples)).to_bytes(4, "little") + b"WAVEfmt " + bytes([16, 0, 0, 0, 1, 0, 1, 0])
    header += (48000).to_bytes(4, "little") + (96000).to_bytes(4, "little") + bytes([2, 0, 16, 0])
    path.write_bytes(header + b"data" + len(samples).to_bytes(4, "little") + samples)
    with AudioStorageSystem(tmp_path / "archive", blobs=s3_url) as storage:
        bad_day.fault = fault
        with pytest.raises(StorageFailed):
            storage.store_audio_file(path)
        bad_day.fault = lambda method, path, number: None
        assert list(open_blob_store(s3_url).keys("audio_files")) == []
        assert len(storage.list_recordings()) == 0
        audio_id = storage.store_audio_file(path)
        with storage.open_audio(audio_id) as file:
            assert file.read() == path.read_bytes()
