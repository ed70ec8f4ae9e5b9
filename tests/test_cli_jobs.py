"""The commands about background jobs, as a user types them."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from audio_storage_system.testing.scripted import ScriptedTranscriber
from audio_storage_system.transcribers import Window
from batch import Command

pytestmark = pytest.mark.usefixtures("scripted_engine")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "archive"


@pytest.fixture
def folder(tmp_path: Path, demo: Path) -> Path:
    """Three recordings that differ, and a file that is none."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    for number in range(3):
        (folder / f"call{number}.flac").write_bytes((demo / "call.flac").read_bytes() + bytes([number]))
    (folder / "notes.txt").write_text("nothing to hear")
    return folder


def test_files_are_stored_now_and_done_by_a_worker(run: Command, folder: Path) -> None:
    added = run("add", folder, "--background", "--jobs", 1, "--json")
    assert added.code == 0
    assert [(one["audio_id"], one["job_id"], one["outcome"]) for one in added.data["added"]] == [
        (number, number, None) for number in (1, 2, 3)
    ]
    listed = run("jobs", "list", "--json").data
    assert [job["state"] for job in listed["jobs"]] == ["waiting"] * 3 and listed["workers"] == []
    assert "start one with: audio-storage worker" in run("jobs", "list").out
    worked = run("worker", "--until-done", "--json")
    assert worked.code == 0
    assert worked.data["done"] == 3 and worked.data["counts"]["unfinished"] == 0
    shown = run("jobs", "list")
    assert re.findall(r"call\d\.flac", shown.out) == ["call2.flac", "call1.flac", "call0.flac"]
    assert "0 to do, 3 done" in shown.out
    assert len(run("search", "second spoken", "--json").data["hits"]) == 3
    again = run("add", folder, "--background")
    assert again.code == 0 and "3 stored before" in again.out
    assert run("jobs", "list", "--json").data["counts"]["unfinished"] == 0


def test_what_went_wrong_is_told_and_tried_again(
    run: Command,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(window: Window) -> None:
        raise RuntimeError("decoder broke")

    run("add", folder / "call0.flac", "--background")
    monkeypatch.setattr(ScriptedTranscriber, "before", fail)
    worked = run("worker", "--until-done")
    assert "Job 1, recording 1: failed" in worked.err and "0 jobs done, 1 failed by this worker" in worked.out
    shown = run("jobs", "show", 1)
    assert re.search(r"state +failed", shown.out) and "decoder broke" in shown.out
    assert run("jobs", "follow", 1).code == 1
    assert "decoder broke" in run("jobs", "list", "--state", "failed").out
    monkeypatch.setattr(ScriptedTranscriber, "before", None)
    assert run("jobs", "retry", "--failed").out == "1 job queued again\n"
    run("worker", "--until-done")
    assert run("jobs", "follow", 1).code == 0


def test_jobs_are_cancelled(run: Command, folder: Path) -> None:
    run("add", folder, "--background", "--priority", "low")
    assert "Cancelled job 2. Recording 2 stays stored." in run("jobs", "cancel", 2).out
    assert "2 jobs cancelled" in run("jobs", "cancel", "--all").out
    assert run("worker", "--until-done", "--json").data["done"] == 0
    assert [r["transcript"] for r in run("list", "--json").data["recordings"]] == [None] * 3


def test_wrong_use_is_refused_with_what_to_do(run: Command, folder: Path) -> None:
    assert run("add", folder, "--background", "--no-transcribe").code == 2
    assert run("add", folder, "--priority", "high").code == 2
    assert run("jobs", "list").code == 9  # there is no archive yet
    run("add", folder / "call0.flac", "--background")
    assert run("jobs", "show", 99).code == 4
    assert "not both" in run("jobs", "cancel").err and "not both" in run("jobs", "retry", 1, "--failed").err
    assert run("worker", "--queues", "nothing").code == 2
    assert run("jobs", "retry", 1).code == 5


def test_new_versions_and_vectors_in_the_background(run: Command, folder: Path) -> None:
    run("add", folder)
    queued = run("retranscribe", "--where", "audio_id>1", "--model", "scripted:again", "--background", "--json").data
    assert [job["audio_id"] for job in queued["queued"]] == [3, 2]
    assert "queued" in run("reembed", "--background").out
    run("worker", "--until-done")
    versions = run("transcripts", "list", 2, "--json").data["transcripts"]
    assert [(version["whisper_model"], version["active"]) for version in versions] == [
        ("scripted", False),
        ("scripted:again", True),
    ]
    assert run("jobs", "list", "--json").data["counts"]["done"] == 3


def test_watching_a_folder_stores_and_leaves_the_rest_to_workers(run: Command, folder: Path) -> None:
    for path in folder.iterdir():
        os.utime(path, (1, 1))
    assert run("watch", folder, "--once", "--settle", 0, "--background").code == 0
    assert run("jobs", "list", "--json").data["counts"]["unfinished"] == 3


def test_a_job_of_the_whole_archive_names_no_recording(run: Command, folder: Path) -> None:
    run("add", folder)
    run("reembed", "--background")
    assert run("jobs", "cancel", 1).out == "Cancelled job 1.\n1 job cancelled\n"
    run("jobs", "retry", 1)
    assert "Job 1: done" in run("worker", "--until-done").err


def test_who_adds_for_workers_is_told_that_there_is_none(run: Command, folder: Path) -> None:
    assert "start one with: audio-storage worker" in run("add", folder, "--background").err


def test_a_damaged_queue_is_named_and_can_be_deleted(run: Command, home: Path, folder: Path) -> None:
    run("add", folder / "call0.flac", "--background")
    for file in home.glob("jobs.db*"):
        file.unlink()
    (home / "jobs.db").write_bytes(os.urandom(50_000))
    for command in (("jobs", "list"), ("worker", "--until-done")):
        refused = run(*command)
        assert (
            refused.code == 9 and f"{home / 'jobs.db'} is damaged" in refused.err and "delete that file" in refused.err
        )
    added = run("add", folder / "call1.flac", "--background")
    assert added.code == 0 and "will be queued by a worker" in added.err
    assert "1 job cancelled" in run("jobs", "cancel", 1).out
    (home / "jobs.db").unlink()
    assert run("worker", "--until-done", "--json").data["done"] == 1
