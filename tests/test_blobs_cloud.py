"""Blobs in object storage: the contract on real servers, and what goes wrong with them."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from audio_storage_system import AudioStorageSystem
from audio_storage_system.blobs import BlobStore, open_blob_store, writers
from audio_storage_system.blobs.cloud import CloudBlobStore
from audio_storage_system.blobs.cloud_urls import open_bucket
from audio_storage_system.blobs.holding import Sending
from audio_storage_system.blobs.writers import PROOF, STAGING
from audio_storage_system.errors import BucketNotFound, InvalidInput, NotFound, StorageRefused, StorageUnavailable
from audio_storage_system.testing.blobs import KEY, LARGE, BlobStoreContract, get, put
from patience import until
from servers.gcs import Objects


class TestS3(BlobStoreContract):
    @pytest.fixture
    def store(self, s3_url: str) -> BlobStore:
        return open_blob_store(s3_url)


class TestAzure(BlobStoreContract):
    @pytest.fixture
    def store(self, az_url: str) -> BlobStore:
        return open_blob_store(az_url)


class TestGoogle(BlobStoreContract):
    @pytest.fixture
    def store(self, gs_url: str) -> BlobStore:
        return open_blob_store(gs_url)


@pytest.fixture(params=["s3_url", "az_url", "gs_url"])
def url(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(request.param)
    return found


def test_a_signed_url_gives_the_bytes(url: str) -> None:
    store = open_blob_store(url)
    with urlopen(store.url_for(put(store, b"sound"), timedelta(hours=1))) as answer:  # noqa: S310 # our own server
        assert answer.read() == b"sound"
        assert answer.headers["Content-Type"] == "audio/wav"


def test_a_server_that_ignores_conditions_is_not_written_to(
    gs_endpoint: tuple[str, Objects], gs_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gs_endpoint[1], "ignore_conditions", True)
    store = open_blob_store(gs_url)
    with pytest.raises(StorageRefused, match="overwrites"):
        put(store, b"sound")
    assert list(store.keys()) == []


def test_a_missing_bucket_says_so(s3_url: str) -> None:
    store = open_blob_store("s3://no-such-bucket/x")
    for call in (lambda: put(store, b"sound"), lambda: store.size(KEY), lambda: list(store.keys())):
        with pytest.raises(BucketNotFound, match="no-such-bucket"):
            call()


def test_a_server_that_is_down_fails_within_seconds(monkeypatch: pytest.MonkeyPatch, s3_url: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    began = time.monotonic()
    with pytest.raises(StorageUnavailable, match="s3://recordings") as caught:
        put(open_blob_store("s3://recordings/x"), b"sound")
    assert time.monotonic() - began < 20
    assert caught.value.retryable


def test_credentials_in_a_url_are_refused_and_not_shown() -> None:
    for bad in ("s3://key:hidden@bucket/x", "s3://bucket/x?secret_access_key=hidden"):
        with pytest.raises(InvalidInput) as caught:
            open_blob_store(bad)
        assert "hidden" not in str(caught.value)


@pytest.mark.usefixtures("scripted_engine")
def test_an_archive_keeps_its_recordings_in_a_bucket(tmp_path: Path, demo: Path, url: str) -> None:
    call = demo / "call.flac"
    with AudioStorageSystem(tmp_path / "archive", blobs=url, transcriber="scripted") as storage:
        audio_id = storage.add(call)
        assert storage.add(call) == audio_id
        with storage.open_audio(audio_id) as file:
            assert file.read() == call.read_bytes()
        with urlopen(storage.audio_url(audio_id)) as answer:  # noqa: S310 # our own server
            assert answer.read() == call.read_bytes()
        storage.delete(audio_id)
    assert list(open_blob_store(url).keys("audio_files")) == []
    assert not (tmp_path / "archive" / "audio_files").exists()


CHILD = """
import io, sys
from audio_storage_system.blobs import open_blob_store
store = open_blob_store(sys.argv[1])
store.publish(store.stage(io.BytesIO(b"sound")), "audio_files/a.wav")
staged = store.stage(io.BytesIO(bytes(9 << 20)))
print("here", flush=True)
sys.stdin.read()
"""


def test_a_killed_writer_is_noticed_its_blob_is_found_and_its_staged_bytes_go(url: str) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    store = CloudBlobStore(open_bucket(url))
    with child:
        assert child.stdout and child.stdout.readline() == "here\n"
        assert not store.crashed(), "it is alive"
        assert list(store.settled()) == [], "it may be about to enter its row"
        store.tidy()
        child.kill()
    assert store.crashed()
    assert list(store.settled()) == list(store.keys()) == ["audio_files/a.wav"]
    store.tidy()
    assert not store.crashed()
    assert [meta.key for meta in store._bucket.list(STAGING)] == [PROOF]


UPLOADING = """
import sys
from audio_storage_system.blobs import open_blob_store
from audio_storage_system.blobs.holding import Sending
from audio_storage_system.testing.blobs import KEY
blocks = Sending._blocks
def slowly(self):
    yield next(blocks(self))
    print("here", flush=True)
    sys.stdin.read()
