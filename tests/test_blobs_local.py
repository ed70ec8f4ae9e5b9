"""Blobs as local files: the contract, crashes, disks that refuse, and links."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audio_storage_system.blobs import BlobStore, open_blob_store
from audio_storage_system.blobs.local import STAGING, LocalBlobStore
from audio_storage_system.errors import ArchiveReadOnly, InvalidInput, StorageFailed, StorageFull, UnknownSpec
from audio_storage_system.testing.blobs import KEY, BlobStoreContract, get, put

DATA = b"what was said" * 100_000


class TestLocalBlobStore(BlobStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> BlobStore:
        return LocalBlobStore(tmp_path / "archive")


class TestWithoutHardLinks(BlobStoreContract):
    """exFAT, many network drives."""

    @pytest.fixture
    def store(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BlobStore:
        monkeypatch.setattr(os, "link", _fails_with(errno.EPERM))
        return LocalBlobStore(tmp_path / "archive")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "archive"


def _fails_with(code: int) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(code, os.strerror(code))

    return fail


def _temporary_files(root: Path) -> list[str]:
    return [name for name in os.listdir(root / STAGING) if not name.endswith(".lock")]


# --- crashes ---------------------------------------------------------------------------------------------------------

CHILD = """
import os, sys, time
from pathlib import Path
from audio_storage_system.blobs.local import LocalBlobStore

def stop_here(*_):
    print("here", flush=True)
    time.sleep(60)

store = LocalBlobStore(Path(sys.argv[1]))
with open(sys.argv[2], "rb") as file:
    staged = store.stage(file)
if sys.argv[3] == "between stage and publish":
    stop_here()
