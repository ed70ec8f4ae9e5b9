"""Watching a folder: which files are taken, when, and what is remembered."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio_storage_system import AudioStorageSystem
from audio_storage_system.archive.notes import Notes
from audio_storage_system.cli.watching import Arrivals, Memory, Stamp, being_written, look
from audio_storage_system.errors import StorageUnavailable
from batch import Command, commands, make, recording, start

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals are sent differently there")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "archive"


# --- what is new and settled -----------------------------------------------------------------------------------------

SETTLE = 5.0
A, B = Stamp(10, 1, 1), Stamp(20, 2, 1)


def test_a_file_is_told_once_it_has_not_changed_for_long_enough() -> None:
    arrivals = Arrivals(SETTLE)
    assert arrivals.settled({"x": A}, 100) == []
    assert arrivals.settled({"x": A}, 104.9) == []
    assert arrivals.settled({"x": B}, 105) == []
    assert arrivals.settled({"x": B}, 109) == []
    assert arrivals.settled({"x": B}, 110) == [("x", B)]
    assert arrivals.settled({"x": B}, 111) == [("x", B)], "it is told until it is done with"
    arrivals.note("x", B)
    assert arrivals.settled({"x": B}, 200) == []
    assert arrivals.settled({"x": A}, 201) == []
    assert arrivals.settled({"x": A}, 206) == [("x", A)]


def test_a_share_that_is_away_for_a_while_has_not_lost_its_files() -> None:
    arrivals = Arrivals(0, {"x": A, "y": A})
    assert arrivals.settled({}, 1, complete=False) == []
    assert arrivals.settled({"x": A}, 2) == []
    assert arrivals.settled({"x": A, "y": A}, 3) == [("y", A)], "gone for certain, and back: looked at again"


names = st.sampled_from("abcd")
changes = st.one_of(
    st.tuples(st.just("wait"), st.integers(0, 48).map(lambda quarters: quarters / 4)),  # exact, so that sums are
    st.tuples(st.just("write"), names),
    st.tuples(st.just("remove"), names),
    st.tuples(st.just("rename"), names, names),
    st.tuples(st.just("look"), st.booleans()),
)


@given(events=st.lists(changes, max_size=60))
def test_whatever_happens_files_are_told_only_when_settled_and_in_the_end_each_once(events: list[Any]) -> None:
    files: dict[str, Stamp] = {}
    since: dict[tuple[str, Stamp], float] = {}  # from when on every look has shown the file like this
    noted: dict[str, Stamp] = {}
    arrivals, now, clock = Arrivals(SETTLE), 0.0, 0

    def take(note: bool) -> None:
        for key in [key for key in since if files.get(key[0]) != key[1]]:
            del since[key]
        for item in files.items():
            since.setdefault(item, now)
        for path in [path for path in noted if path not in files]:
            del noted[path]
        due = arrivals.settled(files, now)
        assert set(due) == {
            item for item in files.items() if noted.get(item[0]) != item[1] and now - since[item] >= SETTLE
        }
        for path, stamp in due if note else ():
            arrivals.note(path, stamp)
            noted[path] = stamp

    for event in [*events, ("look", True), ("wait", SETTLE), ("look", True), ("look", True)]:
        match event:
            case ("wait", seconds):
                now += seconds
            case ("write", name):
                clock += 1
                files[name] = Stamp(clock, clock, clock)
            case ("remove", name):
                files.pop(name, None)
            case ("rename", old, new) if old in files:
                files[new] = files.pop(old)
            case ("look", note):
                take(note)
    assert noted == files
    assert arrivals.waiting == []


# --- what is looked at -----------------------------------------------------------------------------------------------


def test_hidden_unfinished_and_other_files_and_the_archive_are_passed_over(folder: Path) -> None:
    make(folder, "a.wav", "deep/er/b.MP3", "voicemail", ".hidden.wav", ".trash/c.wav", "~$d.wav")
    make(folder, "e.wav.part", "f.crdownload", "g.tmp", "notes.txt", "archive/audio_files/h.wav", "old/archive/i.wav")
    seen = look(str(folder), folder / "archive")
    found = sorted(Path(path).relative_to(folder).as_posix() for path in seen.files)
    assert found == ["a.wav", "deep/er/b.MP3", "old/archive/i.wav", "voicemail"]
    assert not seen.problems


def test_a_folder_that_is_gone_is_a_problem_and_not_the_end(tmp_path: Path) -> None:
    seen = look(str(tmp_path / "gone"), tmp_path)
    assert not seen.files
    assert "cannot be read" in seen.problems[0][1]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_a_file_that_somebody_has_open_for_writing_is_known_to_be(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    with path.open("wb") as file:
        assert being_written(str(path))
        file.write(b"x")
    assert not being_written(str(path))
    with path.open("rb"):
        assert not being_written(str(path)), "a reader does not matter"
    assert not being_written(str(tmp_path / "gone"))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_asking_whether_a_file_is_written_disturbs_no_writer(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.touch()
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            being_written(str(path))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for _ in range(300):
            with path.open("ab") as file:
                file.write(b"x")
    finally:
        stop.set()
        asking.join()
    assert path.stat().st_size == 300


# --- what is remembered ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("notes", [Notes(None), Notes(bytes(32))], ids=["plain", "sealed"])
def test_memory_survives_a_torn_line_and_forgets_what_the_archive_does_not_know(tmp_path: Path, notes: Notes) -> None:
    place = tmp_path / "deep" / "memory.jsonl"
    memory = Memory(place, notes)
    memory.keep_only(set())
    for name, file_hash in (("a", "1"), ("b", "2"), ("c", None)):
        memory.note(name, A, file_hash)
    with place.open("a") as file:
        file.write('["d", 10, 1')
    assert (b'"a"' in place.read_bytes()) == (notes.open("a") == "a")
    again = Memory(place, notes)
    assert again.entries == {"a": (A, "1"), "b": (A, "2"), "c": (A, None)}
    assert again.keep_only({"1"}) == {"a": A, "c": A}
    assert Memory(place, notes).entries == {"a": (A, "1"), "c": (A, None)}


def test_memory_that_cannot_be_kept_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    memory = Memory(tmp_path / "file" / "memory.jsonl", Notes(None))
    memory.keep_only(set())
    memory.note("a", A, "1")
    assert memory.entries == {"a": (A, "1")}


# --- the command, in this process ------------------------------------------------------------------------------------


@pytest.fixture
def run(archive: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, scripted_engine: object) -> Command:
    return commands(archive, monkeypatch, capsys)


WATCH = ("--once", "--settle", 0.1, "--json")


def test_once_adds_what_is_there_as_add_would(run: Command, folder: Path, demo: Path) -> None:
    shutil.copy(demo / "voice_note.flac", folder)
    (folder / "bad.wav").write_text("nothing to hear")
    (folder / "unknown").write_text("nothing to hear either")
    answer = run("watch", folder, *WATCH, "-m", "project=move")
    assert answer.code == 1
    assert sorted(event["event"] for event in answer.events) == ["added", "failed", "stopped", "watching"]
    (added,) = [event for event in answer.events if event["event"] == "added"]
    assert (added["audio_id"], added["outcome"]) == (1, "ok")
    assert answer.told("failed") == ["bad.wav"]
    assert run("metadata", "get", 1, "project").out == "move\n"


def test_what_was_seen_is_not_even_read_again_and_a_failure_is_tried_again(run: Command, folder: Path) -> None:
    (first,) = make(folder, "a.wav")
    (folder / "bad.wav").write_text("nothing to hear")
    run("watch", folder, "--no-transcribe", *WATCH)
    known = first.stat()
    first.write_bytes(b"x" * known.st_size)
    os.utime(first, ns=(known.st_mtime_ns, known.st_mtime_ns))  # so that nothing but reading it would tell
    answer = run("watch", folder, "--no-transcribe", *WATCH)
    assert answer.told("failed") == ["bad.wav"]
    assert answer.events[-1] == {"event": "stopped", "added": 0, "known": 0, "failed": 1}


def test_a_watch_that_transcribes_takes_up_what_another_only_stored(run: Command, folder: Path) -> None:
    make(folder, "a.wav")
    run("watch", folder, "--no-transcribe", *WATCH)
    answer = run("watch", folder, *WATCH)
    assert answer.told("known") == ["a.wav"]
    assert len(run("show", 1, "--json").data["transcripts"]) == 1


def test_moves_and_renames_are_known_and_changes_are_new(run: Command, folder: Path) -> None:
    first, second = make(folder, "a.wav", "b.wav")
    run("watch", folder, "--no-transcribe", *WATCH)
    (folder / "sub").mkdir()
    first.rename(folder / "sub" / "moved.wav")
    second.write_bytes(recording(7, 2.0))
    answer = run("watch", folder, "--no-transcribe", *WATCH)
    assert (answer.told("known"), answer.told("added")) == (["moved.wav"], ["b.wav"])
    assert len(run("list", "--json").data["recordings"]) == 3


def test_what_was_deleted_stays_deleted_but_an_archive_made_anew_gets_everything(
    run: Command, folder: Path, archive: Path
) -> None:
    make(folder, "a.wav", "b.wav")
    run("watch", folder, "--no-transcribe", *WATCH)
    run("rm", 1, "--yes")
    assert run("watch", folder, "--no-transcribe", *WATCH).told("added") == []
    shutil.rmtree(archive)
    assert sorted(run("watch", folder, "--no-transcribe", *WATCH).told("added")) == ["a.wav", "b.wav"]


def test_the_archive_inside_the_folder_is_not_watched_and_a_folder_in_the_archive_cannot_be(
    run: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDIO_STORAGE_HOME", str(folder / "audio_storage"))
    make(folder, "a.wav")
    assert run("watch", folder, "--no-transcribe", *WATCH).told("added") == ["a.wav"]
    assert run("watch", folder, "--no-transcribe", *WATCH).told("known") == []
    answer = run("watch", folder / "audio_storage" / "audio_files", *WATCH)
    assert (answer.code, answer.data["error"]["code"]) == (2, "invalid_input")
    assert run("watch", folder / "nowhere", *WATCH).code == 2


def test_storage_that_is_away_is_tried_again_and_nothing_counts_as_failed(
    run: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, refused = AudioStorageSystem.store_audio_file, iter([True, True])

    def sometimes(*arguments: Any, **given: Any) -> Any:
        if next(refused, False):
            raise StorageUnavailable(place="s3://bucket", reason="no route")
        if not list(folder.glob("b.wav")):
            make(folder, "b.wav")
        else:
            raise KeyboardInterrupt
        return store(*arguments, **given)

    monkeypatch.setattr("audio_storage_system.cli.watch.PATIENCE", 0.1)
    monkeypatch.setattr("audio_storage_system.cli.watch.SHORTEST_PAUSE", 0.05)
    monkeypatch.setattr(AudioStorageSystem, "store_audio_file", sometimes)
    make(folder, "a.wav")
    answer = run("watch", folder, "--no-transcribe", "--settle", 0, "--jobs", 1, "--json")
    assert [event["event"] for event in answer.events] == ["watching", "holding", "added", "stopped"]
    assert answer.code == 130


def test_once_ends_with_the_code_of_what_keeps_it_from_adding(
    run: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(folder, "a.wav")
    unknown = run("watch", folder, *WATCH, "--whisper-model", "nonsense:x")
    assert [event["event"] for event in unknown.events] == ["watching", "error", "stopped"]
    assert (unknown.code, unknown.events[1]["code"]) == (2, "unknown_spec")

    def refuse(*_: object, **__: object) -> None:
        raise StorageUnavailable(place="s3://bucket", reason="no route")

    monkeypatch.setattr(AudioStorageSystem, "store_audio_file", refuse)
    away = run("watch", folder, "--no-transcribe", *WATCH)
    assert [event["event"] for event in away.events] == ["watching", "error", "stopped"]
    assert away.code == StorageUnavailable.exit_code


def test_a_file_that_is_moved_just_before_it_is_read_has_not_failed(
    run: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = make(folder, "a.wav")
    store = AudioStorageSystem.store_audio_file

    def moved(*arguments: Any, **given: Any) -> Any:
        path.rename(folder / "b.wav")
        return store(*arguments, **given)

    monkeypatch.setattr(AudioStorageSystem, "store_audio_file", moved)
    answer = run("watch", folder, "--no-transcribe", *WATCH)
    assert (answer.code, answer.told("failed")) == (0, [])
    monkeypatch.setattr(AudioStorageSystem, "store_audio_file", store)
    assert run("watch", folder, "--no-transcribe", *WATCH).told("added") == ["b.wav"]


# --- the command, as a process ---------------------------------------------------------------------------------------


@contextmanager
def watching(folder: Path, archive: Path, settle: float = 0.6) -> Iterator[Any]:
    process = start("watch", folder, "--no-transcribe", "--settle", settle, "--archive", archive, "--json")
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def until(process: Any, event: str, name: str = "") -> list[dict[str, Any]]:
    """The events up to this one."""
    seen = []
    for line in process.stdout:
        seen.append(json.loads(line))
        if seen[-1]["event"] == event and seen[-1].get("path", name).endswith(name):
            return seen
    raise AssertionError(f"ended without {event} {name}: {seen}, {process.stderr.read()}")


def stored(archive: Path) -> dict[str, str]:
    with AudioStorageSystem(archive, create=False) as storage:
        return {item.original_name: item.file_hash for item in storage.list_recordings()}


@posix
def test_files_that_are_written_slowly_moved_and_renamed_are_stored_once_and_whole(folder: Path, archive: Path) -> None:
    with watching(folder, archive) as process:
        until(process, "watching")
        data = recording(1, 3.0)
        with (folder / "slow.wav").open("wb") as file:
            for begin in range(0, len(data), len(data) // 8 + 1):
                file.write(data[begin : begin + len(data) // 8 + 1])
                file.flush()
                time.sleep(0.2)
        (folder / "late.wav.part").write_bytes(recording(2))
        first = until(process, "added", "slow.wav")
        (folder / "late.wav.part").rename(folder / "late.wav")
        second = until(process, "added", "late.wav")
        (folder / "slow.wav").rename(folder / "renamed.wav")
        third = until(process, "known", "renamed.wav")
        process.send_signal(signal.SIGTERM)
        last = until(process, "stopped")
        assert process.wait(30) == 0
    assert {event["event"] for event in first + second + third} <= {"watching", "waiting", "added", "known"}
    assert last[-1] == {"event": "stopped", "added": 2, "known": 1, "failed": 0}
    assert sorted(stored(archive)) == ["late.wav", "slow.wav"]
    with AudioStorageSystem(archive, create=False) as storage, storage.open_audio(first[-1]["audio_id"]) as file:
        assert file.read() == data


@posix
def test_after_kill_9_the_next_watch_goes_on_without_doubles(folder: Path, archive: Path) -> None:
    paths = make(folder, *(f"{number:02}.wav" for number in range(40)))
    with watching(folder, archive, settle=0) as process:
        until(process, "added")
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    before = stored(archive)
    assert before
    with watching(folder, archive, settle=0.1) as process:
        begun = until(process, "watching")[-1]
        for _ in range(len(paths) - begun["known"]):
            next(process.stdout)  # added, or known where the memory was a line behind
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    after = stored(archive)
    assert len(after) == len(set(after.values())) == len(paths)
    assert set(before.values()) <= set(after.values())
    assert sorted(after) == [path.name for path in paths], "what was adopted nameless has its name by now"


STOPPED_WHILE_ADDING = """
import os, signal, sys
from audio_storage_system import AudioStorageSystem
from audio_storage_system.cli import main
store = AudioStorageSystem.store_audio_file

