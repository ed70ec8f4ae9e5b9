"""The program as a process of its own: streams, exit codes, signals, and what it loads."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import wave
from pathlib import Path
from typing import IO, Any

import pytest

from audio_storage_system import load_audio
from patience import until

PROGRAM = [sys.executable, "-m", "audio_storage_system.cli"]


def start(*arguments: object, **options: Any) -> subprocess.Popen[bytes]:
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([*PROGRAM, *map(str, arguments)], **{**pipes, **options})


def run(*arguments: object, **options: Any) -> tuple[int, str, str]:
    process = start(*arguments, **options)
    out, err = process.communicate(timeout=120)
    return process.returncode, out.decode(), err.decode()


def test_the_demo_finds_what_it_looks_for_and_can_be_run_again(tmp_path: Path) -> None:
    code, out, err = run("demo", "--json", cwd=tmp_path)
    assert code == 0, err
    data = json.loads(out)
    answers = [(search["hits"][0]["original_name"], search["hits"][0]["at"]) for search in data["searches"]]
    assert answers[0][0] == "call.flac"
    assert answers[1] == ("meeting.flac", pytest.approx(4.3, abs=1.5))
    assert answers[2] == ("voice_note.flac", pytest.approx(9.1, abs=1.5))
    assert answers[3] == ("meeting.flac", pytest.approx(11.5, abs=1.5))
    assert answers[4][0] == "meeting.flac"
    assert "building" in data["context_pack"]["text"]
    assert (tmp_path / "audio_storage_demo" / "metadata.json").exists()
    code, out, _ = run("demo", cwd=tmp_path)
    assert code == 0
    assert out.count("(stored before)") == 3


DIE = """
import os, sys
from audio_storage_system.cli.app import main
from audio_storage_system.spaces import Spaces
Spaces.found = lambda *_: os._exit(9)
main(sys.argv[1:])
"""


def test_an_archive_whose_making_was_cut_short_has_its_settings(tmp_path: Path) -> None:
    place = ("--archive", str(tmp_path / "a"))
    made = subprocess.run([sys.executable, "-c", DIE, "init", "--encrypt", "--language", "en", "--sidecars", *place])
    assert made.returncode == 9
    assert (tmp_path / "a" / "audio-storage.toml").read_text() == 'language = "en"\nsidecars = true\n'
    code, out, err = run("init", *place, "--json")
    assert code == 0, err
    assert {space["kind"] for space in json.loads(out)["spaces"]} == {"transcript", "audio", "combined"}


def test_stdout_is_the_document_and_stderr_the_rest(tmp_path: Path, demo: Path) -> None:
    code, out, err = run("add", demo / "call.flac", "--no-transcribe", "--archive", tmp_path / "a", "--json")
    assert code == 0
    assert json.loads(out)["added"][0]["original_name"] == "call.flac"
    assert err == "[1/1] call.flac: stored\n"


def test_the_exit_code_is_that_of_the_error(tmp_path: Path) -> None:
    code, out, err = run("list", "--archive", tmp_path / "none", "--json")
    assert code == 9
    assert json.loads(out)["error"]["code"] == "archive_not_found"
    assert err.startswith("Error: ")


def test_texts_survive_a_terminal_without_unicode(tmp_path: Path, demo: Path) -> None:
    plain = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    place = tmp_path / "a"
    run("add", demo / "call.flac", "--no-transcribe", "--archive", place, "-m", "ort=Köln 🎙")
    code, out, err = run("list", "--archive", place, "--json", env=plain)
    assert code == 0, err
    assert json.loads(out)["recordings"][0]["metadata"] == {"ort": "Köln 🎙"}
    assert run("list", "--archive", place, env=plain)[0] == 0


def test_help_loads_nothing_heavy() -> None:
    heavy = ("numpy", "sqlalchemy", "av", "rich.progress", "onnxruntime", "audio_storage_system.system")
    check = (
        "import sys; from audio_storage_system.cli import main; code = main(['--help']); "
        f"loaded = [name for name in {heavy!r} if name in sys.modules]; sys.exit(str(loaded) if loaded else code)"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="pipes end differently there")
def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    process = start("models", "--json")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    process.wait(timeout=60)


SLOW = """
import os, sys, time
from audio_storage_system.testing.scripted import FACTORY, SPEC, ScriptedTranscriber
from audio_storage_system.transcribers import TRANSCRIBERS

TRANSCRIBERS.builtin[SPEC] = FACTORY
seconds, place = float(sys.argv[1]), sys.argv[2]
end = time.monotonic() + seconds


