"""Adding very many files: what it tells on the way and at the end, what it would do, and taking it up again."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from audio_storage_system import AudioStorageSystem
from audio_storage_system.blobs.local import LocalBlobStore
from audio_storage_system.cli.paths import find_audio
from audio_storage_system.cli.progress import EVERY_SECONDS, Pace
from audio_storage_system.cli.report import SHOWN, bounded
from audio_storage_system.errors import NotAudio
from batch import Command, commands, make, recording, start

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and links are different there")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "archive"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "in"


@pytest.fixture
def run(archive: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, scripted_engine: object) -> Command:
    return commands(archive, monkeypatch, capsys)


# --- telling ---------------------------------------------------------------------------------------------------------


def test_the_pace_is_that_of_the_last_files_and_the_rest_takes_as_long() -> None:
    pace = Pace(1000.0)
    begun = pace._recent[0][0]
    for number in range(1, 501):
        pace.note(1.0, begun + number * 0.1)
    assert str(pace) == "10/s"
    assert pace.seconds_left == pytest.approx(50, rel=0.01)
    for number in range(1, 201):
        pace.note(1.0, begun + 50 + number)
    assert str(pace) == "1.0/s"
    assert pace.seconds_left == pytest.approx(300, rel=0.01)
    assert pace.is_due(begun + EVERY_SECONDS + 1)
    assert not pace.is_due(begun + EVERY_SECONDS + 2)


def test_a_terminal_sees_the_first_of_many_and_a_file_sees_all() -> None:
    lines = [str(number) for number in range(SHOWN + 5)]
    assert list(bounded(lines, False, "see")) == lines
    assert list(bounded(lines, True, "see")) == [*lines[:SHOWN], "… and 5 more; see"]
    assert list(bounded(lines[:SHOWN], True, "see")) == lines[:SHOWN]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_failures_are_bounded_and_the_bar_counts_them(
    run: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(folder, "good.wav")
    for number in range(SHOWN + 3):
        (folder / f"bad{number:02}.wav").write_text("nothing to hear")
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm")
    answer = run("add", folder, "--no-transcribe")
    assert answer.code == 1
    assert terminal.getvalue().count("Failed: ") == SHOWN
    assert f"{SHOWN + 3} failed" in terminal.getvalue()
    assert "… and 3 more; see all of them with --json" in terminal.getvalue()
    assert answer.out.splitlines()[-1] == f"1 added, {SHOWN + 3} failed"
    assert len(run("add", folder, "--no-transcribe", "--json").data["failed"]) == SHOWN + 3


@posix
def test_the_same_file_through_a_link_or_another_folder_is_found_once(folder: Path) -> None:
    (path,) = make(folder, "sub/a.wav")
    (folder / "link.wav").symlink_to(path)
    (folder / "linked").symlink_to(path.parent, target_is_directory=True)
    arguments = [str(folder), str(folder / "linked" / "a.wav"), os.path.relpath(path)]
    assert [c.path for c in find_audio(arguments, folder / "none").candidates] == [folder / "link.wav"]


# --- taking up again -------------------------------------------------------------------------------------------------


def test_what_is_stored_is_read_but_not_copied_again(
    run: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(folder, *(f"{number}.wav" for number in range(5)))
    run("add", folder, "--no-transcribe")
    make(folder, "z.wav")[0].write_bytes(recording(99))
    staged: list[str] = []
    stage = LocalBlobStore.stage
    monkeypatch.setattr(LocalBlobStore, "stage", lambda *a, **k: staged.append(k["name"]) or stage(*a, **k))  # type: ignore[func-returns-value]
    answer = run("add", folder, "--no-transcribe", "--jobs", 1)
    assert "1 added, 5 stored before" in answer.out
    assert staged == ["0.wav", "z.wav"], "only until it is known that this is a run taken up again"


def test_metadata_is_still_merged_when_files_are_looked_for_first(run: Command, folder: Path) -> None:
    make(folder, "a.wav", "b.wav", "c.wav")
    run("add", folder, "--no-transcribe", "-m", "user=john")
    run("add", folder, "--no-transcribe", "-m", "user=ann", "-m", "session=2", "--jobs", 1)
    recordings = run("list", "--json").data["recordings"]
    assert [item["metadata"] for item in recordings] == [{"user": "john", "session": 2}] * 3
    answer = run("add", folder, "--no-transcribe", "--on-duplicate", "error", "--json")
    assert [failure["code"] for failure in answer.data["failed"]] == ["duplicate_recording"] * 3


STOPPED = """
import os, sys
from audio_storage_system.blobs.local import LocalBlobStore
from audio_storage_system.cli import main