def told_to_stop(*arguments, **given):
    os.kill(os.getpid(), signal.SIGTERM)
    return store(*arguments, **given)

AudioStorageSystem.store_audio_file = told_to_stop
sys.exit(main(sys.argv[1:]))
"""


SWALLOWED = """
import signal, sys
from audio_storage_system.cli import crowd, main

class Swallowing:
    def __del__(self):
        signal.raise_signal(int(sys.argv[1]))
        print(end="")  # by when the handler has run

def completed(futures, as_completed=crowd.as_completed):
    for future in as_completed(futures):
        yield future
        Swallowing()

crowd.as_completed = completed
sys.exit(main(sys.argv[2:]))
"""


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", ["watch", "add"])
def test_a_signal_counts_that_comes_where_nothing_can_be_raised(
    folder: Path, archive: Path, number: signal.Signals, command: str
) -> None:
    make(folder, "a.wav", "b.wav")
    words = [command, str(folder), "--no-transcribe", "--archive", str(archive), "--json"]
    words += ["--settle", "0"] if command == "watch" else []
    program = [sys.executable, "-c", SWALLOWED, str(int(number)), *words]
    done = subprocess.run(program, capture_output=True, timeout=120)
    assert b"Exception ignored in" in done.stderr
    assert done.returncode == (0 if (command, number) == ("watch", signal.SIGTERM) else 128 + number), done.stderr
    with AudioStorageSystem(archive) as storage:
        assert len(storage.list_recordings()) in (1, 2), "what was in hand is finished"


@posix
def test_sigterm_in_the_middle_of_adding_is_no_error_either(folder: Path, archive: Path) -> None:
    make(folder, "a.wav")
    words = ["watch", str(folder), "--no-transcribe", "--settle", "0", "--archive", str(archive), "--json"]
    done = subprocess.run([sys.executable, "-c", STOPPED_WHILE_ADDING, *words], capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["event"] == "stopped"
    with AudioStorageSystem(archive) as storage:
        assert len(storage.list_recordings()) == 1
