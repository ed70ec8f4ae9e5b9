"""Recording: nothing that the microphone delivered is lost, whatever happens to the process or the device."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from audio_storage_system import AudioStorageSystem
from audio_storage_system.audio.microphone import list_devices, record
from audio_storage_system.audio.spool import SpoolReport, find_abandoned
from audio_storage_system.errors import InvalidInput, MicrophoneUnavailable, StorageFull
from sounds import join
from virtual_microphone import DEVICE, VirtualMicrophone, virtual_microphone, wait_until_recorded

RATE = 16_000


def noise(seconds: float) -> bytes:
    """Quiet noise, of which no two pieces are alike."""
    return np.random.default_rng(7).integers(-3000, 3000, int(seconds * RATE), dtype=np.int16).tobytes()


def as_wav(path: Path, pcm: bytes) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes(pcm)
    return path


def samples_of(path: Path) -> bytes:
    with wave.open(str(path), "rb") as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, RATE)
        return file.readframes(file.getnframes())


def recover(root: Path, target: Path) -> tuple[SpoolReport, bytes]:
    """What the next command does with the only spool there."""
    (spool,) = find_abandoned(root)
    report = join(spool, target)
    spool.release()
    return report, samples_of(target)


# --- with a virtual microphone ---------------------------------------------------------------------------------------

RECORD = """
import json, sys, threading
from pathlib import Path
from audio_storage_system.audio import microphone
from audio_storage_system.errors import MicrophoneUnavailable

stop, levels = threading.Event(), []
usual, microphone.WATCHDOG_SECONDS = microphone.WATCHDOG_SECONDS, 30.0  # a busy machine keeps the daemon waiting

def obey():
    for word in sys.stdin:
        if word == "watch\\n":
            microphone.WATCHDOG_SECONDS = usual
        else:
            stop.set()

threading.Thread(target=obey, daemon=True).start()

def on_level(level):
    if not levels:
        print("recording", flush=True)
    levels.append(level)

duration = float(sys.argv[3]) or None
try:
    spool = microphone.record(Path(sys.argv[1], "one"), device=sys.argv[2], duration=duration, on_level=on_level,
                              stop=stop, metadata={"user": "john"})
    print(json.dumps({"folder": str(spool.folder), "seconds": spool.seconds, "loudest": max(levels)}))
except MicrophoneUnavailable as error:
    print(json.dumps({"error": str(error), "kept": error.details["spool"].seconds}))