real_link = os.link
os.link = lambda *paths: (real_link(*paths), stop_here())
store.publish(staged, sys.argv[4])
"""


@pytest.fixture
def child_at(root: Path, tmp_path: Path) -> Any:
    """Start a process that stores DATA under KEY and waits at a point; it is gone after the test."""
    source = tmp_path / "source.wav"
    source.write_bytes(DATA)
    children: list[subprocess.Popen[str]] = []

    def start(point: str) -> subprocess.Popen[str]:
        arguments = [sys.executable, "-c", CHILD, str(root), str(source), point, KEY]
        child = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        children.append(child)
        assert child.stdout and child.stdout.readline() == "here\n"
        return child

    yield start
    for child in children:
        _kill(child)


def _kill(child: subprocess.Popen[str]) -> None:
    child.kill()
    child.wait()
    assert child.stdout
    child.stdout.close()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 on this system")
class TestCrashes:
    def test_killed_before_publish_nothing_has_a_key_and_the_leftover_is_swept(self, root: Path, child_at: Any) -> None:
        _kill(child_at("between stage and publish"))
        store = LocalBlobStore(root)
        assert list(store.keys()) == []
        assert len(_temporary_files(root)) == 1
        assert put(store, DATA) == KEY
        assert _temporary_files(root) == []

    def test_killed_during_publish_the_blob_is_whole_and_known_by_its_hash(self, root: Path, child_at: Any) -> None:
        _kill(child_at("between publish and return"))
        store = LocalBlobStore(root)
        assert list(store.keys()) == [KEY]
        assert store.describe(KEY).sha256 == store.stage(io.BytesIO(DATA)).sha256
        assert get(store, KEY) == DATA

    def test_what_a_living_process_staged_is_never_swept(self, root: Path, child_at: Any) -> None:
        child = child_at("between stage and publish")
        put(LocalBlobStore(root), b"other", "other.wav")
        assert len(_temporary_files(root)) == 1
        _kill(child)

    def test_two_stores_in_one_process_leave_each_others_staged_bytes_alone(self, root: Path) -> None:
        first, second = LocalBlobStore(root), LocalBlobStore(root)
        staged = first.stage(io.BytesIO(DATA))
        put(second, b"other", "other.wav")
        assert get(first, first.publish(staged, KEY)) == DATA


def test_nothing_remains_in_staging_after_many_blobs(root: Path) -> None:
    store = LocalBlobStore(root)
    for _ in range(5):
        put(store, b"sound")
    store.discard(store.stage(io.BytesIO(b"sound")))
    assert _temporary_files(root) == []


def test_bytes_and_names_are_synced_before_publish_returns(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    real = os.fsync

    def watched(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    store = LocalBlobStore(root)
    staged = store.stage(io.BytesIO(DATA))
    staged_on_disk = set(synced)
    synced.clear()
    path = root / store.publish(staged, KEY)
    assert path.stat().st_ino in staged_on_disk
    folders = [path.parent, path.parent.parent, path.parent.parent.parent, root]
    if sys.platform != "win32":
        assert {folder.stat().st_ino for folder in folders} <= set(synced)


# --- disks that refuse -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "error"),
    [(errno.ENOSPC, StorageFull), (errno.EROFS, ArchiveReadOnly), (errno.EIO, StorageFailed)],
)
@pytest.mark.parametrize("call", ["open", "write", "fsync"])
def test_a_disk_that_refuses_while_staging_leaves_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch, code: int, error: type[Exception], call: str
) -> None:
    store = LocalBlobStore(root)
    put(store, b"before", "before.wav")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, _fails_with(code))
        with pytest.raises(error):
            store.stage(io.BytesIO(DATA))
    assert list(store.keys()) == ["before.wav"]
    assert _temporary_files(root) == []


@pytest.mark.parametrize("call", ["link", "fsync"])
def test_a_disk_that_fills_up_while_publishing_stores_nothing_and_can_be_tried_again(
    root: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    store = LocalBlobStore(root)
    staged = store.stage(io.BytesIO(DATA))
    with monkeypatch.context() as patch:
        patch.setattr(os, call, _fails_with(errno.ENOSPC))
        with pytest.raises(StorageFull):
            store.publish(staged, KEY)
    assert list(store.keys()) == []
    assert store.publish(staged, KEY) == KEY
    assert get(store, KEY) == DATA


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_really_full_device_is_storage_full(root: Path) -> None:
    store = LocalBlobStore(root)
    descriptor = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(StorageFull):
        store._copy(io.BytesIO(DATA), descriptor)
    os.close(descriptor)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_read_only(root: Path) -> None:
    root.mkdir(mode=0o500)
    with pytest.raises(ArchiveReadOnly):
        put(LocalBlobStore(root), DATA)


# --- links and keys --------------------------------------------------------------------------------------------------


def test_a_symbolic_link_never_leads_out_of_the_store(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.wav").write_bytes(b"secret")
    store = LocalBlobStore(root)
    put(store, b"", "inside.wav")
    (root / "folder").symlink_to(outside)
    (root / "file.wav").symlink_to(outside / "secret.wav")
    staged = store.stage(io.BytesIO(DATA))
    with pytest.raises(InvalidInput):
        store.publish(staged, "folder/new.wav")
    for key in ("folder/secret.wav", "file.wav"):
        for call in (store.open, store.size, store.delete, store.describe):
            with pytest.raises(InvalidInput):
                call(key)
    assert list(store.keys()) == ["inside.wav"]
    assert os.listdir(outside) == ["secret.wav"]


def test_stores_that_take_turns_never_take_a_name_twice(root: Path) -> None:
    stores = [LocalBlobStore(root) for _ in range(3)]
    keys = [put(stores[turn % 3 and turn % 2 + 1], str(turn).encode(), KEY) for turn in range(40)]
    assert len(set(keys)) == 40
    assert [get(stores[0], key) for key in keys] == [str(turn).encode() for turn in range(40)]


def test_the_staging_folder_is_not_reachable_by_key(root: Path) -> None:
    store = LocalBlobStore(root)
    staged = store.stage(io.BytesIO(DATA))
    for key in (f"{STAGING}/{staged.token}", f"{STAGING.upper()}/{staged.token}"):
        with pytest.raises(InvalidInput):
            store.open(key)


def test_reading_makes_no_folder(root: Path) -> None:
    assert list(LocalBlobStore(root).keys()) == []
    assert not root.exists()


def test_a_root_that_is_itself_a_link_works(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "archive").symlink_to(tmp_path / "disk")
    store = LocalBlobStore(tmp_path / "archive")
    assert get(store, put(store, DATA)) == DATA


# --- addresses -------------------------------------------------------------------------------------------------------


def test_a_store_opens_by_path_and_by_url(tmp_path: Path) -> None:
    root = tmp_path / "an archive, 100 % ä"
    key = put(open_blob_store(root), DATA)
    for place in (str(root), root.as_uri(), root.as_uri().replace("file://", "file://localhost")):
        store = open_blob_store(place)
        assert get(store, key) == DATA
        assert store.url == root.as_uri()


def test_a_relative_path_is_below_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    put(open_blob_store("archive"), DATA)
    assert (tmp_path / "archive" / KEY).read_bytes() == DATA


def test_unknown_schemes_say_what_exists_and_no_secret() -> None:
    with pytest.raises(UnknownSpec, match="file") as caught:
        open_blob_store("ftp://user:secret@host/folder")
    assert "secret" not in str(caught.value)


def test_a_file_url_on_another_host_is_refused() -> None:
    with pytest.raises(InvalidInput, match="three slashes"):
        open_blob_store("file://folder/archive")
