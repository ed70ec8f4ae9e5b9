"""`audio-storage record` with a virtual microphone that plays speech: from the device to a hit, and through a crash."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from audio_storage_system.audio import write_copy
from virtual_microphone import DEVICE, PROGRAM, VirtualMicrophone, the_spool, virtual_microphone, wait_until_recorded

RATE = 16_000


@pytest.fixture
def microphone() -> Iterator[VirtualMicrophone]:
    with virtual_microphone() as microphone:
        yield microphone


@pytest.fixture
def note(demo: Path, tmp_path: Path) -> Path:
    """The demo's voice note as the WAV file that the microphone hears."""
    write_copy(demo / "voice_note.flac", tmp_path / "note.wav", "pcm16")
    return tmp_path / "note.wav"


def start(microphone: VirtualMicrophone, home: Path, *options: str) -> subprocess.Popen[str]:
    """The program, recording: it has written its first piece of sound."""
    command = [*PROGRAM, "record", "--device", DEVICE, "--archive", str(home), "--json", *options]
    environment = {**microphone.environment, "HF_HUB_OFFLINE": "1"}
    child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    give_up = time.monotonic() + 60
    while not list(home.glob("spool/*/*.pcm")):
        assert child.poll() is None and time.monotonic() < give_up, child.communicate()
        time.sleep(0.05)
    return child


def samples_of(path: Path) -> bytes:
    with wave.open(str(path), "rb") as file:
        return file.readframes(file.getnframes())


def ask(home: Path, *words: str) -> tuple[Any, str]:
    answer = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "audio_storage_system.cli", *words, "--archive", str(home), "--json"],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(answer.stdout), answer.stderr


def test_ctrl_c_keeps_what_was_said_and_it_can_be_found(
    microphone: VirtualMicrophone, note: Path, tmp_path: Path
) -> None:
    home = tmp_path / "archive"
    child = start(microphone, home, "--metadata", "user=john")
    microphone.play(note)
    wait_until_recorded(home / "spool", samples_of(note))
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=120)
    assert child.returncode == 0, err
    assert json.loads(out)["outcome"] == "ok"
    answer, _ = ask(home, "search", "call the doctor about the blood test", "--where", "user=john")
    assert "blood test" in answer["hits"][0]["transcription"]
    assert not list((home / "spool").iterdir())


def test_after_kill_9_the_next_command_recovers_all_but_the_last_second(
    microphone: VirtualMicrophone, note: Path, tmp_path: Path
) -> None:
    home = tmp_path / "archive"
    begun = time.monotonic()
    child = start(microphone, home)
    microphone.play(note)
    wait_until_recorded(home / "spool", samples_of(note)[: -2 * RATE])
    recorded = the_spool(home / "spool").seconds
    child.kill()
    most = time.monotonic() - begun
    child.communicate()
    answer, err = ask(home, "list")
    assert "0.00 s missing" in err
    [recording] = answer["recordings"]
    assert recorded <= recording["duration"] <= most
    ask(home, "retranscribe", str(recording["audio_id"]))
    found, _ = ask(home, "search", "milk and bread")
    assert "milk" in found["hits"][0]["transcription"]
