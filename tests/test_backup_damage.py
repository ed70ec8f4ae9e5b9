"""Bit rot in a backup: found wherever it is, named by what is lost, mended by the next backup."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from audio_storage_system import AudioStorageSystem, restore_backup
from audio_storage_system.backup import Damage
from audio_storage_system.backup.format import canonical
from audio_storage_system.cli import main
from audio_storage_system.errors import BackupDamaged
from backing import audio, back_up, flip, objects, rows
from copying import fill

pytestmark = pytest.mark.usefixtures("scripted_engine")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    fill(tmp_path / "a", tmp_path, 3)
    return tmp_path / "a"


def pack_of(dest: Path, table: str) -> Path:
    """The pack with the rows of a table."""
    for path in (dest / "packs").rglob("*"):
        if path.is_file() and zlib.decompress(path.read_bytes()).startswith(f'{{"table":"{table}"'.encode()):
            return path
    raise AssertionError(table)


def found(archive: Path, dest: Path) -> list[Damage]:
    with AudioStorageSystem(archive, create=False) as storage:
        report = storage.backups.verify(dest)
        assert storage.backups.rehearse(dest).whole == report.whole
    return report.damages


@pytest.mark.parametrize("table", ["segments", "audio_files", "embeddings", "blobs"])
@pytest.mark.parametrize("rot", ["flipped", "cut", "empty", "swapped", "gone"])
def test_a_rotten_pack_is_named(table: str, rot: str, archive: Path, tmp_path: Path) -> None:
    dest = tmp_path / "backup"
    back_up(archive, dest)
    path = pack_of(dest, table)
    if rot == "flipped":
        flip(path)
    elif rot == "swapped":  # with one that is in order
        path.write_bytes(pack_of(dest, "metadata").read_bytes())
    elif rot == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: -3 if rot == "cut" else 0])
    [damage] = found(archive, dest)
    assert damage.key == path.relative_to(dest).as_posix()
    assert (damage.table == table and "3 rows" in damage.reason) or "9 rows" in damage.reason
    with pytest.raises(BackupDamaged, match=path.name):
        restore_backup(str(dest), str(tmp_path / "b"))


MEASURED = """
import resource, sys
from audio_storage_system.cli import main
code = main(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, file=sys.stderr)
sys.exit(code)
"""


def verified_in_a_process(archive: Path, dest: Path) -> tuple[int, str, int]:
    """How verifying ended, what it said, and how many MiB it took."""
    command = [sys.executable, "-c", MEASURED, "backup", "verify", str(dest), "--archive", str(archive)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout, int(done.stderr.split()[-1])


def test_no_more_of_a_forged_pack_is_unpacked_than_the_set_names(archive: Path, tmp_path: Path) -> None:
    dest = tmp_path / "backup"
    back_up(archive, dest)
    usual = verified_in_a_process(archive, dest)
    path = pack_of(dest, "segments")
    packing = zlib.compressobj(9)
    path.write_bytes(b"".join([*(packing.compress(bytes(1 << 24)) for _ in range(32)), packing.flush()]))  # 512 MiB
    assert path.stat().st_size < 1 << 20
    code, said, taken = verified_in_a_process(archive, dest)
    assert (usual[0], code) == (0, 1) and path.name in said
    assert taken < usual[2] + 100, "MiB"
    path.write_bytes(bytes(1 << 20))
    [damage] = found(archive, dest)
    assert "larger than it was" in damage.reason and "rows of segments" in damage.reason


def test_sets_that_do_not_say_how_long_their_texts_are_can_be_restored(archive: Path, tmp_path: Path) -> None:
    dest = tmp_path / "backup"
    back_up(archive, dest)
    [path] = (dest / "sets").iterdir()
    manifest = json.loads(path.read_text())
    for cut in (*manifest["body"]["tables"].values(), manifest["body"]["blobs"]):
        cut["parts"] = [part[:5] for part in cut["parts"]]
    manifest["sha256"] = hashlib.sha256(canonical([manifest["header"], manifest["body"]])).hexdigest()
    path.write_text(json.dumps(manifest))
    back_up(archive, dest)  # on top of it
    for set_id in sorted(one.stem for one in (dest / "sets").iterdir()):
        restore_backup(str(dest), str(tmp_path / set_id), set_id=set_id)
        assert rows(tmp_path / set_id)["segments"] == rows(archive)["segments"]


def test_rotten_audio_is_named_and_mended(archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dest = tmp_path / "backup"
    set_id = back_up(archive, dest)
    blobs = sorted(path for path in (dest / "blobs").rglob("*") if path.is_file())
    flip(blobs[0])
    blobs[1].unlink()
    flip(pack_of(dest, "segments"))
    assert main(["backup", "verify", str(dest), "--archive", str(archive)]) == 1
    said = capsys.readouterr().out
    assert all(f"{path.relative_to(dest).as_posix()} (recording " in said for path in blobs[:2]) and "NOT whole" in said
    assert main(["backup", "verify", str(dest), set_id, "--repair", "--archive", str(archive), "--json"]) == 1
    assert len(json.loads(capsys.readouterr().out)["damages"]) == 3
    back_up(archive, dest)
    with AudioStorageSystem(archive) as storage:
        for one in storage.backups.list(dest):  # the old set has what it needs again
            assert storage.backups.verify(dest, one.set_id).whole
    restore_backup(str(dest), str(tmp_path / "b"), set_id=set_id)
    assert rows(tmp_path / "b") == rows(archive) and audio(tmp_path / "b") == audio(archive)


def test_a_restore_tells_which_audio_is_lost(archive: Path, tmp_path: Path) -> None:
    dest = tmp_path / "backup"
    back_up(archive, dest)
    with AudioStorageSystem(archive) as storage:
        flip(dest / "blobs" / (hash_ := storage.get_recording(2).file_hash)[:2] / hash_)
    report = restore_backup(str(dest), str(tmp_path / "b"))
    assert not report.complete and [(one.audio_id, hash_ in one.reason) for one in report.problems] == [(2, True)]
    assert rows(tmp_path / "b") == rows(archive) and len(audio(tmp_path / "b")) == 2


@pytest.mark.parametrize("rot", ["flipped", "cut", "other", "number"])
def test_a_rotten_manifest_is_named(rot: str, archive: Path, tmp_path: Path) -> None:
    dest = tmp_path / "backup"
    path = dest / "sets" / f"{back_up(archive, dest)}.json"
    if rot == "other":
        path.write_text("[]")
    elif rot == "number":
        path.write_text(path.read_text().replace('"rows"', '"rows "').replace('"window": 1000', '"window": 1001'))
    elif rot == "cut":
        path.write_bytes(path.read_bytes()[:-10])
    else:
        flip(path)
    with AudioStorageSystem(archive) as storage:
        with pytest.raises(BackupDamaged, match=path.name):
            storage.backups.verify(dest)
        assert storage.backups.create(dest).complete  # a new one does not need it
        assert storage.backups.verify(dest).whole


def test_any_bit_of_any_object_counts(archive: Path, tmp_path: Path) -> None:
    dest = tmp_path / "backup"
    back_up(archive, dest)
    with AudioStorageSystem(archive) as storage:
        for name in objects(dest):
            path = dest / name
            content = path.read_bytes()
            flip(path)
            try:
                whole = storage.backups.verify(dest).whole
            except BackupDamaged as error:
                whole, text = False, str(error)
                assert path.name in text
            assert not whole or name == "backup.json", name
            path.write_bytes(content)
        assert storage.backups.verify(dest).whole


@pytest.mark.parametrize(
    "body", ["[" * 100_000 + "]" * 100_000, '{"tables": []}', '{"tables": {}, "blob_bytes": 1e999}']
)
def test_a_forged_manifest_is_refused(body: str, archive: Path, tmp_path: Path) -> None:
    dest = tmp_path / "backup"
    path = dest / "sets" / f"{back_up(archive, dest)}.json"
    data = json.loads(path.read_text())
    if body.startswith("["):
        path.write_text(path.read_text().replace('"sha256"', f'"deep": {body}, "sha256"', 1))
    else:
        data["body"] |= json.loads(body)
        data["sha256"] = hashlib.sha256(canonical([data["header"], data["body"]])).hexdigest()
        path.write_text(json.dumps(data))
    with AudioStorageSystem(archive) as storage, pytest.raises(BackupDamaged, match=path.name):
        storage.backups.verify(dest)


def test_a_set_under_the_name_of_another_is_refused(archive: Path, tmp_path: Path) -> None:
    dest = tmp_path / "backup"
    old, new = back_up(archive, dest), back_up(archive, dest)
    (dest / "sets" / f"{old}.json").replace(dest / "sets" / f"{new}.json")
    with pytest.raises(BackupDamaged, match="under the name of another"):
        restore_backup(str(dest), str(tmp_path / "b"))


def test_a_restore_says_which_deletions_it_could_not_read(
    archive: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dest = tmp_path / "backup"
    old, new = back_up(archive, dest), back_up(archive, dest)
    flip(dest / "sets" / f"{new}.json")
    restore_backup(str(dest), str(tmp_path / "b"), set_id=old)
    assert f"What only set {new} knows to be deleted may come back" in caplog.text
