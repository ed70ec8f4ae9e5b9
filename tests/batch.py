"""What the tests of many files share: tiny recordings, commands in this process, and the program as one of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audio_storage_system.cli import main
from sounds import noise, wav

PROGRAM = [sys.executable, "-m", "audio_storage_system.cli"]


@dataclass(frozen=True)
class Answer:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """Its JSON document, which must be all that is on stdout."""
        return json.loads(self.out)

    @property
    def events(self) -> list[dict[str, Any]]:
        """Its JSON objects, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]

    def told(self, event: str) -> list[str]:
        """The names of the files that an event was about."""
        return [Path(item["path"]).name for item in self.events if item["event"] == event]


Command = Callable[..., Answer]


def commands(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs commands on the archive in `home`, with the scripted engine."""
    monkeypatch.setenv("AUDIO_STORAGE_HOME", str(home))
    monkeypatch.setenv("AUDIO_STORAGE_TRANSCRIBER", "scripted")

    def call(*arguments: object) -> Answer:
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return call


@pytest.fixture
def run(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command on the archive in the test's `home`."""
    return commands(home, monkeypatch, capsys)


def recording(number: int, seconds: float = 1.0) -> bytes:
    """A WAV file like no other."""
    return wav(np.asarray(noise(seconds, 8000, seed=number)), 8000)


def make(folder: Path, *names: str) -> list[Path]:
    """Different recordings under these names."""
    paths = [folder / name for name in names]
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(recording(number))
    return paths


def start(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    """The program, as its own process."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([*PROGRAM, *map(str, arguments)], text=True, **{**pipes, **options})