def before(window):
    with open(place, "a") as file:
        file.write(f"{window.start}\\n")
    while time.monotonic() < end and not os.path.exists(place + ".go"):
        time.sleep(0.01)


ScriptedTranscriber.before = before
from audio_storage_system.cli import main
sys.exit(main(sys.argv[3:]))
"""


def start_slow(seconds: float, heard: Path, *arguments: object) -> subprocess.Popen[bytes]:
    """The program with a recogniser that waits so long, or until told to go on by a file `….go` beside the one in which
    stands what it hears."""
    words = [sys.executable, "-c", SLOW, str(seconds), str(heard), *map(str, arguments)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def until_said(stream: IO[bytes], begin: bytes) -> bytes:
    """The next line that begins so."""
    return next(line for line in stream if line.startswith(begin))


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is sent differently there")
def test_ctrl_c_leaves_what_is_stored_and_the_next_run_finishes_it(tmp_path: Path, demo: Path) -> None:
    words = ("--archive", tmp_path / "a", "--whisper-model", "scripted", "--jobs", 1, "--json")
    process = start_slow(600, tmp_path / "heard", "add", demo, *words)
    until((tmp_path / "heard").exists, 60)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    until_said(process.stderr, b"Stopping after")
    (tmp_path / "heard.go").touch()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert len(json.loads(out)["added"]) < 3
    assert b"Traceback" not in err
    code, listed, _ = run("list", "--archive", tmp_path / "a", "--json")
    assert code == 0
    assert json.loads(listed)["recordings"]


@pytest.fixture
def talk(tmp_path: Path, demo: Path) -> Path:
    """A recording of several windows."""
    with wave.open(str(tmp_path / "talk.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        speech = (load_audio(demo / "meeting.flac", 16_000) * 32_767).astype("<i2").tobytes()
        for _ in range(6):
            file.writeframes(speech + bytes(16_000 * 2 * 6))
    return tmp_path / "talk.wav"


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM to be heard there")
@pytest.mark.parametrize("command", ["add", "retranscribe"])
def test_sigterm_finishes_the_batch_in_hand_and_the_next_run_goes_on(tmp_path: Path, talk: Path, command: str) -> None:
    place, heard = ("--archive", tmp_path / "a"), tmp_path / "heard"
    words: tuple[object, ...] = ("add", talk)
    if command == "retranscribe":
        assert run("add", talk, "--no-transcribe", *place)[0] == 0
        words = ("retranscribe", 1)
    words = (*words, "--whisper-model", "scripted", *place, "--json")
    process = start_slow(600, heard, *words)
    until(heard.exists, 60)
    process.send_signal(signal.SIGTERM)
    assert process.stderr is not None
    said = until_said(process.stderr, b"Stopping")
    assert said == b"Stopping after what is in hand; another signal stops at once.\n"
    (tmp_path / "heard.go").touch()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 143, err
    assert b"Traceback" not in err
    assert json.loads(out)["failed"] == []
    first = heard.read_text().split()
    assert len(first) == 2, "a batch, which was finished"
    process = start_slow(0, heard, *words)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    everything = heard.read_text().split()
    assert len(everything) == len(set(everything)) > 4, "no window was heard twice"


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM to be heard there")
def test_sigterm_ends_a_watch_with_0_also_while_it_adds(tmp_path: Path, talk: Path) -> None:
    heard, folder = tmp_path / "heard", tmp_path / "folder"
    folder.mkdir()
    talk.rename(folder / "talk.wav")
    place = ("--archive", tmp_path / "a", "--settle", 0)
    process = start_slow(0.5, heard, "watch", folder, "--whisper-model", "scripted", *place)
    until(heard.exists, 60)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM to be heard there")
@pytest.mark.parametrize("command", ["add", "worker"])
def test_a_second_signal_ends_at_once(tmp_path: Path, talk: Path, command: str) -> None:
    place, heard = ("--archive", tmp_path / "a"), tmp_path / "heard"
    words: tuple[object, ...] = ("add", talk, "--whisper-model", "scripted", *place)
    if command == "worker":
        start_slow(0, heard, *words, "--background").communicate(timeout=120)
        words = ("worker", *place)
    process = start_slow(600, heard, *words)
    until(heard.exists, 60)
    process.send_signal(signal.SIGTERM)
    assert process.stderr is not None
    assert any(b"Stopping" in line for line in process.stderr)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert run("list", *place)[0] == 0
    assert json.loads(run("jobs", "list", *place, "--json")[1])["workers"] == []
