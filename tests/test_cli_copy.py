"""The command `copy`: what it prints and how it exits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from audio_storage_system.cli import copy as command
from audio_storage_system.cli import main
from audio_storage_system.transfer import CopyProgress
from copying import content, fill

pytestmark = pytest.mark.usefixtures("scripted_engine")


def test_it_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path / "a", tmp_path, 2)
    assert main(["copy", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    said = capsys.readouterr().out
    assert "audio_files" in said and "Copied 2 files (192.1 kB), verified 2; deleted 0 recordings" in said
    assert main(["copy", str(tmp_path / "a"), str(tmp_path / "b"), "--verify-all", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["complete"] and report["blobs_copied"] == 0 and report["blobs_verified"] == 2
    assert report["tables"]["audio_files"] == {"source": 2, "destination": 2, "copied": 0}
    assert content(tmp_path / "b") == content(tmp_path / "a")


def test_it_exits_with_1_when_anything_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path / "a", tmp_path, 2)
    first = min((tmp_path / "a" / "audio_files").rglob("*.wav"), key=lambda path: (len(path.name), path.name))
    first.write_bytes(b"rotten")
    assert main(["copy", str(tmp_path / "a"), str(tmp_path / "b")]) == 1
    said = capsys.readouterr().out
    assert "is damaged" in said and "run the same command again" in said
    assert main(["copy", str(tmp_path / "a"), str(tmp_path / "b"), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert not report["complete"] and [problem["audio_id"] for problem in report["problems"]] == [1]


def test_errors_have_their_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["copy", str(tmp_path / "none"), str(tmp_path / "b")]) == 9
    assert "There is no archive at" in capsys.readouterr().err
    fill(tmp_path / "a", tmp_path, 1)
    fill(tmp_path / "b", tmp_path, 1)
    assert main(["copy", str(tmp_path / "a"), str(tmp_path / "b"), "--json"]) == 5
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "archive_mismatch"


def test_progress_is_told_on_stderr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(command, "QUIET_SECONDS", 0.0)
    with command._Shown() as shown:
        shown.tell(CopyProgress("recordings", 1, 4, 1_000_000, 4_000_000, 1))
        shown.tell(CopyProgress("segments", 4, 4, 4_000_000, 4_000_000, 12_345))
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("1 of 4 recordings, ") and first.endswith("B/s, 00:00 left")
    assert second == "segments: 12,345 rows"
