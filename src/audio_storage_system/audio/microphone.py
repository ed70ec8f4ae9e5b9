"""Recording from a sound device, through PortAudio (`sounddevice`), into a spool.

Three threads: PortAudio's calls back with each tenth of a second and only puts it into a queue; a writer takes it from
there to the disk; the caller's watches both. So neither a slow disk nor a slow level meter makes the device lose sound.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from audio_storage_system.audio.spool import Spool, SpoolWriter
from audio_storage_system.errors import InvalidInput, MicrophoneUnavailable
from audio_storage_system.records import Metadata

BLOCKS_PER_SECOND = 10
WATCHDOG_SECONDS = 2.0
FULL_SCALE = 32768.0

NO_PORTAUDIO = (
    "the PortAudio library is not installed. On Debian and Ubuntu: apt-get install libportaudio2 libasound2-plugins; "
    "on Fedora: dnf install portaudio; elsewhere: pip install --force-reinstall sounddevice"
)
NO_DEVICE = (
    "there is no input device. Plug in a microphone and allow this program to use it; on Linux with PulseAudio or "
    "PipeWire, PortAudio also needs: apt-get install libasound2-plugins"
)

Level = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Device:
    """A sound device that can record. `sample_rate` is the one it prefers, in Hz."""

    index: int
    name: str
    channels: int
    sample_rate: int
    default: bool


def list_devices() -> list[Device]:
    """Every device that can record. Raises `MicrophoneUnavailable` without PortAudio or without any such device."""
    sounddevice = _sounddevice()
    default = sounddevice.default.device[0]
    found = [
        Device(
            index=device["index"],
            name=device["name"],
            channels=device["max_input_channels"],
            sample_rate=round(device["default_samplerate"]),
            default=device["index"] == default,
        )
        for device in sounddevice.query_devices()
        if device["max_input_channels"] > 0
    ]
    if not found:
        raise MicrophoneUnavailable(reason=NO_DEVICE)
    return found


def record(
    spool_folder: Path,
    *,
    duration: float | None = None,
    sample_rate: int = 16_000,
    device: int | str | None = None,
    on_level: Level | None = None,
    stop: threading.Event | None = None,
    metadata: Metadata | None = None,
    key: bytes | None = None,
) -> Spool:
    """Record mono PCM_16 into the new spool `spool_folder`, and return it once the recording is over.

    It ends after `duration` seconds (exact to the sample; `None`: no limit), when `stop` is set, or with Ctrl-C, which
    keeps what was said. A device that cannot do `sample_rate` records at its own. About ten times a second `on_level`
    gets the loudest sample since it was last called, 0…1, in the caller's thread. `key`: as for `SpoolWriter`.

    Raises `InvalidInput` for a duration that is not positive; `MicrophoneUnavailable` when recording cannot begin, or
    when the device stops delivering: at once when it says so, after 2 s when it does not. The error's
    `details["spool"]` is then the spool with what was captured, released so that `find_abandoned` on the parent folder
    finds it too, or `None` if there was nothing. `StorageFull` and `ArchiveReadOnly` likewise leave what was captured.
    """
    opened: list[SpoolWriter] = []

    def begin(rate: int) -> SpoolWriter:
        opened.append(SpoolWriter(spool_folder, rate, 1, metadata, key))
        return opened[0]

    try:
        fault = hear(begin, duration=duration, sample_rate=sample_rate, device=device, on_level=on_level, stop=stop)
    except BaseException:
        for writer in opened:
            writer.close().release()
        raise
    spool = opened[0].close()
    if fault is not None:
        raise MicrophoneUnavailable(reason=kept(fault, spool.seconds), spool=_released(spool))
    return spool


class Sink(Protocol):
    """Where the sound of a device goes, in a thread of its own."""

    def write(self, pcm: bytes, /) -> None:
        """Take mono 16-bit samples."""

    def skip(self, frames: int, /) -> None:
        """Take note that the device lost so many."""

    def sync(self) -> None:
        """Make durable what it has; called while nothing comes."""


def hear(
    begin: Callable[[int], Sink],
    *,
    duration: float | None = None,
    sample_rate: int = 16_000,
    device: int | str | None = None,
    on_level: Level | None = None,
    stop: threading.Event | None = None,
) -> str | None:
    """Hand the sound of a device on, as `record` does; what went wrong with the device, if anything. `begin` makes what
    takes it, once the rate is known and the device is open. Raises what that raises, and as `record` where it cannot
    begin."""
    if duration is not None and not duration > 0:
        raise InvalidInput(reason=f"a recording cannot last {duration} s")
    sounddevice = _sounddevice()
    rate = _usable_rate(sounddevice, device, sample_rate)
    capture = _Capture(rate, None if duration is None else max(1, round(duration * rate)))
    try:
        stream = sounddevice.RawInputStream(
            samplerate=rate,
            channels=1,
            dtype="int16",
            device=device,
            blocksize=max(1, rate // BLOCKS_PER_SECOND),
            callback=capture.on_block,
            finished_callback=capture.finished.set,
        )
    except sounddevice.PortAudioError as error:
        raise MicrophoneUnavailable(reason=_explain(error)) from error
    with closing(stream):
        fault = _run(capture, stream, begin(rate), on_level, stop)
    if capture.failure:
        raise capture.failure
    return fault


def _run(
    capture: _Capture, stream: Any, sink: Sink, on_level: Level | None, stop: threading.Event | None
) -> str | None:
    """Record until it is over, and say what went wrong, if anything. In any case what was captured is with the sink."""
    thread = threading.Thread(target=capture.write_to, args=(sink,), name="spool-writer", daemon=True)
    thread.start()
    fault: str | None = None
    try:
        fault = _start(stream) or capture.watch(on_level, stop or threading.Event())
    except KeyboardInterrupt:
        pass  # the way to end a recording by hand
    finally:
        _insist(lambda: time.sleep(1 / BLOCKS_PER_SECOND))  # the last block, half said, is still with the device
        _insist(stream.abort)
        _insist(lambda: capture.blocks.put(None))
        _insist(thread.join)
    return fault


def _insist(step: Callable[[], object]) -> None:
    """Do it although Ctrl-C is pressed again, which means no more than it did the first time: left undone, the writer
    would wait for ever, and the program with it."""
    while True:
        try:
            step()
        except KeyboardInterrupt:
            continue
        return


def _start(stream: Any) -> str | None:
    try:
        stream.start()
    except _sounddevice().PortAudioError as error:
        return _explain(error)
    return None


class _Capture:
    """What the threads share: blocks on their way to the disk, and how far each of them is."""

    def __init__(self, sample_rate: int, frames_wanted: int | None) -> None:
        self.blocks: queue.SimpleQueue[tuple[bytes, int] | None] = queue.SimpleQueue()
        self.finished = threading.Event()
        self.failure: Exception | None = None
        self._sample_rate = sample_rate
        self._wanted = frames_wanted
        self._delivered = 0
        self._calls = 0
        self._next_time: float | None = None
        self._peak = 0

    def on_block(self, indata: Any, frames: int, times: Any, status: Any) -> None:
        """PortAudio's callback: must not wait for anything."""
        lost = self._frames_lost(times.inputBufferAdcTime) if status.input_overflow else 0
        self._next_time = times.inputBufferAdcTime + frames / self._sample_rate
        self._calls += 1
        room = frames if self._wanted is None else min(frames, self._wanted - self._delivered)
        if not room:
            return
        self.blocks.put((bytes(indata)[: room * 2], lost))
        self._delivered += room

    def _frames_lost(self, begins: float) -> int:
        """How much an overflow cost by the device's clock; at least 1, so that it never goes unreported."""
        if self._next_time is None:  # before the recording began
            return 0
        return max(1, round((begins - self._next_time) * self._sample_rate))

    def write_to(self, writer: Sink) -> None:
        """The writer thread: from the queue to the disk until `None` comes."""
        try:
            while True:
                try:
                    block = self.blocks.get(timeout=1 / BLOCKS_PER_SECOND)
                except queue.Empty:
                    writer.sync()
                    continue
                if block is None:
                    return
                self._write(writer, *block)
        except Exception as error:  # raised again in the caller's thread
            self.failure = error

    def _write(self, writer: Sink, pcm: bytes, lost: int) -> None:
        if lost:
            writer.skip(lost)
        writer.write(pcm)
        samples = np.frombuffer(pcm, dtype=np.int16)
        self._peak = max(self._peak, int(np.abs(samples.astype(np.int32)).max(initial=0)))

    def watch(self, on_level: Level | None, stop: threading.Event) -> str | None:
        """Wait until the recording is over; what went wrong, if it was not ended on purpose.

        Silence of the device is counted in rounds of this loop rather than by the clock: when the whole process or the
        machine slept, that is not the device's fault.
        """
        calls_seen = silent_rounds = 0
        while not (stop.is_set() or self.failure or self._complete):
            if self.finished.is_set():
                return "the sound device went away"
            if silent_rounds > WATCHDOG_SECONDS * BLOCKS_PER_SECOND:
                return f"the sound device delivered nothing for {WATCHDOG_SECONDS:g} s"
            stop.wait(1 / BLOCKS_PER_SECOND)
            silent_rounds = silent_rounds + 1 if self._calls == calls_seen else 0
            calls_seen = self._calls
            if on_level:
                on_level(self._take_peak() / FULL_SCALE)
        return None

    @property
    def _complete(self) -> bool:
        return self._wanted is not None and self._delivered >= self._wanted

    def _take_peak(self) -> int:
        peak, self._peak = self._peak, 0
        return peak


