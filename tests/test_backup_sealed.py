"""Sets of an encrypted archive: nobody without its key learns more than that they are there."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from audio_storage_system import AudioStorageSystem, restore_backup
from audio_storage_system.backup import Backups
from audio_storage_system.errors import BackupDamaged, KeyMissing, KeyRefused
from audio_storage_system.keys import ArchiveKeys
from backing import objects, rows
from copying import fill

pytestmark = pytest.mark.usefixtures("scripted_engine")


def keyed(storage: AudioStorageSystem, root: bytes) -> Backups:
    """The backups of an archive that has this key."""
    keys = ArchiveKeys(storage._archive.marker.archive_id, root)
    return Backups(replace(storage._archive, keys=keys))


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[AudioStorageSystem]:
    fill(tmp_path / "a", tmp_path, 3)
    (tmp_path / "a" / "keys.json").write_text('{"kdf": "scrypt"}')
    with AudioStorageSystem(tmp_path / "a") as opened:
        opened.set_metadata(1, {"secret": "Rumpelstilzchen", "number": 12345.678})
        yield opened


def test_only_the_key_opens_it(storage: AudioStorageSystem, tmp_path: Path) -> None:
    dest, root = tmp_path / "backup", secrets.token_bytes(32)
    first = keyed(storage, root).create(dest)
    assert keyed(storage, root).create(dest).packs_written <= 1
    assert keyed(storage, root).verify(dest).whole and keyed(storage, root).verify(dest, first.set_id).whole
    with pytest.raises(KeyMissing):
        storage.backups.verify(dest)
    with pytest.raises(KeyMissing):
        restore_backup(str(dest), str(tmp_path / "b"))
    with pytest.raises(KeyRefused, match="another key"):
        keyed(storage, secrets.token_bytes(32)).verify(dest)
    assert not (tmp_path / "b").exists()
    keys = ArchiveKeys(storage._archive.marker.archive_id, root)
    assert restore_backup(str(dest), str(tmp_path / "b"), keys=keys).complete
    assert rows(tmp_path / "b") == rows(tmp_path / "a")
    assert (tmp_path / "b" / "keys.json").read_text() == (tmp_path / "a" / "keys.json").read_text()


def test_nothing_can_be_read_or_guessed(storage: AudioStorageSystem, tmp_path: Path) -> None:
    """Neither words, nor names, nor numbers; and a name tells nobody who guesses a content that it is there."""
    keyed(storage, secrets.token_bytes(32)).create(tmp_path / "sealed")
    storage.backups.create(tmp_path / "plain")
    sealed, plain = objects(tmp_path / "sealed"), objects(tmp_path / "plain")
    everything = b"".join(content for name, content in sealed.items() if not name.startswith("blobs"))
    for word in (b"Rumpelstilzchen", b"spoken", b"audio_files", b"segments", b"12345"):
        assert word not in everything
    packs = {name for name in sealed if name.startswith("packs")}
    assert packs and not packs & set(plain)


def test_what_was_sealed_stays_in_its_place(storage: AudioStorageSystem, tmp_path: Path) -> None:
    dest, backups = tmp_path / "backup", keyed(storage, secrets.token_bytes(32))
    set_id = backups.create(dest).set_id
    one, other = sorted(path for path in (dest / "packs").rglob("*") if path.is_file())[:2]
    kept = one.read_bytes()
    shutil.copy(other, one)
    assert [damage.key for damage in backups.verify(dest).damages] == [one.relative_to(dest).as_posix()]
    one.write_bytes(kept)
    manifest = dest / "sets" / f"{set_id}.json"
    document: dict[str, Any] = json.loads(manifest.read_text())
    document["header"]["taken_at"] = "2020-01-01T00:00:00+00:00"  # a set that pretends to be another
    manifest.write_text(json.dumps(document))
    with pytest.raises(BackupDamaged, match="hash"):
        backups.verify(dest)


def test_another_key_begins_anew(storage: AudioStorageSystem, tmp_path: Path) -> None:
    """After the key was changed, new sets need nothing that only the old one opens."""
    dest, old, new = tmp_path / "backup", secrets.token_bytes(32), secrets.token_bytes(32)
    keyed(storage, old).create(dest)
    made = keyed(storage, new).create(dest)
    assert made.packs_written > 5 and made.blobs_copied == 0
    assert keyed(storage, new).verify(dest).whole
    assert keyed(storage, old).verify(dest, min(sets(dest))).whole
    report = keyed(storage, new).prune(dest, keep_last=2)  # nobody knows with one key what is needed by all
    assert report.swept is False and report.objects == 0
    report = keyed(storage, new).prune(dest, keep_last=1)
    assert report.swept and report.objects > 5
    assert keyed(storage, new).verify(dest).whole


def sets(dest: Path) -> list[str]:
    return [path.stem for path in (dest / "sets").iterdir()]