"""


class Recorder:
    """A process that records until told to `stop`. Once told to `watch`, it is as impatient as usual."""

    def __init__(self, microphone: VirtualMicrophone, root: Path, duration: float = 0) -> None:
        command = [sys.executable, "-c", RECORD, str(root), DEVICE, str(duration)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, env=microphone.environment, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True
        )
        assert self.process.stdout
        assert self.process.stdout.readline() == "recording\n"

    def result(self, word: str = "") -> dict[str, Any]:
        out, _ = self.process.communicate(f"{word}\n" if word else None, timeout=60)
        return dict(json.loads(out))

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def microphone() -> Iterator[VirtualMicrophone]:
    try:
        import sounddevice  # noqa: F401
    except OSError:
        pytest.skip("PortAudio is not installed (libportaudio2)")
    with virtual_microphone() as microphone:
        yield microphone


@pytest.fixture
def start(microphone: VirtualMicrophone, tmp_path: Path) -> Iterator[Callable[..., Recorder]]:
    recorders: list[Recorder] = []

    def start(duration: float = 0) -> Recorder:
        recorders.append(Recorder(microphone, tmp_path / "spool", duration))
        return recorders[-1]

    yield start
    for recorder in recorders:
        recorder.close()


class TestWithAVirtualMicrophone:
    def test_what_is_played_is_recorded_bit_for_bit(
        self, microphone: VirtualMicrophone, start: Callable[..., Recorder], tmp_path: Path
    ) -> None:
        clip = noise(2.3)
        recorder = start()
        microphone.play(as_wav(tmp_path / "clip.wav", clip))
        wait_until_recorded(tmp_path / "spool", clip)
        result = recorder.result("stop")
        report, recorded = recover(tmp_path / "spool", tmp_path / "recorded.wav")
        assert clip in recorded
        assert report.complete
        assert report.seconds == result["seconds"]
        assert result["loudest"] == np.abs(np.frombuffer(clip, np.int16)).max() / 32768

    def test_a_duration_is_exact_to_the_sample(self, start: Callable[..., Recorder], tmp_path: Path) -> None:
        assert start(duration=1.23).result()["seconds"] == 1.23
        assert recover(tmp_path / "spool", tmp_path / "recorded.wav")[0].frames == 19_680

    def test_ctrl_c_keeps_what_was_said(
        self, microphone: VirtualMicrophone, start: Callable[..., Recorder], tmp_path: Path
    ) -> None:
        clip = noise(1)
        recorder = start()
        microphone.play(as_wav(tmp_path / "clip.wav", clip))
        wait_until_recorded(tmp_path / "spool", clip)
        recorder.process.send_signal(signal.SIGINT)
        recorder.result()
        assert recorder.process.returncode == 0
        assert clip in recover(tmp_path / "spool", tmp_path / "recorded.wav")[1]

    def test_after_kill_9_all_but_the_last_second_is_recovered_and_nothing_is_missing(
        self, microphone: VirtualMicrophone, start: Callable[..., Recorder], tmp_path: Path
    ) -> None:
        clip = noise(4)
        recorder = start()
        microphone.play(as_wav(tmp_path / "clip.wav", clip))
        wait_until_recorded(tmp_path / "spool", clip[: -RATE * 2])
        assert find_abandoned(tmp_path / "spool") == [], "a living recorder's spool was taken for abandoned"
        recorder.process.kill()
        recorder.process.wait()
        report, recorded = recover(tmp_path / "spool", tmp_path / "recorded.wav")
        assert clip[: -RATE * 2] in recorded
        assert f"{report.missing_seconds:.2f} s missing" == "0.00 s missing"
        assert report.complete
        assert report.seconds == len(recorded) / 2 / RATE

    def test_a_microphone_that_goes_away_is_noticed_and_what_was_said_is_kept(
        self, microphone: VirtualMicrophone, start: Callable[..., Recorder], tmp_path: Path
    ) -> None:
        clip = noise(1)
        recorder = start()
        microphone.play(as_wav(tmp_path / "clip.wav", clip))
        wait_until_recorded(tmp_path / "spool", clip)
        microphone.go_away()
        result = recorder.result()
        assert "went away" in result["error"]
        report, recorded = recover(tmp_path / "spool", tmp_path / "recorded.wav")
        assert clip in recorded
        assert report.seconds == result["kept"]

    def test_a_microphone_that_falls_silent_is_noticed_and_what_was_said_is_kept(
        self, microphone: VirtualMicrophone, start: Callable[..., Recorder], tmp_path: Path
    ) -> None:
        clip = noise(1)
        recorder = start()
        microphone.play(as_wav(tmp_path / "clip.wav", clip))
        wait_until_recorded(tmp_path / "spool", clip)
        microphone.fall_silent()
        assert "nothing for 2 s" in recorder.result("watch")["error"]
        assert clip in recover(tmp_path / "spool", tmp_path / "recorded.wav")[1]


# --- with PortAudio played by the test -------------------------------------------------------------------------------


class FakePortAudio:
    """As much of the module `sounddevice` as recording uses. `script` calls back as the device would."""

    class PortAudioError(Exception):
        pass

    def __init__(self, script: Callable[[Callable[..., None]], None] = lambda deliver: None) -> None:
        self.devices = [{"index": 0, "name": "Mic", "max_input_channels": 1, "default_samplerate": 44_100.0}]
        self.default = SimpleNamespace(device=(0, 0))
        self.rates = {RATE}
        self.script = script

    def query_devices(self, device: object = None, kind: str | None = None) -> Any:
        if kind and not self.devices:
            raise self.PortAudioError("Error querying device -1")
        return self.devices[0] if kind else self.devices

    def check_input_settings(self, samplerate: int, **_: object) -> None:
        if samplerate not in self.rates:
            raise self.PortAudioError("Invalid sample rate")

    def RawInputStream(self, callback: Callable[..., None], **_: object) -> Any:
        def deliver(pcm: bytes, at: float = 0.0, overflow: bool = False) -> None:
            times, status = SimpleNamespace(inputBufferAdcTime=at), SimpleNamespace(input_overflow=overflow)
            callback(pcm, len(pcm) // 2, times, status)

        thread = threading.Thread(target=self.script, args=(deliver,))
        return SimpleNamespace(start=thread.start, abort=thread.join, close=lambda: None)


@pytest.fixture
def portaudio(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakePortAudio]:
    def install(script: Callable[[Callable[..., None]], None] = lambda deliver: None) -> FakePortAudio:
        fake = FakePortAudio(script)
        monkeypatch.setitem(sys.modules, "sounddevice", fake)
        return fake

    return install


def test_sound_that_the_device_lost_is_reported_where_it_is_missing(
    portaudio: Callable[..., FakePortAudio], tmp_path: Path
) -> None:
    def script(deliver: Callable[..., None]) -> None:
        deliver(noise(0.1), at=10.0, overflow=True)  # lost before the recording began: not a gap in it
        deliver(noise(0.1), at=10.1)
        deliver(noise(0.1), at=10.7, overflow=True)  # half a second after it was due
        deliver(noise(0.1), at=10.8)

    portaudio(script)
    spool = record(tmp_path / "one", duration=0.4)
    report = join(spool, tmp_path / "recorded.wav")
    assert samples_of(tmp_path / "recorded.wav") == noise(0.1) * 4
    assert report.missing == RATE // 2
    assert not report.complete
    assert [(gap.start, round(gap.duration, 6)) for gap in report.gaps] == [(0.2, 0.5)]


def test_an_overflow_whose_length_the_device_cannot_tell_is_still_reported(
    portaudio: Callable[..., FakePortAudio], tmp_path: Path
) -> None:
    def script(deliver: Callable[..., None]) -> None:
        deliver(noise(0.1))
        deliver(noise(0.1), overflow=True)

    portaudio(script)
    assert not record(tmp_path / "one", duration=0.2).open()[1].complete


def test_a_level_meter_that_fails_costs_no_sound(portaudio: Callable[..., FakePortAudio], tmp_path: Path) -> None:
    def broken(level: float) -> None:
        raise ZeroDivisionError

    portaudio(lambda deliver: deliver(noise(0.5)))
    with pytest.raises(ZeroDivisionError):
        record(tmp_path / "one", duration=2, on_level=broken)
    assert recover(tmp_path, tmp_path / "recorded.wav")[1] == noise(0.5)


def test_ctrl_c_pressed_again_and_again_ends_the_recording_and_keeps_it(
    portaudio: Callable[..., FakePortAudio], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def press(level: float) -> None:
        raise KeyboardInterrupt

    def pressed_while_winding_up(seconds: float) -> None:
        presses.append(seconds)
        if len(presses) < 3:
            raise KeyboardInterrupt

    presses: list[float] = []
    portaudio(lambda deliver: deliver(noise(0.5)))
    monkeypatch.setattr("audio_storage_system.audio.microphone.time", SimpleNamespace(sleep=pressed_while_winding_up))
    kept = record(tmp_path / "one", on_level=press)
    assert len(presses) == 3 and kept.seconds == 0.5
    assert not [thread for thread in threading.enumerate() if thread.name == "spool-writer"]


def test_two_recordings_of_a_muted_microphone_are_two_recordings(
    portaudio: Callable[..., FakePortAudio], scripted_engine: object, tmp_path: Path
) -> None:
    portaudio(lambda deliver: deliver(bytes(2 * RATE)))
    with AudioStorageSystem(tmp_path / "archive", transcriber="scripted") as storage:
        for session in ("one", "two"):
            added = storage.record_and_store_audio(duration=1, metadata={"session": session})
            assert not added.duplicate
        assert [r.metadata["session"] for r in storage.list_recordings()] == ["two", "one"]


def test_a_full_disk_is_reported_and_what_was_written_before_is_kept(
    portaudio: Callable[..., FakePortAudio], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from audio_storage_system.audio import spool

    real = spool.SpoolWriter.write

    def full_after_a_second(writer: spool.SpoolWriter, pcm: bytes) -> None:
        if writer.frames >= RATE:
            raise StorageFull(place=writer.folder)
        real(writer, pcm)

    monkeypatch.setattr(spool.SpoolWriter, "write", full_after_a_second)
    portaudio(lambda deliver: [deliver(noise(0.5)) for _ in range(4)])
    with pytest.raises(StorageFull):
        record(tmp_path / "one", duration=2)
    assert recover(tmp_path, tmp_path / "recorded.wav")[1] == noise(0.5) * 2


def test_a_device_that_never_delivers_leaves_no_spool(
    portaudio: Callable[..., FakePortAudio], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("audio_storage_system.audio.microphone.WATCHDOG_SECONDS", 0.2)
    portaudio()
    with pytest.raises(MicrophoneUnavailable, match="delivered nothing") as caught:
        record(tmp_path / "one", duration=1)
    assert caught.value.details["spool"] is None
    assert list(tmp_path.iterdir()) == []


def test_a_device_that_cannot_do_the_rate_records_at_its_own(
    portaudio: Callable[..., FakePortAudio], tmp_path: Path
) -> None:
    portaudio(lambda deliver: deliver(bytes(88_200))).rates = {44_100}
    spool = record(tmp_path / "one", duration=0.5, metadata={"user": "john"})
    assert (spool.sample_rate, spool.seconds, spool.metadata) == (44_100, 0.5, {"user": "john"})


def test_without_an_input_device_the_error_says_what_to_do(
    portaudio: Callable[..., FakePortAudio], tmp_path: Path
) -> None:
    portaudio().devices.clear()
    for call in (list_devices, lambda: record(tmp_path / "one", duration=1)):
        with pytest.raises(MicrophoneUnavailable, match=r"no input device.*libasound2-plugins"):
            call()
    assert list(tmp_path.iterdir()) == []


def test_devices_are_listed_with_the_default_marked(portaudio: Callable[..., FakePortAudio]) -> None:
    fake = portaudio()
    fake.devices.append({"index": 1, "name": "Speakers", "max_input_channels": 0, "default_samplerate": 48_000.0})
    (device,) = list_devices()
    assert (device.index, device.name, device.channels, device.sample_rate, device.default) == (
        0,
        "Mic",
        1,
        44_100,
        True,
    )


def test_without_portaudio_the_error_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')")
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    for call in (list_devices, lambda: record(tmp_path / "spool" / "one", duration=1)):
        with pytest.raises(MicrophoneUnavailable, match="apt-get install libportaudio2"):
            call()
    assert not (tmp_path / "spool").exists()


@pytest.mark.parametrize("duration", [0, -1, float("nan")])
def test_a_duration_that_is_none_is_refused(tmp_path: Path, duration: float) -> None:
    with pytest.raises(InvalidInput):
        record(tmp_path / "one", duration=duration)
