"""The cache of remote blobs: the contract through it, and what is fetched how often."""

from __future__ import annotations

import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from audio_storage_system import AudioStorageSystem
from audio_storage_system.blobs import BlobStore, open_blob_store
from audio_storage_system.blobs.cache import PATIENCE, UNFINISHED, CachedBlobStore
from audio_storage_system.errors import NotFound
from audio_storage_system.testing.blobs import KEY, LARGE, BlobStoreContract, get, put
from servers.faulty import Day

LIMIT = 64 << 20


class TestCached(BlobStoreContract):
    @pytest.fixture
    def store(self, s3_url: str, tmp_path: Path) -> BlobStore:
        return CachedBlobStore(open_blob_store(s3_url), tmp_path / "cache", LIMIT)


@pytest.fixture
def store(s3_url: str, bad_day: Day, tmp_path: Path) -> CachedBlobStore:
    return CachedBlobStore(open_blob_store(s3_url), tmp_path / "cache", LIMIT)


def fetches(day: Day, key: str = KEY) -> int:
    return sum(method == "GET" and key in path for method, path in day.seen)


def entries(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").glob("*"), key=lambda path: path.stat().st_mtime)


def test_a_blob_is_fetched_once_and_only_its_owner_can_read_the_entry(
    store: CachedBlobStore, bad_day: Day, tmp_path: Path
) -> None:
    data = os.urandom(1 << 20)
    put(store, data)
    assert [get(store, KEY) for _ in range(3)] == [data] * 3
    assert fetches(bad_day) == 1
    (entry,) = entries(tmp_path)
    if os.name != "nt":
        assert stat.S_IMODE(entry.stat().st_mode) == 0o600
        assert stat.S_IMODE(entry.parent.stat().st_mode) == 0o700


def test_threads_that_read_one_blob_fetch_it_once(store: CachedBlobStore, bad_day: Day) -> None:
    data = os.urandom(1 << 20)
    put(store, data)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda _: get(store, KEY), range(8))) == [data] * 8
    assert fetches(bad_day) == 1


def test_a_piece_of_a_large_blob_does_not_fetch_all_of_it(store: CachedBlobStore, tmp_path: Path) -> None:
    data = os.urandom(LARGE)
    put(store, data)
    with store.open(KEY) as file:
        assert file.seek(-100, os.SEEK_END) == LARGE - 100
        assert file.read() == data[-100:]
        assert entries(tmp_path) == []
        file.seek(1000)
        assert b"".join(iter(lambda: file.read(1 << 20), b"")) == data[1000:]
    assert [path.stat().st_size for path in entries(tmp_path)] == [LARGE]
    assert PATIENCE < LARGE


def test_what_was_read_longest_ago_makes_room(s3_url: str, tmp_path: Path) -> None:
    store = CachedBlobStore(open_blob_store(s3_url), tmp_path / "cache", 3 << 20)
    keys = [put(store, os.urandom(1 << 20), f"{name}.wav") for name in "abcd"]
    for number, key in enumerate([*keys[:3], keys[0], keys[3]]):
        get(store, key)
        os.utime(entries(tmp_path)[-1], (number, number))
    (tmp_path / "cache" / f"{UNFINISHED}old").write_bytes(b"left by a crash")
    os.utime(tmp_path / "cache" / f"{UNFINISHED}old", (0, 0))
    put(store, os.urandom(4 << 20), "too-large.wav")
    assert len(get(store, "too-large.wav")) == 4 << 20
    get(store, put(store, os.urandom(1 << 20), "e.wav"))
    assert sum(path.stat().st_size for path in entries(tmp_path)) == 3 << 20


def test_an_entry_is_not_used_when_the_blob_is_another_or_gone(
    store: CachedBlobStore, s3_url: str, tmp_path: Path
) -> None:
    other = open_blob_store(s3_url)
    for number in (1, 2):
        data = bytes([number]) * (1 << 20)
        (tmp_path / "source").write_bytes(data)
        with (tmp_path / "source").open("rb") as file:
            other.replace(other.stage(file), KEY)
        assert get(store, KEY) == data
    other.delete(KEY)
    with pytest.raises(NotFound):
        store.open(KEY)
    assert entries(tmp_path) == []


def test_deleting_removes_the_entry(store: CachedBlobStore, tmp_path: Path) -> None:
    get(store, put(store, os.urandom(1 << 20)))
    assert entries(tmp_path)
    assert store.delete(KEY)
    assert entries(tmp_path) == []


def test_a_damaged_entry_and_a_folder_that_cannot_be_made_cost_only_time(
    store: CachedBlobStore, s3_url: str, tmp_path: Path
) -> None:
    data = os.urandom(1 << 20)
    put(store, data)
    get(store, KEY)
    os.truncate(entries(tmp_path)[0], 10)
    assert get(store, KEY) == data
    (tmp_path / "file").write_bytes(b"")
    assert get(CachedBlobStore(open_blob_store(s3_url), tmp_path / "file" / "cache", LIMIT), KEY) == data


def test_two_stores_in_one_folder_fill_it_at_once(s3_url: str, tmp_path: Path) -> None:
    data = os.urandom(1 << 20)
    stores = [CachedBlobStore(open_blob_store(s3_url), tmp_path / "cache", LIMIT) for _ in range(4)]
    put(stores[0], data)
    start = threading.Barrier(4)

    def read(one: CachedBlobStore) -> bytes:
        start.wait()
        return get(one, KEY)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(read, stores)) == [data] * 4
    assert len(entries(tmp_path)) == 1


@pytest.mark.usefixtures("scripted_engine")
def test_an_archive_caches_below_the_folder_it_is_told_and_not_at_all_when_told_so(
    s3_url: str, bad_day: Day, tmp_path: Path, demo: Path
) -> None:
    for bytes_kept in (LIMIT, 0):
        folder, home = tmp_path / f"cache-{bytes_kept}", tmp_path / f"home-{bytes_kept}"
        with AudioStorageSystem(
            home,
            blobs=f"{s3_url}/{bytes_kept}",
            blob_cache_dir=str(folder),
            blob_cache_bytes=bytes_kept,
            transcriber="scripted",
        ) as storage:
            audio_id = storage.add(demo / "meeting.flac")
            with storage.open_audio(audio_id) as file:
                assert file.read() == (demo / "meeting.flac").read_bytes()
            assert (fetches(bad_day, f"{bytes_kept}/audio_files/") == 1) == bool(bytes_kept), (
                "to transcribe, and no more"
            )
            assert bool(list(folder.rglob("*-*"))) == bool(bytes_kept)
            storage.delete(audio_id)
        assert not [path for path in folder.rglob("*") if path.is_file()]
