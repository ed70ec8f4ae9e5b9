"""A microphone without hardware: a private PulseAudio daemon with a null sink, whose monitor is recorded.

What is played into it arrives bit for bit. Rewinding is off, or the head of what is played would be lost. PortAudio
looks for devices when `sounddevice` is imported, so whoever records does so in a process started with `environment`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from audio_storage_system.audio.spool import Spool
from patience import until

SINK = "virtual_microphone"
DEVICE = "pulse"
PROGRAMS = ("pulseaudio", "pactl", "paplay")
# The command `audio-storage`, with patience for a daemon that waits for its turn on a busy machine.
PATIENT = """
import sys
from audio_storage_system.audio import microphone
from audio_storage_system.cli.app import main

microphone.WATCHDOG_SECONDS = 30.0
sys.exit(main())
"""
PROGRAM = [sys.executable, "-W", "ignore", "-c", PATIENT]


@dataclass(frozen=True)
class VirtualMicrophone:
    """`environment` is for the process that records."""

    environment: dict[str, str]
    daemon: subprocess.Popen[bytes]

    def play(self, wav: Path) -> None:
        """Play a 16 kHz mono file into the microphone; returns when it has been heard."""
        self._run("paplay", f"--device={SINK}", str(wav))

    def fall_silent(self) -> None:
        """Deliver nothing any more, and do not say so."""
        self._run("pactl", "suspend-sink", SINK, "1")

    def go_away(self) -> None:
        """Disconnect everyone."""
        self.daemon.terminate()

    def answers(self) -> bool:
        return subprocess.run(["pactl", "info"], env=self.environment, capture_output=True).returncode == 0

    def _run(self, *command: str) -> None:
        subprocess.run(command, env=self.environment, check=True, capture_output=True)


def the_spool(folder: Path) -> Spool:
    """The only one there, which may still be written."""
    [manifest] = folder.glob("*/manifest.json")
    return Spool(manifest.parent)


def wait_until_recorded(folder: Path, sound: bytes) -> None:
    """Until the only spool there has these samples in it."""
    until(lambda: sound in b"".join(the_spool(folder).sound_from(0)), 60)


@contextmanager
def virtual_microphone(rate: int = 16_000) -> Iterator[VirtualMicrophone]:
    """Skips the test where the programs for it are not installed."""
    if missing := [program for program in PROGRAMS if shutil.which(program) is None]:
        pytest.skip(f"no virtual microphone: {', '.join(missing)} not installed (pulseaudio, pulseaudio-utils)")
    with tempfile.TemporaryDirectory(prefix="mic-") as folder:  # short: a socket's path has at most 107 bytes
        with _daemon(Path(folder), rate) as microphone:
            _wait_until_it_answers(microphone, Path(folder))
            yield microphone


@contextmanager
def _daemon(folder: Path, rate: int) -> Iterator[VirtualMicrophone]:
    socket = folder / "native"
    environment = {
        key: value for key, value in os.environ.items() if key not in ("DBUS_SESSION_BUS_ADDRESS", "DISPLAY")
    }
    environment |= dict.fromkeys(("HOME", "XDG_RUNTIME_DIR", "PULSE_RUNTIME_PATH"), str(folder))
    environment["PULSE_SERVER"] = f"unix:{socket}"
    modules = [
        f"module-native-protocol-unix socket={socket} auth-anonymous=1",
        f"module-null-sink sink_name={SINK} norewinds=1 rate={rate} channels=1 channel_map=mono",
    ]
    command = ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no", "--realtime=no"]
    command += ["--high-priority=no", "--disable-shm=yes", f"--log-target=file:{folder / 'log'}"]
    daemon = subprocess.Popen([*command, *(part for module in modules for part in ("-L", module))], env=environment)
    try:
        yield VirtualMicrophone(environment, daemon)
    finally:
        daemon.kill()
        daemon.wait()


def _wait_until_it_answers(microphone: VirtualMicrophone, folder: Path) -> None:
    give_up = time.monotonic() + 20
    while not microphone.answers():
        if microphone.daemon.poll() is not None or time.monotonic() > give_up:
            log = folder / "log"
            pytest.skip(f"no virtual microphone: {log.read_text() if log.exists() else 'pulseaudio does not answer'}")
        time.sleep(0.05)
