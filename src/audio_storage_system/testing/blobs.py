"""What every blob store must pass. Subclass `BlobStoreContract` and give it a `store` fixture:

class TestMyStore(BlobStoreContract):
    @pytest.fixture
    def store(self, tmp_path): return MyStore(tmp_path)
"""

from __future__ import annotations

import hashlib
import io
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from audio_storage_system.blobs import BlobStore
from audio_storage_system.errors import InvalidInput, NotFound, StorageFailed

LARGE = (25 << 20) + 17
"""More bytes than a store would send in one request or keep in memory."""
KEY = "audio_files/2026/11/audio_20261122_120000.wav"


def put(store: BlobStore, data: bytes, key: str = KEY) -> str:
    """Store `data` and say under which key."""
    return store.publish(store.stage(io.BytesIO(data)), key)


def get(store: BlobStore, key: str) -> bytes:
    """What is stored under `key`."""
    with store.open(key) as file:
        return file.read()


class _BrokenSource(io.RawIOBase):
    def __init__(self, blocks: list[bytes]) -> None:
        self._blocks = blocks

    def read(self, size: int | None = -1, /) -> bytes:
        if self._blocks:
            return self._blocks.pop()
        raise ConnectionError("the source went away")


class BlobStoreContract:
    """The promises of `BlobStore`, one test each. `store` is a fresh, empty store."""

    @pytest.fixture
    def store(self) -> BlobStore:
        raise TypeError("a contract subclass gives its own `store` fixture")

    @pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1, 5_000_000])
    def test_bytes_come_back_unchanged_with_their_hash_and_size(self, store: BlobStore, size: int) -> None:
        data = os.urandom(size)
        staged = store.stage(io.BytesIO(data))
        assert (staged.sha256, staged.size) == (hashlib.sha256(data).hexdigest(), size)
        key = store.publish(staged, KEY)
        assert key == KEY
        assert get(store, key) == data
        assert store.size(key) == size

    def test_staging_starts_where_the_source_stands(self, store: BlobStore) -> None:
        source = io.BytesIO(b"headbody")
        source.seek(4)
        assert get(store, store.publish(store.stage(source), KEY)) == b"body"

    def test_a_stored_blob_describes_itself_as_when_it_was_staged(self, store: BlobStore) -> None:
        staged = store.stage(io.BytesIO(b"sound"))
        key = store.publish(staged, KEY)
        assert store.describe(key) == replace(staged, token=key)

    def test_an_open_blob_can_be_read_from_any_position(self, store: BlobStore) -> None:
        with store.open(put(store, b"0123456789")) as file:
            assert file.seekable()
            file.seek(-3, os.SEEK_END)
            assert file.read() == b"789"
            file.seek(2)
            assert file.read(3) == b"234"

    def test_a_taken_key_is_numbered_before_its_suffix_and_never_overwritten(self, store: BlobStore) -> None:
        stem = KEY.removesuffix(".wav")
        contents = [bytes([n]) for n in range(20)]
        keys = [put(store, data) for data in contents]
        assert keys == [KEY, *(f"{stem}-{n}.wav" for n in range(2, 21))]
        assert [get(store, key) for key in keys] == contents

    def test_a_key_without_suffix_is_numbered_at_its_end(self, store: BlobStore) -> None:
        assert [put(store, b"", "v1.2/note") for _ in range(2)] == ["v1.2/note", "v1.2/note-2"]

    def test_threads_publishing_the_same_key_each_get_their_own(self, store: BlobStore) -> None:
        contents = [str(n).encode() for n in range(24)]
        with ThreadPoolExecutor(8) as pool:
            keys = list(pool.map(lambda data: put(store, data), contents))
        assert [get(store, key) for key in keys] == contents
        assert len(set(keys)) == len(keys)

    def test_staged_bytes_are_not_among_the_keys_until_published(self, store: BlobStore) -> None:
        staged = store.stage(io.BytesIO(b"sound"))
        assert list(store.keys()) == []
        store.publish(staged, KEY)
        assert list(store.keys()) == [KEY]

    def test_discarded_bytes_cannot_be_published(self, store: BlobStore) -> None:
        staged = store.stage(io.BytesIO(b"sound"))
        store.discard(staged)
        store.discard(staged)
        with pytest.raises(NotFound):
            store.publish(staged, KEY)
        assert list(store.keys()) == []

    @pytest.mark.parametrize("megabytes", [1, LARGE >> 20])
    def test_a_source_that_fails_leaves_nothing_and_its_error_comes_through(
        self, store: BlobStore, megabytes: int
    ) -> None:
        with pytest.raises(ConnectionError):
            store.stage(_BrokenSource([bytes(1 << 20)] * megabytes))  # type: ignore[arg-type]
        assert list(store.keys()) == []

    @pytest.mark.parametrize("size", [1, LARGE])
    def test_a_file_is_stored_from_where_it_stands_and_may_be_closed_before_it_is_published(
        self, store: BlobStore, tmp_path: Path, size: int
    ) -> None:
        data = os.urandom(size)
        path = tmp_path / "source.wav"
        path.write_bytes(b"head" + data)
        with path.open("rb") as file:
            file.seek(4)
            staged = store.stage(file)
        assert (staged.sha256, staged.size) == (hashlib.sha256(data).hexdigest(), size)
        assert get(store, store.publish(staged, KEY)) == data
        assert path.read_bytes() == b"head" + data

    def test_a_file_that_changes_before_it_is_published_is_refused_or_stored_as_it_was(
        self, store: BlobStore, tmp_path: Path
    ) -> None:
        data = os.urandom(LARGE)
        path = tmp_path / "source.wav"
        path.write_bytes(data)
        with path.open("rb") as file:
            staged = store.stage(file)
        with path.open("r+b") as file:
            file.seek(LARGE // 2)
            file.write(b"something else")
        try:
            key = store.publish(staged, KEY)
        except StorageFailed as error:
            assert "changed" in str(error)
            store.discard(staged)
            assert list(store.keys()) == []
        else:
            assert get(store, key) == data

    def test_large_blobs_are_never_overwritten_and_leave_nothing_behind(self, store: BlobStore) -> None:
        contents = [os.urandom(LARGE) for _ in range(2)]
        keys = [put(store, data) for data in contents]
        assert keys == [KEY, KEY.replace(".wav", "-2.wav")]
        assert [get(store, key) for key in keys] == contents
        assert list(store.keys()) == sorted(keys, key=str.encode)
        assert not store.crashed()

    @pytest.mark.parametrize("size", [1, LARGE])
    def test_replacing_gives_this_very_key_whatever_it_held(self, store: BlobStore, size: int) -> None:
        put(store, b"first", "derived.json")
        data = os.urandom(size)
        store.replace(store.stage(io.BytesIO(data)), "derived.json")
        assert get(store, "derived.json") == data
        assert list(store.keys()) == ["derived.json"]

    def test_keys_come_in_order_and_below_the_folder_asked_for(self, store: BlobStore) -> None:
        names = ["a/b/2.wav", "a/b/1.wav", "a/b.wav", "a/b-2.wav", "ab/3.wav", "c.wav", "ä/é.wav"]
        for name in names:
            put(store, b"", name)
        assert list(store.keys()) == sorted(names)
        assert list(store.keys("a")) == list(store.keys("a/")) == sorted(n for n in names if n.startswith("a/"))
        assert list(store.keys("a/b")) == ["a/b/1.wav", "a/b/2.wav"]
        assert list(store.keys("nowhere")) == []

    def test_deleting_says_whether_there_was_something(self, store: BlobStore) -> None:
        key = put(store, b"sound")
        assert store.delete(key) is True
        assert store.delete(key) is False
        assert list(store.keys()) == []

    def test_what_does_not_exist_is_not_found(self, store: BlobStore) -> None:
        put(store, b"", "folder/file.wav")
        for key in ("absent.wav", "folder", "folder/file.wav/below"):
            with pytest.raises(NotFound):
                store.open(key)
            with pytest.raises(NotFound):
                store.size(key)
            with pytest.raises(NotFound):
                store.describe(key)
            assert store.delete(key) is False

    @pytest.mark.parametrize(
        "key", ["", "/etc/passwd", "../out", "a/../../out", "a//b", "a/", "C:/x", "a\\b", "a\0b", "."]
    )
    def test_keys_that_could_leave_the_store_are_refused(self, store: BlobStore, key: str) -> None:
        staged = store.stage(io.BytesIO(b"sound"))
        with pytest.raises(InvalidInput):
            store.publish(staged, key)
        for call in (store.open, store.size, store.delete):
            with pytest.raises(InvalidInput):
                call(key)
        assert store.publish(staged, KEY) == KEY, "a refused key must not cost the staged bytes"
