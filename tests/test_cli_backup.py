"""The commands `backup` and `restore`: what they print and how they exit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from audio_storage_system import AudioStorageSystem
from audio_storage_system.backup import BackupProgress
from audio_storage_system.cli import backup as command
from audio_storage_system.cli import main
from backing import rows
from copying import fill

pytestmark = pytest.mark.usefixtures("scripted_engine")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    fill(tmp_path / "a", tmp_path, 2)
    return tmp_path / "a"


def answer(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, Any]:
    code = main([*map(str, arguments), "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_from_a_backup_to_an_archive(archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dest, at = tmp_path / "backup", ("--archive", archive)
    assert main(["backup", "create", str(dest), "--archive", str(archive)]) == 0
    said = capsys.readouterr().out
    assert "2 recordings, 192.1 kB of audio" in said and "Copied 2 files (192.1 kB)" in said
    code, report = answer(capsys, "backup", "create", dest, *at)
    assert code == 0 and report["complete"] and report["blobs_copied"] == 0 and report["rows"]["audio_files"] == 2
    code, listed = answer(capsys, "backup", "list", dest, *at)
    assert [one["set_id"] for one in listed["sets"]][1] == report["set_id"] and len(listed["sets"]) == 2
    assert answer(capsys, "backup", "list", *at)[1]["sets"][0]["destination"] == str(dest)
    code, verified = answer(capsys, "backup", "verify", dest, report["set_id"][:19], *at)
    assert code == 0 and verified["whole"] and verified["blobs"] == 2
    assert main(["backup", "rehearse", str(dest), "--archive", str(archive)]) == 0
    assert "It was restored and is the same, and a search for" in capsys.readouterr().out
    assert main(["backup", "list", str(dest), "--archive", str(archive)]) == 0
    assert "never" in capsys.readouterr().out
    assert main(["restore", str(dest), str(tmp_path / "b")]) == 0
    assert f"Restored set {report['set_id']} to" in capsys.readouterr().out
    assert rows(tmp_path / "b") == rows(archive)
    code, restored = answer(capsys, "restore", dest, tmp_path / "c", "--set", listed["sets"][0]["set_id"])
    assert code == 0 and restored["complete"] and restored["rows"]["audio_files"] == 2


def test_what_is_lost_is_said(archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with AudioStorageSystem(archive) as storage:
        (archive / storage.get_recording(1).file_path).unlink()
        key = storage.get_recording(1).file_path
    assert main(["backup", "create", str(tmp_path / "backup"), "--archive", str(archive)]) == 1
    assert f"Recording 1 ({key}): its file is missing" in capsys.readouterr().out
    assert main(["backup", "verify", str(tmp_path / "backup"), "--archive", str(archive)]) == 0
    assert "missing in it, too" in capsys.readouterr().out
    code, report = answer(capsys, "restore", tmp_path / "backup", tmp_path / "b")
    assert code == 1 and [one["audio_id"] for one in report["problems"]] == [1]


def test_errors_have_their_exit_codes(archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dest, at = tmp_path / "backup", ("--archive", archive)
    code, said = answer(capsys, "backup", "verify", dest, *at)
    assert code == 4 and "There is no backup set at" in said["error"]["message"]
    assert answer(capsys, "backup", "create", archive, *at)[0] == 2
    assert answer(capsys, "backup", "create", dest, *at)[0] == 0
    code, said = answer(capsys, "restore", dest, archive)
    assert code == 5 and "never replaces" in said["error"]["message"]
    code, said = answer(capsys, "restore", dest, tmp_path / "b", "--at", "yesterday")
    assert code == 2 and "--at" in said["error"]["message"]
    fill(tmp_path / "other", tmp_path, 1)
    code, said = answer(capsys, "restore", dest, tmp_path / "b", "--deletions-of", tmp_path / "other")
    assert code == 5 and said["error"]["code"] == "archive_mismatch" and not (tmp_path / "b").exists()
    set_id = next((dest / "sets").iterdir())
    set_id.write_text("{}")
    code, said = answer(capsys, "restore", dest, tmp_path / "b")
    assert code == 9 and said["error"]["code"] == "backup_damaged" and set_id.name in said["error"]["message"]


def test_how_far_it_is_goes_to_stderr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(command, "QUIET_SECONDS", 0.0)
    with command._Shown() as shown:
        shown.tell(BackupProgress("segments", 1_234))
        shown.tell(BackupProgress("audio", 1_234, 2, 5, 2_000_000, 5_000_000))
    said = capsys.readouterr()
    assert said.out == "" and said.err.splitlines() == [
        "segments: 1,234 rows",
        "audio: 2 of 5 files, 2.0 MB of 5.0 MB",
    ]
