"""Sound that the tests make themselves: tones, noise, files of many formats, flite's voices where it is installed."""

from __future__ import annotations

import io
import shutil
import subprocess
import wave
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest

from audio_storage_system import load_audio
from audio_storage_system.audio.spool import Spool, SpoolReport

Samples = npt.NDArray[np.float32]

RATE = 16_000


def tone(seconds: float, hertz: float = 440.0, rate: int = RATE, level: float = 0.3) -> Samples:
    times = np.arange(round(seconds * rate)) / rate
    return (level * np.sin(2 * np.pi * hertz * times)).astype(np.float32)


def noise(seconds: float, rate: int = RATE, level: float = 0.1, seed: int = 0) -> Samples:
    return np.random.default_rng(seed).standard_normal(round(seconds * rate), np.float32) * np.float32(level)


def silence(seconds: float, rate: int = RATE) -> Samples:
    return np.zeros(round(seconds * rate), np.float32)


def integers(samples: Samples) -> npt.NDArray[np.int16]:
    return np.rint(np.clip(samples, -1, 1) * 32767).astype("<i2")


def concatenated(path: Path, parts: list[Path]) -> Path:
    """A WAV file of these recordings at 16 kHz, one after the other."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        for part in parts:
            file.writeframes((np.asarray(load_audio(part)) * 32767).astype("<i2").tobytes())
    return path


def wav(samples: Samples, rate: int = RATE) -> bytes:
    """A 16-bit WAV file of samples, or samples × channels."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(integers(samples).tobytes())
    return buffer.getvalue()


def encoded(
    samples: Samples,
    container: str,
    codec: str,
    *,
    rate: int = RATE,
    drop: range = range(0),
    misdated: int | None = None,
    **metadata: str,
) -> bytes:
    """A mono file in any format that ffmpeg writes; packets numbered in `drop` are left out, that numbered `misdated`
    claims to be 20 s later."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        output.metadata.update(metadata)
        track: Any = output.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(integers(samples).reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.pts = rate, 0
        packets = [*track.encode(frame), *track.encode(None)]
        for number, packet in enumerate(packets):
            packet.pts += 20 * rate if number == misdated else 0
            if number not in drop:
                output.mux(packet)
    return buffer.getvalue()


def spoken(text: str, folder: Path, voice: str = "slt") -> Samples:
    """`text` in one of flite's voices, 16 kHz; the test is skipped where flite is not installed."""
    if shutil.which("flite") is None:
        pytest.skip("flite is not installed: no synthetic voice to test with")
    target = folder / "spoken.wav"
    subprocess.run(["flite", "-voice", voice, "-t", text, "-o", str(target)], check=True, capture_output=True)
    with wave.open(str(target)) as file:
        assert file.getframerate() == RATE
        data = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    return (data / np.float32(32768)).astype(np.float32)


def join(spool: Spool, target: Path) -> SpoolReport:
    """Everything in a spool as a file."""
    stream, report = spool.open()
    with stream:
        target.write_bytes(stream.read())
    return report
