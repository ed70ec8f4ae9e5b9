"""Sealed blobs: the contract of a blob store over them, what is on the disk, and what is refused."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from audio_storage_system import AudioStorageSystem, copy_archive
from audio_storage_system.backup import restore_backup
from audio_storage_system.blobs import BlobStore, open_blob_store
from audio_storage_system.blobs.local import LocalBlobStore
from audio_storage_system.blobs.sealed import SealedBlobStore
from audio_storage_system.errors import InvalidInput, KeyRefused, SealBroken, Unavailable
from audio_storage_system.keys import ArchiveKeys
from audio_storage_system.testing.blobs import KEY, BlobStoreContract, get, put
from catalogues import database_url, plain_sql
from sounds import tone, wav

pytestmark = pytest.mark.usefixtures("scripted_engine")
ROOT = bytes(range(32))
KEY_GIVEN = bytes(reversed(range(32)))


class Kept:
    """Data keys in memory, with the rules of the catalogue's."""

    def __init__(self) -> None:
        self.rows: dict[str, tuple[bytes, str | None]] = {}

    def add(self, blob_id: str, data_key: bytes, path: str | None = None) -> None:
        assert blob_id not in self.rows
        self.rows[blob_id] = (data_key, path)

    def settle(self, blob_id: str, path: str) -> None:
        self.rows = {id_: row for id_, row in self.rows.items() if id_ == blob_id or row[1] != path}

    def find(self, blob_id: str, path: str) -> bytes | None:
        data_key, belongs = self.rows.get(blob_id, (None, None))
        return data_key if belongs in (None, path) else None


def sealed(store: BlobStore) -> SealedBlobStore:
    return SealedBlobStore(store, ArchiveKeys("an-archive", ROOT), Kept())