publish, begun = LocalBlobStore.publish, []


def counted(self, *given, **further):
    begun.append(1)
    if len(begun) == 20:
        os.kill(os.getpid(), int(sys.argv[1]))
    return publish(self, *given, **further)


LocalBlobStore.publish = counted
sys.exit(main(sys.argv[2:]))
"""


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_add_is_taken_up_where_it_was(folder: Path, archive: Path, number: int) -> None:
    make(folder, *(f"{name:03}.wav" for name in range(600)))
    words = ("add", folder, "--no-transcribe", "--archive", archive)
    program = [sys.executable, "-c", STOPPED, str(int(number)), *map(str, words)]
    process = subprocess.Popen(program, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=60)
    assert process.returncode == (130 if number == signal.SIGINT else -9), err
    assert "Traceback" not in err
    if number == signal.SIGINT:
        assert "stopped before the end" in out
        assert out.strip().endswith(" left")
    again = start(*words)
    out, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    with AudioStorageSystem(archive, create=False) as storage:
        recordings = storage.list_recordings()
    assert len({item.file_hash for item in recordings}) == len(recordings) == 600
    assert sorted(item.original_name for item in recordings)[0] == "000.wav"
    assert "stored before" in out


# --- only telling what would be done ---------------------------------------------------------------------------------


def test_a_dry_run_tells_what_is_new_known_and_no_audio_and_makes_nothing(
    run: Command, folder: Path, archive: Path
) -> None:
    first, second = make(folder, "a.wav", "b.wav")
    (folder / "copy of a.wav").write_bytes(first.read_bytes())
    (folder / "bad.wav").write_text("nothing to hear")
    (folder / "other").write_text("nothing to hear either")
    (folder / "list.txt").touch()
    answer = run("add", folder, folder / "missing.wav", "--dry-run", "--json")
    assert answer.code == 1
    assert not archive.exists()
    data = answer.data
    assert data["dry_run"]
    assert [Path(item["path"]).name for item in data["would_add"]] == ["a.wav", "b.wav"]
    assert data["duplicates"] == [{"path": str(folder / "copy of a.wav"), "same_as": str(first)}]
    assert {failure["code"] for failure in data["failed"]} == {"not_found", "not_audio"}
    assert data["ignored"] == 2
    assert data["total"] == {"bytes": first.stat().st_size + second.stat().st_size, "seconds": 2.0}


def test_a_dry_run_knows_what_the_archive_has_and_leaves_it_as_it_is(run: Command, folder: Path) -> None:
    (first, _) = make(folder, "a.wav", "b.wav")
    run("add", first, "--no-transcribe")
    answer = run("add", folder, "--dry-run", "-m", "user=john", "--json")
    assert answer.code == 0
    assert answer.data["duplicates"] == [{"path": str(first), "audio_id": 1}]
    assert [Path(item["path"]).name for item in answer.data["would_add"]] == ["b.wav"]
    recordings = run("list", "--json").data["recordings"]
    assert [item["metadata"] for item in recordings] == [{}]
    out = run("add", folder, "--dry-run").out.splitlines()
    assert out[-1] == "1 file would be added (16.0 kB, 00:01), 1 duplicate"


def test_examine_tells_what_adding_would_do(archive: Path, folder: Path) -> None:
    (path,) = make(folder, "a.wav")
    (folder / "bad.wav").write_text("nothing to hear")
    with AudioStorageSystem(archive) as storage:
        before = storage.examine(path)
        assert (before.size, before.seconds, before.media_type, before.audio_id) == (16044, 1.0, "audio/wav", None)
        audio_id = storage.store_audio_file(path)
        assert storage.examine(path).audio_id == audio_id
        assert storage.known_hashes() == {before.file_hash}
        storage.delete(audio_id)
        assert storage.examine(path).audio_id is None
        assert storage.known_hashes() == {before.file_hash}, "deleted is known, too"
        with pytest.raises(NotAudio):
            storage.examine(folder / "bad.wav")
