"""The acoustic embedder: where its constants come from, and how well it finds what sounds alike.

- `python bench/acoustic.py constants` derives acoustic_constants.py again from synthetic signals;
- `python bench/acoustic.py retrieval` measures on $AUDIO_STORAGE_TEST_DATA/{sounds,speakers}.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from audio_storage_system.audio.decode import load_audio
from audio_storage_system.embedders import acoustic

RATE = acoustic.SAMPLE_RATE
SIGNALS = 400
Array = npt.NDArray[np.float64]
Random = np.random.Generator


def main() -> None:
    {"constants": write_constants, "retrieval": measure_retrieval}[sys.argv[1]]()


def write_constants() -> None:
    """Mean and standard deviation of each value over synthetic signals: half babble, half everything else."""
    random = np.random.default_rng(7)
    rows = np.array([_row(signal) for signal in (_signal(random) for _ in range(SIGNALS))])
    target = Path(acoustic.__file__).with_name("acoustic_constants.py")
    target.write_text(
        '"""Mean and standard deviation of each acoustic value over synthetic signals, by bench/acoustic.py."""\n\n'
        "import numpy as np\n\n"
        f"CENTRES = np.array(\n    {_block(rows.mean(axis=0))},\n    dtype=np.float64,\n)\n"
        f"SPREADS = np.array(\n    {_block(rows.std(axis=0))},\n    dtype=np.float64,\n)\n"
    )


def _row(signal: Array) -> Array:
    parts = acoustic.describe(signal.astype(np.float32))
    return np.concatenate([parts[name] for name in acoustic.PART_WEIGHTS]).astype(np.float64)


def _block(values: Array) -> str:
    texts = [f"{value:.4g}" for value in values]
    lines = [" ".join(texts[i : i + 12]) for i in range(0, len(texts), 12)]
    return '"""\n    ' + "\n    ".join(lines) + '\n    """.split()'


def _signal(random: Random) -> Array:
    """One to eight seconds of something, over noise 25 to 65 dB below its peak."""
    length = int(RATE * random.uniform(1, 8))
    sound = _babble(random, length) if random.random() < 0.5 else _sound(random, length)
    noise = _coloured(random, length, random.uniform(0, 2))
    return sound / (np.abs(sound).max() + 1e-9) + 10 ** random.uniform(-3.25, -1.25) * noise


def _sound(random: Random, length: int) -> Array:
    sound = _source(random, length)
    if random.random() < 0.6:
        sound = _resonate(random, sound, int(random.integers(1, 5)))
    return sound / (np.abs(sound).max() + 1e-9) * _envelope(random, length)


def _source(random: Random, length: int) -> Array:
    kind = random.integers(5)
    if kind == 0:
        return _coloured(random, length, random.uniform(-0.5, 2.5))
    if kind == 1:
        return _harmonics(random, length)
    if kind == 2:
        return _bursts(random, length)
    if kind == 3:
        sweep = np.geomspace(100 * 2 ** random.uniform(0, 5), 100 * 2 ** random.uniform(0, 5), length)
        return np.sin(2 * np.pi * np.cumsum(sweep) / RATE)
    return _source(random, length) + random.uniform(0.05, 1) * _source(random, length)


def _coloured(random: Random, length: int, slope: float) -> Array:
    """Noise of unit level whose power falls with frequency to the power of `slope`."""
    spectrum = np.fft.rfft(random.standard_normal(length))
    noise = np.fft.irfft(spectrum * np.maximum(np.arange(len(spectrum)), 1.0) ** (-slope / 2), length)
    return noise / noise.std()


def _harmonics(random: Random, length: int) -> Array:
    seconds = np.arange(length) / RATE
    base = 60 * 2 ** random.uniform(0, 4)
    vibrato = 1 + 0.05 * random.random() * np.sin(2 * np.pi * random.uniform(0.5, 7) * seconds)
    phase = 2 * np.pi * np.cumsum(base * (vibrato + 0.3 * (random.random() - 0.5) * seconds / seconds[-1])) / RATE
    slope = random.uniform(0.5, 1.5)
    return sum((np.sin(h * phase) / h**slope for h in range(1, min(60, int(6250 / base) + 1) + 1)), np.zeros(length))


def _bursts(random: Random, length: int) -> Array:
    sound = np.zeros(length)
    for start in random.integers(0, length, random.integers(1, 60)):
        size = min(length - start, int(RATE * random.uniform(0.005, 0.3)))
        decay = np.exp(-np.arange(size) / (size / 5))
        sound[start : start + size] += random.standard_normal(size) * decay * random.uniform(0.2, 1)
    return sound


def _resonate(random: Random, sound: Array, count: int) -> Array:
    spectrum = np.fft.rfft(sound)
    frequency = np.arange(len(spectrum)) * RATE / len(sound)
    gain = np.full(len(spectrum), 0.02)
    for _ in range(count):
        centre = 100 * 2 ** random.uniform(0, 6)
        width = centre * random.uniform(0.05, 0.5)
        gain += random.uniform(0.1, 1) / (1 + ((frequency - centre) / width) ** 2)
    return np.fft.irfft(spectrum * gain, len(sound))


def _envelope(random: Random, length: int) -> Array:
    seconds = np.arange(length) / RATE
    kind = random.integers(4)
    if kind == 0:
        return np.ones(length)
    if kind == 1:
        return (1 + random.uniform(0.3, 1) * np.sin(2 * np.pi * random.uniform(0.5, 16) * seconds)) / 2 + 0.003
    if kind == 2:
        count = max(2, int(seconds[-1] * random.uniform(1, 8)) + 2)
        levels = random.random(count) ** 2
        levels[random.random(count) < 0.3] = 0.001
        return np.interp(seconds, np.linspace(0, seconds[-1], count), levels)
    return np.exp(-seconds / random.uniform(0.1, 3)) + 0.001


def _babble(random: Random, length: int) -> Array:
    """Syllables without meaning: voiced ones through three to five formants, and hisses (source and filter)."""
    sound = np.zeros(length)
    pitch, size, tilt = random.uniform(85, 260), random.uniform(0.85, 1.2), random.uniform(0.8, 1.6)
    position = int(random.uniform(0, 0.3) * RATE)
    while position < length - 800:
        count = min(length - position, int(RATE * random.uniform(0.06, 0.3)))
        syllable = _voiced(random, count, pitch, size, tilt) if random.random() < 0.7 else _hiss(random, count)
        ramp = np.minimum(np.arange(count), np.arange(count)[::-1]) / (RATE * random.uniform(0.01, 0.04))
        sound[position : position + count] += syllable * np.minimum(1, ramp) * random.uniform(0.3, 1)
        pause = random.uniform(0, 0.05) if random.random() < 0.8 else random.uniform(0.1, 0.6)
        position += count + int(RATE * pause)
    return sound


def _voiced(random: Random, count: int, pitch: float, size: float, tilt: float) -> Array:
    course = pitch * 2 ** random.normal(0, 0.12) * np.linspace(1, 2 ** random.normal(0, 0.15), count)
    phase = 2 * np.pi * np.cumsum(course) / RATE
    centres = np.array([random.uniform(280, 850), random.uniform(800, 2400), random.uniform(2300, 3200), 3600, 4600])
    widths, strengths = np.array([70, 90, 140, 200, 300]), np.array([1, 0.6, 0.35, 0.2, 0.12])
    sound = np.zeros(count)
    for harmonic in range(1, int(7600 / pitch) + 1):
        distance = (harmonic * course.mean() - centres * size) / widths
        gain = (strengths / (1 + distance**2)).sum() + 0.004
        sound += gain * np.sin(harmonic * phase) / harmonic ** (tilt - 0.5)
    return sound


def _hiss(random: Random, count: int) -> Array:
    spectrum = np.fft.rfft(random.standard_normal(count))
    frequency = np.arange(len(spectrum)) * RATE / count
    shape = 1 + ((frequency - random.uniform(1500, 7000)) / random.uniform(500, 2500)) ** 2
    sound = np.fft.irfft(spectrum / shape, count)
    return sound / (sound.std() + 1e-9) * random.uniform(0.015, 0.12)


def measure_retrieval() -> None:
    """Mean average precision and first hits: sounds by class (never a clip of the same original), speech by speaker."""
    folder = Path(os.environ["AUDIO_STORAGE_TEST_DATA"])
    for name, label, original in (("sounds", "label", "freesound_id"), ("speakers", "speaker", "path")):
        lines = (folder / name / "manifest.jsonl").read_text().splitlines()
        entries = [json.loads(line) for line in lines]
        pieces = [load_audio(folder / name / entry["path"], RATE) for entry in entries]
        started = time.perf_counter()
        vectors = np.concatenate([acoustic.AcousticEmbedder().embed_batch([piece]) for piece in pieces])
        speed = sum(map(len, pieces)) / RATE / (time.perf_counter() - started)
        labels, originals = (np.array([entry[key] for entry in entries]) for key in (label, original))
        scores = list(_scores(vectors @ vectors.T, labels, originals))
        precision, first = np.mean(scores, axis=0)
        spread = np.percentile((vectors @ vectors.T)[np.triu_indices(len(vectors), 1)], [1, 50, 99]).round(2)
        print(f"{name}: mAP {precision:.3f}, first hit {first:.3f} of {len(scores)} queries; {speed:.0f} × real time")
        print(f"  cosines at 1, 50 and 99 %: {spread}")


def _scores(similarity: npt.NDArray[np.float32], labels: Array, originals: Array) -> Iterator[tuple[float, float]]:
    for query in range(len(labels)):
        others = originals != originals[query]
        order = np.argsort(-similarity[query][others], kind="stable")
        relevant = labels[others][order] == labels[query]
        if relevant.any():
            precision = np.cumsum(relevant) / np.arange(1, len(relevant) + 1)
            yield float(precision[relevant].mean()), float(relevant[0])


if __name__ == "__main__":
    main()
