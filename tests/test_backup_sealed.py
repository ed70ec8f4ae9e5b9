"""Sets of an encrypted archive: nobody without its key learns more than that they are there, and the key is enough."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from audio_storage_system import AudioStorageSystem, restore_backup
from audio_storage_system.database.tables import data_keys
from audio_storage_system.errors import BackupDamaged, InvalidInput, KeyMissing, KeyRefused
from backing import flip, objects
from copying import sound

pytestmark = pytest.mark.usefixtures("scripted_engine")

KEY = secrets.token_bytes(32)


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[AudioStorageSystem]:
    with AudioStorageSystem(tmp_path / "a", encryption=KEY, transcriber="scripted") as opened:
        for seed in range(3):
            opened.add(sound(tmp_path / f"{seed}.wav", seed), metadata={"secret": "Rumpelstilzchen", "n": 12345.678})
        yield opened


def shown(storage: AudioStorageSystem) -> list[Any]:
    """What an archive says, its audio included."""
    listed = storage.list_recordings()
    sounds = []
    for one in listed:
        with storage.open_audio(one.id) as file:
            sounds.append(file.read())
    hits = [hit.as_dict() for hit in storage.search_similar_audio("spoken", limit=10)]
    return [[one.as_dict() for one in listed], sounds, [(hit["audio_id"], hit["transcription"]) for hit in hits]]


def test_the_destination_and_the_key_are_enough(storage: AudioStorageSystem, tmp_path: Path) -> None:
    dest = tmp_path / "backup"
    first = storage.backups.create(dest)
    assert first.complete and first.blobs_copied == 3
    again = storage.backups.create(dest)
    assert again.packs_written <= 2 and again.blobs_copied == 0  # that it was made is known, and logged
    assert storage.backups.verify(dest).whole and storage.backups.rehearse(dest).whole
    before = shown(storage)
    storage.close()
    shutil.rmtree(tmp_path / "a")
    assert restore_backup(str(dest), str(tmp_path / "b"), encryption=KEY).complete
    with AudioStorageSystem(tmp_path / "b", create=False, encryption=KEY) as restored:
        assert shown(restored) == before
        assert restored.backups.create(dest).packs_written <= 4


def test_without_it_there_is_nothing(storage: AudioStorageSystem, tmp_path: Path) -> None:
    dest = tmp_path / "backup"
    storage.backups.create(dest)
    with pytest.raises(KeyMissing):
        restore_backup(str(dest), str(tmp_path / "b"))
    with pytest.raises(KeyRefused):
        restore_backup(str(dest), str(tmp_path / "b"), encryption=secrets.token_bytes(32))
    assert not (tmp_path / "b").exists()


def test_nothing_can_be_read_or_guessed(storage: AudioStorageSystem, tmp_path: Path) -> None:
    """Neither words, nor names, nor numbers, nor sound."""
    storage.backups.create(tmp_path / "backup")
    restore_backup(str(tmp_path / "backup"), str(tmp_path / "b"), encryption=KEY)
    speech = (tmp_path / "0.wav").read_bytes()
    words = [b"Rumpelstilzchen", b"spoken", b"audio_files", b"segments", b"12345", speech[20_000:20_016]]
    for folder in ("backup", "b"):
        everything = b"".join(objects(tmp_path / folder).values())
        assert not [word for word in words if word in everything], folder


def test_names_of_packs_tell_nobody_what_is_in_them(storage: AudioStorageSystem, tmp_path: Path) -> None:
    """Who guesses a content cannot see whether it is there: another archive gives it another name."""
    storage.backups.create(tmp_path / "backup")
    with AudioStorageSystem(tmp_path / "other", encryption=KEY) as other:
        other.backups.create(tmp_path / "second")
    names = [{name for name in objects(tmp_path / dest) if name.startswith("packs")} for dest in ("backup", "second")]
    assert names[0] and names[1] and not names[0] & names[1]


def test_what_was_sealed_stays_in_its_place(storage: AudioStorageSystem, tmp_path: Path) -> None:
    dest = tmp_path / "backup"
    set_id = storage.backups.create(dest).set_id
    one, other = sorted(path for path in (dest / "packs").rglob("*") if path.is_file())[:2]
    kept = one.read_bytes()
    shutil.copy(other, one)
    assert [damage.key for damage in storage.backups.verify(dest).damages] == [one.relative_to(dest).as_posix()]
    one.write_bytes(kept)
    blob = next(path for path in (dest / "blobs").rglob("*") if path.is_file())
    flip(blob)
    [damage] = storage.backups.verify(dest).damages
    assert damage.audio_id in (1, 2, 3) and damage.key == blob.relative_to(dest).as_posix()
    flip(blob)
    manifest = dest / "sets" / f"{set_id}.json"
    document: dict[str, Any] = json.loads(manifest.read_text())
    document["header"]["taken_at"] = "2020-01-01T00:00:00+00:00"  # a set that pretends to be another
    manifest.write_text(json.dumps(document))
    with pytest.raises(BackupDamaged, match="hash"):
        storage.backups.verify(dest)


def test_rotation_between_sets(storage: AudioStorageSystem, tmp_path: Path) -> None:
    """Each set has the keys of its moment; what is copied once serves both."""
    dest = tmp_path / "backup"
    first = storage.backups.create(dest).set_id
    storage.keys.rotate()
    second = storage.backups.create(dest)
    assert second.blobs_copied == 0
    before = shown(storage)
    for number, set_id in enumerate((first, second.set_id)):
        place = tmp_path / f"r{number}"
        assert restore_backup(str(dest), str(place), set_id=set_id, encryption=KEY).complete
        with AudioStorageSystem(place, create=False, encryption=KEY) as restored:
            assert shown(restored) == before


def test_the_key_of_a_deleted_recording_is_not_restored(storage: AudioStorageSystem, tmp_path: Path) -> None:
    dest = tmp_path / "backup"
    first = storage.backups.create(dest).set_id
    storage.delete(2)
    storage.backups.create(dest)
    report = restore_backup(str(dest), str(tmp_path / "b"), set_id=first, encryption=KEY)
    assert report.complete and report.kept_deleted == 1
    with AudioStorageSystem(tmp_path / "b", create=False, encryption=KEY) as restored:
        with restored._archive.database.read() as connection:
            paths = set(connection.execute(select(data_keys.c.file_path)).scalars())
        assert paths == {one.file_path for one in restored.list_recordings()}


def test_a_server_has_to_be_accepted(storage: AudioStorageSystem, tmp_path: Path, postgres_url: str) -> None:
    dest, server = tmp_path / "backup", tmp_path / "b" / "audio-storage.toml"
    storage.backups.create(dest)
    server.parent.mkdir()
    server.write_text(f'database_url = "{postgres_url}"\n')
    with pytest.raises(InvalidInput, match="accept"):
        restore_backup(str(dest), str(server), encryption=KEY)
    assert restore_backup(str(dest), str(server), encryption=KEY, accept_plaintext_catalogue=True).complete
    with AudioStorageSystem(server, create=False, encryption=KEY) as restored:
        assert shown(restored)[1] == shown(storage)[1]