Sending._blocks = slowly
store = open_blob_store(sys.argv[1])
store.publish(store.stage(open(sys.argv[2], "rb")), KEY)
"""


def test_a_writer_killed_in_mid_upload_leaves_no_blob_and_its_key_to_the_same_bytes_only(
    url: str, tmp_path: Path
) -> None:
    data, other = os.urandom(LARGE), os.urandom(LARGE)
    (tmp_path / "a.wav").write_bytes(data)
    command = [sys.executable, "-c", UPLOADING, url, str(tmp_path / "a.wav")]
    store = open_blob_store(url)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout and child.stdout.readline() == "here\n"
        assert not store.has(KEY) and list(store.keys()) == list(store.settled()) == []
        assert put(store, data) == KEY.replace(".wav", "-2.wav"), "somebody alive is filling the key"
        child.kill()
    assert not store.has(KEY) and not store.delete(KEY)
    with pytest.raises(NotFound):
        store.open(KEY)
    assert store.crashed()
    assert put(store, other) == KEY.replace(".wav", "-3.wav")
    assert put(store, data) == KEY
    assert get(store, KEY) == data
    assert store.delete(KEY)


def test_an_upload_that_takes_long_shows_that_its_writer_is_alive(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = open_bucket(url)
    store, written = CloudBlobStore(bucket), []
    staged = store.stage(io.BytesIO(bytes(LARGE)))
    put, blocks = bucket.put, Sending._blocks

    def marks() -> int:
        return sum(key.endswith(writers.SUFFIX) for key in written)

    def noted(key: str, *rest: Any, **options: Any) -> bool:
        written.append(key)
        return put(key, *rest, **options)

    def slowly(sending: Sending) -> Iterator[bytes]:
        yield from blocks(sending)
        until(lambda: marks() >= 3, 60)

    monkeypatch.setattr(writers, "BEAT", timedelta(seconds=0.1))
    monkeypatch.setattr(bucket, "put", noted)
    monkeypatch.setattr(Sending, "_blocks", slowly)
    store.publish(staged, KEY)
    assert marks() >= 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_gets_an_error_instead_of_waiting_for_ever(s3_url: str) -> None:
    code = """
import os, sys
from audio_storage_system.blobs import open_blob_store
from audio_storage_system.errors import Unavailable
store = open_blob_store(sys.argv[1])
store.has("a")
if (child := os.fork()) == 0:
    try:
        store.has("a")
    except Unavailable as error:
        os._exit(7 if "spawn" in str(error) else 1)
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"""
    subprocess.run([sys.executable, "-c", code, s3_url], check=True, timeout=60)


class _Synthetic(io.RawIOBase):
    """So many megabytes of nothing."""

    def __init__(self, megabytes: int) -> None:
        self.left = megabytes

    def read(self, size: int = -1, /) -> bytes:
        self.left -= 1
        return bytes(1 << 20) if self.left >= 0 else b""


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc to read the memory from")
def test_memory_stays_flat(az_url: str) -> None:
    store = open_blob_store(az_url)
    put(store, bytes(9 << 20), "first.wav")
    before = _resident()
    key = store.publish(store.stage(_Synthetic(200)), KEY)  # type: ignore[arg-type]
    assert store.describe(key).size == 200 << 20
    assert _resident() - before < 150 << 20


def test_wrong_credentials_say_what_to_check_and_no_key(az_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "aGlkZGVu" * 8)
    with pytest.raises(StorageRefused, match="AZURE_STORAGE_ACCOUNT_KEY") as caught:
        put(open_blob_store(az_url), b"sound")
    assert "aGlkZGVu" not in str(caught.value)