def kept(fault: str, seconds: float) -> str:
    """What went wrong, with what was recorded until then."""
    return f"{fault}; the {seconds:.1f} s recorded until then are kept" if seconds else fault


def _released(spool: Spool) -> Spool | None:
    """The spool, free for anyone to recover; one without any sound is removed."""
    if spool.seconds:
        spool.release()
        return spool
    spool.discard()
    return None


def _usable_rate(sounddevice: ModuleType, device: int | str | None, sample_rate: int) -> int:
    """`sample_rate`, or the device's own if it cannot do that one."""
    try:
        own: int = round(sounddevice.query_devices(device, "input")["default_samplerate"])
    except (ValueError, sounddevice.PortAudioError) as error:
        raise MicrophoneUnavailable(
            reason=NO_DEVICE if device is None else f"{error}. {_known(sounddevice)}"
        ) from error
    try:
        sounddevice.check_input_settings(device=device, channels=1, dtype="int16", samplerate=sample_rate)
    except sounddevice.PortAudioError:
        return own
    return sample_rate


def _known(sounddevice: ModuleType) -> str:
    names = [device["name"] for device in sounddevice.query_devices() if device["max_input_channels"] > 0]
    return f"Known: {', '.join(names)}" if names else NO_DEVICE


def _explain(error: Exception) -> str:
    return f"the device cannot be opened ({error}). Does another program use it, or is access to it forbidden?"


def _sounddevice() -> ModuleType:
    try:
        import sounddevice
    except OSError as error:  # the Python package is there, the library that it wraps is not
        raise MicrophoneUnavailable(reason=NO_PORTAUDIO) from error
    module: ModuleType = sounddevice
    return module
