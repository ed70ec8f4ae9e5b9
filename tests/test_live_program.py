"""`audio-storage live` with a virtual microphone into which somebody speaks: captions, and what is kept after Ctrl-C
and after a crash."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from audio_storage_system import AudioStorageSystem
from virtual_microphone import DEVICE, PROGRAM, VirtualMicrophone, the_spool, virtual_microphone


@pytest.fixture
def microphone() -> Iterator[VirtualMicrophone]:
    with virtual_microphone() as microphone:
        yield microphone


@pytest.fixture
def spoken(tmp_path: Path) -> Path:
    """A synthetic voice that says something, as the WAV file that the microphone hears."""
    if shutil.which("flite") is None:
        pytest.skip("flite is not installed")
    text = "the meeting is about the budget of the library"
    subprocess.run(["flite", "-voice", "slt", "-t", text, "-o", str(tmp_path / "said.wav")], check=True)
    return tmp_path / "said.wav"


def start(microphone: VirtualMicrophone, home: Path, *options: str, **pipes: Any) -> subprocess.Popen[str]:
    """The program, listening: it has written its first piece of sound."""
    command = [*PROGRAM, "live", "--device", DEVICE, "--archive", str(home), *options]
    environment = {**microphone.environment, "HF_HUB_OFFLINE": "1", "COLUMNS": "100"}
    given: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **pipes}
    child = subprocess.Popen(command, env=environment, text=True, **given)
    give_up = time.monotonic() + 60
    while not list(home.glob("spool/*/*.pcm")):
        assert child.poll() is None and time.monotonic() < give_up, child.communicate()
        time.sleep(0.05)
    time.sleep(1.5)  # the recogniser is ready
    return child


def heard_one(child: subprocess.Popen[str]) -> str:
    """What it wrote until a piece of speech was final."""
    assert child.stdout is not None
    lines: list[str] = []
    while not lines or '"final"' not in lines[-1]:
        lines.append(child.stdout.readline())
        assert lines[-1], "it ended"
    return "".join(lines)


def test_with_json_each_event_is_a_line_and_what_is_said_is_found_while_it_goes_on(
    microphone: VirtualMicrophone, spoken: Path, tmp_path: Path
) -> None:
    home = tmp_path / "archive"
    child = start(microphone, home, "--json", "--metadata", "user=john")
    microphone.play(spoken)
    heard = heard_one(child)
    with AudioStorageSystem(home) as storage:
        hits = storage.search_similar_audio("budget of the library", where={"user": "john"})
        assert "library" in hits[0].transcription
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    events = [json.loads(line) for line in (heard + out).splitlines()]
    types = [event["type"] for event in events if event["type"] != "lag"]  # which a busy machine has
    assert types[0] == "speech_started" and types[-1] == "ended" and "partial" in types
    assert "library" in next(event["text"] for event in events if event["type"] == "final")
    report = events[-1]["report"]
    assert (report["missing_seconds"], report["gaps"]) == (0.0, [])
    assert not list((home / "spool").iterdir())


def test_on_a_terminal_the_line_changes_until_it_is_final(
    microphone: VirtualMicrophone, spoken: Path, tmp_path: Path
) -> None:
    home, (controller, terminal) = tmp_path / "archive", pty.openpty()
    seen: list[bytes] = []

    def read() -> None:
        while True:
            try:
                seen.append(os.read(controller, 65_536))
            except OSError:
                return

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    child = start(microphone, home, stdout=terminal, stderr=terminal)
    microphone.play(spoken)
    give_up = time.monotonic() + 60
    while not re.search(rb"library\r\n", b"".join(seen)) and time.monotonic() < give_up:
        time.sleep(0.1)
    child.send_signal(signal.SIGINT)
    assert child.wait(timeout=60) == 0
    os.close(terminal)
    reader.join(10)
    os.close(controller)
    text = b"".join(seen).decode()
    assert "Listening; Ctrl-C ends it" in text
    changing = re.findall(r"\r\x1b\[K\d+:\d\d  ([^\r\n]+)", text)
    assert len(changing) > 5 and changing[-1].startswith("the me")
    final = [line for line in text.replace("\r\x1b[K", "\n").splitlines() if "library" in line]
    assert re.match(r"\d+:\d\d  ", final[-1])
    assert re.search(r"[\d.]+ s recorded, 0\.00 s missing; stored as recording 1\.", text)


def test_after_kill_9_the_next_command_completes_it_with_its_text(
    microphone: VirtualMicrophone, spoken: Path, tmp_path: Path
) -> None:
    home = tmp_path / "archive"
    begun = time.monotonic()
    child = start(microphone, home, "--json")
    microphone.play(spoken)
    out = heard_one(child)
    recorded = the_spool(home / "spool").seconds
    child.kill()
    most = time.monotonic() - begun
    out += child.communicate()[0]
    finals = [event for event in map(json.loads, out.splitlines()) if event["type"] == "final"]
    with AudioStorageSystem(home) as storage:
        [found] = storage.recovered
        assert found.missing_seconds == 0 and recorded <= found.seconds <= most
        [hit] = storage.search_similar_audio("library", mode="keyword")
        assert finals and (hit.audio_id, hit.transcription) == (found.audio_id, finals[0]["text"])