class TestSealedLocal(BlobStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> BlobStore:
        return sealed(LocalBlobStore(tmp_path / "archive"))


class TestSealedS3(BlobStoreContract):
    @pytest.fixture
    def store(self, s3_url: str) -> BlobStore:
        return sealed(open_blob_store(s3_url))


@pytest.fixture
def private(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No key of whoever runs the tests."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def encrypted(home: Path, **further: object) -> AudioStorageSystem:
    """An encrypted archive on either catalogue."""
    return AudioStorageSystem(
        home, encryption=KEY_GIVEN, accept_plaintext_catalogue=True, transcriber="scripted", **further
    )


def sound(tmp_path: Path, hertz: float = 440.0) -> Path:
    path = tmp_path / f"{hertz:.0f}.wav"
    path.write_bytes(wav(tone(1.0, hertz)))
    return path


def blob(storage: AudioStorageSystem, audio_id: int) -> Path:
    return storage.home / storage.get_recording(audio_id).file_path


def heard(storage: AudioStorageSystem, audio_id: int) -> bytes:
    with storage.open_audio(audio_id) as file:
        return file.read()


def test_a_recording_is_unreadable_on_the_disk_and_whole_when_asked_for(home: Path, tmp_path: Path) -> None:
    path = sound(tmp_path)
    with encrypted(home, sidecars=True, compress="flac") as storage:
        audio_id = int(storage.add(path))
        data = path.read_bytes()
        assert heard(storage, audio_id) == data
        files = [file for file in home.rglob("*") if file.is_file() and file.suffix in (".wav", ".flac", ".json")]
        assert {file.suffix for file in files} == {".wav", ".flac", ".json"}
        for file in files:
            if file.name not in ("metadata.json", "keys.json"):
                assert not any(data[at : at + 16] in file.read_bytes() for at in range(44, 4000, 160))
                assert file.read_bytes()[0] == 40, f"{file} is no sealed stream"
        assert storage.get_recording(audio_id).file_size == len(data)
        assert storage.add(path).duplicate and storage.examine(path).audio_id == audio_id
        with pytest.raises(Unavailable, match="encrypted"):
            storage.audio_url(audio_id)


def test_the_catalogue_does_not_say_which_files_are_there(home: Path, tmp_path: Path) -> None:
    import hashlib

    path = sound(tmp_path)
    with encrypted(home) as storage:
        found = storage.get_recording(int(storage.add(path))).file_hash
    assert len(found) == 64 and found != hashlib.sha256(path.read_bytes()).hexdigest()


def test_swapped_cut_and_changed_blobs_are_refused_by_name(home: Path, tmp_path: Path) -> None:
    with encrypted(home) as storage:
        first, second = (int(storage.store_audio_file(sound(tmp_path, hertz))) for hertz in (440.0, 880.0))
        one, other = blob(storage, first), blob(storage, second)
        good = one.read_bytes()
        for bad in (other.read_bytes(), good[:-1], good[:100], good[:-1] + bytes([good[-1] ^ 1]), b"", wav(tone(1.0))):
            one.write_bytes(bad)
            with pytest.raises(SealBroken, match=one.name):
                heard(storage, first)
        one.write_bytes(good)
        assert heard(storage, first) == sound(tmp_path).read_bytes()


def test_an_earlier_file_of_the_same_name_is_refused(tmp_path: Path) -> None:
    store = sealed(LocalBlobStore(tmp_path / "archive"))
    store.put("transcripts/a.json", b"before")
    before = (tmp_path / "archive" / "transcripts" / "a.json").read_bytes()
    store.put("transcripts/a.json", b"after")
    assert get(store, "transcripts/a.json") == b"after"
    (tmp_path / "archive" / "transcripts" / "a.json").write_bytes(before)
    with pytest.raises(SealBroken):
        get(store, "transcripts/a.json")


def test_deleting_destroys_the_key_so_that_a_copy_of_the_blob_stays_shut(home: Path, tmp_path: Path) -> None:
    with encrypted(home, sidecars=True) as storage:
        audio_id = int(storage.add(sound(tmp_path)))
        path = blob(storage, audio_id)
        kept = path.read_bytes()
        assert storage.delete(audio_id).rows["data_keys"] == 2  # its own, and that of the transcript as a file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(kept)
        with pytest.raises(SealBroken, match="destroyed"):
            storage._archive.blobs.open(path.relative_to(home).as_posix())


STORE = """
import os, sys
from pathlib import Path
from audio_storage_system import AudioStorageSystem
from audio_storage_system.pipeline import storing
die = lambda *args, **named: os.kill(os.getpid(), 9)
setattr(storing, sys.argv[3], die)
AudioStorageSystem(sys.argv[1], encryption=bytes(reversed(range(32)))).store_audio_file(sys.argv[2])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="processes are killed by signals")
@pytest.mark.parametrize("died_at", ["_enter", "_insert"])
def test_a_sealed_blob_that_a_crash_left_is_adopted_with_its_key(home: Path, tmp_path: Path, died_at: str) -> None:
    encrypted(home).close()
    path = sound(tmp_path)
    child = subprocess.run([sys.executable, "-c", STORE, str(home), str(path), died_at], check=False)
    assert child.returncode == -signal.SIGKILL
    with encrypted(home) as storage:
        [recording] = storage.list_recordings()
        assert heard(storage, recording.id) == path.read_bytes()
        assert storage.add(path).duplicate
        storage.delete(recording.id)
    if database_url(home):
        assert plain_sql(home, "SELECT count(*) FROM data_keys") == [(0,)]


@pytest.mark.parametrize("of", ["plain", "encrypted"])
@pytest.mark.parametrize("into", ["plain", "encrypted"])
def test_copies_between_plain_and_encrypted_archives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of: str, into: str
) -> None:
    import hashlib

    monkeypatch.setenv("AUDIO_STORAGE_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
    path, gone = sound(tmp_path), sound(tmp_path, 880.0)
    with AudioStorageSystem(tmp_path / "a", encryption=of == "encrypted", transcriber="scripted") as storage:
        audio_id = int(storage.add(path))
        storage.delete(int(storage.add(gone)))
    for _ in range(2):  # the second finds nothing to do
        report = copy_archive(tmp_path / "a", tmp_path / "b", verify="all", encryption=into == "encrypted")
        assert report.complete, report.problems
    with AudioStorageSystem(tmp_path / "a") as storage:
        storage.set_metadata(audio_id, {"k": "v"})
    assert copy_archive(tmp_path / "a", tmp_path / "b", encryption=into == "encrypted").complete
    with AudioStorageSystem(tmp_path / "b", create=False) as storage:
        recording = storage.get_recording(audio_id)
        assert heard(storage, audio_id) == path.read_bytes() and recording.metadata == {"k": "v"}
        assert storage.add(path).duplicate, "the destination knows the bytes under its own hash"
        is_plain = recording.file_hash == hashlib.sha256(path.read_bytes()).hexdigest()
        assert is_plain == (into == "plain")
        assert (blob(storage, audio_id).read_bytes() == path.read_bytes()) == (into == "plain")


def test_keys_that_lead_out_are_refused(tmp_path: Path) -> None:
    store = sealed(LocalBlobStore(tmp_path / "archive"))
    with pytest.raises(InvalidInput):
        store.put("../x", b"")
    assert put(store, b"once", KEY) == KEY
    with pytest.raises(SealBroken):
        shutil.copy(tmp_path / "archive" / KEY, tmp_path / "archive" / "audio_files" / "other.wav")
        store._data_keys.rows = {id_: (key, KEY) for id_, (key, _) in store._data_keys.rows.items()}  # type: ignore[attr-defined]
        get(store, "audio_files/other.wav")


def test_no_address_is_given_out_for_what_is_sealed(tmp_path: Path, call: Path) -> None:
    with AudioStorageSystem(tmp_path / "a", encryption=bytes(32), cdn_url="https://cdn.example") as storage:
        audio_id = storage.store_audio_file(call)
        with pytest.raises(Unavailable):
            storage.audio_url(audio_id)


def test_a_restore_that_was_given_a_key_takes_no_readable_set(tmp_path: Path, call: Path) -> None:
    with AudioStorageSystem(tmp_path / "a") as storage:
        storage.store_audio_file(call)
        storage.backups.create(tmp_path / "backup")
    with pytest.raises(KeyRefused, match="not encrypted"):
        restore_backup(str(tmp_path / "backup"), str(tmp_path / "b"), encryption=bytes(32))
    assert not AudioStorageSystem.exists(tmp_path / "b")
