"""What commands say when something is wrong: exit codes, one line, one document, no traceback."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from audio_storage_system import AudioStorageSystem
from audio_storage_system.audio.spool import SpoolWriter
from audio_storage_system.cli.record import bar
from audio_storage_system.errors import EngineUnavailable
from batch import Command

pytestmark = pytest.mark.usefixtures("scripted_engine")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "archive"


def test_an_archive_that_is_not_there_is_said_and_not_made(run: Command, home: Path) -> None:
    answer = run("list", "--json")
    assert answer.code == 9
    assert answer.data["error"] == {
        "code": "archive_not_found",
        "message": f"There is no archive at {home}. Make one with: audio-storage init",
        "retryable": False,
    }
    assert answer.err.startswith("Error: There is no archive")
    assert not home.exists()


@pytest.mark.parametrize("arguments", [["nonsense"], ["add"], ["search", "x", "--limit", "many"], ["transcripts"]])
def test_wrong_usage_is_one_line_and_a_document(run: Command, arguments: list[str]) -> None:
    answer = run(*arguments, "--json")
    assert answer.code == 2
    assert answer.data["error"]["code"] == "usage"
    assert "--help" in answer.err


def test_a_defect_is_said_without_a_traceback_unless_asked_for(run: Command, monkeypatch: Any) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("oops")

    run("init")
    monkeypatch.setattr(AudioStorageSystem, "stats", broken)
    answer = run("stats", "--json")
    assert answer.code == 70
    assert answer.data["error"]["code"] == "unexpected"
    assert "Traceback" not in answer.err
    assert "Traceback" in run("--debug", "stats").err
    monkeypatch.setenv("AUDIO_STORAGE_DEBUG", "1")
    assert "ZeroDivisionError: oops" in run("stats").err


def test_ctrl_c_exits_with_130(run: Command, monkeypatch: Any) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    run("init")
    monkeypatch.setattr(AudioStorageSystem, "stats", interrupted)
    answer = run("stats", "--json")
    assert answer.code == 130
    assert answer.data["error"]["code"] == "interrupted"


def test_ctrl_c_during_add_reports_what_was_done(run: Command, note: Path, demo: Path, monkeypatch: Any) -> None:
    original = AudioStorageSystem.add

    def add(self: AudioStorageSystem, path: Path, **given: Any) -> Any:
        if path.name == "call.flac":
            raise KeyboardInterrupt
        return original(self, path, **given)

    monkeypatch.setattr(AudioStorageSystem, "add", add)
    answer = run("add", note, demo / "call.flac", demo / "meeting.flac", "--jobs", 1, "--json")
    assert answer.code == 130
    assert [added["original_name"] for added in answer.data["added"]] == ["voice_note.flac"]


def test_what_the_library_warns_of_is_said_once(run: Command, demo: Path) -> None:
    run("init", "--transcriber-fallback", "scripted")
    answer = run("add", demo / "call.flac", demo / "voice_note.flac", "--whisper-model", "base", "--json")
    assert answer.err.count("scripted instead") == 1
    assert len(answer.data["added"]) == 2


def test_a_capture_that_was_cut_short_is_recovered_and_told_by_the_next_command(run: Command, home: Path) -> None:
    run("init")
    writer = SpoolWriter(home / "spool" / "cut", 16_000, 1)
    writer.write(bytes(2 * 16_000 * 3))
    writer.close().release()
    answer = run("list", "--json")
    assert "Recovered 3.0 s of a recording cut short" in answer.err
    assert "0.00 s missing" in answer.err
    assert answer.data["recordings"][0]["duration"] == pytest.approx(3.0)


def test_record_without_a_microphone_says_what_is_missing(run: Command, monkeypatch: Any) -> None:
    def absent(*_: object, **__: object) -> None:
        raise EngineUnavailable(spec="x", reason="y")

    monkeypatch.setattr(AudioStorageSystem, "record_and_store_audio", absent)
    assert run("record", "--duration", 1, "--json").code == EngineUnavailable.exit_code


def test_the_level_meter_is_in_decibels() -> None:
    assert bar(0.0).strip() == ""
    assert bar(1.0).count("█") == 30
    assert bar(0.0316).count("█") == 15


def test_texts_with_brackets_and_odd_bytes_are_shown_as_they_are(run: Command, note: Path, tmp_path: Path) -> None:
    name = tmp_path / "[bold]take[bold] \udce4.flac"
    shutil.copy(note, name)
    run("add", name, "-m", "title=[red]x[/red]")
    out = run("list").out
    assert "[bold]take[bold]" in out
    assert "title=[red]x[/red]" in out


def test_version_and_help_need_no_archive(run: Command, home: Path) -> None:
    assert run("--version").out.strip()[0].isdigit()
    assert "search" in run("--help").out
    assert run().code == 0
    assert not home.exists()


# What is told, and what is refused


def test_a_damaged_file_is_named_as_it_is_and_show_says_what_is_wrong_with_it(
    run: Command, demo: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged_tail.flac"
    sound = bytearray((demo / "call.flac").read_bytes())
    sound[-4000:-1000] = bytes(3000)
    damaged.write_bytes(sound)
    told = run("add", damaged).err
    assert "damaged_tail.flac: " in told and "Damaged_tail" not in told
    assert "warning" in run("show", 1).out


def test_retranscribing_with_an_engine_that_does_not_exist_is_wrong_usage(run: Command, note: Path) -> None:
    run("add", note)
    answer = run("retranscribe", 1, "--model", "nope", "--json")
    assert answer.code == 2
    assert answer.data["error"]["code"] == "unknown_spec"


def test_a_failed_retranscription_says_whether_trying_again_can_help(
    run: Command, note: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("add", note)
    failure = run("retranscribe", 1, "--model", "base", "--json").data["failed"][0]
    assert failure["outcome"] == "engine_unavailable" and failure["retryable"]


@pytest.mark.parametrize("option", ["--limit", "--offset"])
def test_a_page_of_a_listing_begins_and_ends_somewhere(run: Command, note: Path, option: str) -> None:
    run("add", note)
    assert run("list", option, "-1").code == 2
