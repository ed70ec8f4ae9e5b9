"""The bundled audio embedder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audio_storage_system.audio.decode import load_audio
from audio_storage_system.embedders import AudioEmbedder, open_audio_embedder
from audio_storage_system.embedders.acoustic import SAMPLE_RATE, AcousticEmbedder, describe
from audio_storage_system.errors import UnknownSpec
from audio_storage_system.testing.embedders import AudioEmbedderContract, noise, pieces

Sound = npt.NDArray[np.float32]
EMBEDDER = AcousticEmbedder()


class TestAcoustic(AudioEmbedderContract):
    @pytest.fixture
    def embedder(self) -> AudioEmbedder:
        return open_audio_embedder("auto")


def hum(pitch: float, seconds: float = 3.0) -> Sound:
    """A buzz of ten harmonics with a little noise."""
    time_axis = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    tones = sum(np.sin(2 * np.pi * pitch * h * time_axis) / h for h in range(1, 11))
    return np.asarray(0.1 * tones, np.float32) + 0.05 * noise(EMBEDDER, seconds)


def pulses(rate: float, seed: int, seconds: float = 3.0) -> Sound:
    """Noise that comes and goes `rate` times a second."""
    time_axis = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    gate = 0.02 + (np.sin(2 * np.pi * rate * time_axis) > 0)
    return np.asarray(noise(EMBEDDER, seconds, seed) * gate, np.float32)


def test_its_dimension_is_fixed() -> None:
    assert EMBEDDER.dimension == 160


@given(gain=st.floats(1e-5, 1e5))
@settings(max_examples=20, deadline=None)
def test_loudness_does_not_matter(gain: float) -> None:
    for sound in pieces(EMBEDDER):
        assert EMBEDDER.embed(sound) @ EMBEDDER.embed(sound * np.float32(gain)) > 0.9999


def test_an_offset_does_not_matter() -> None:
    sound = pulses(3, seed=1)
    assert EMBEDDER.embed(sound) @ EMBEDDER.embed(sound + np.float32(0.3)) > 0.999


def test_a_longer_piece_of_the_same_sound_sounds_alike() -> None:
    assert EMBEDDER.embed(hum(150, 4.0)) @ EMBEDDER.embed(hum(150, 60.0)) > 0.95


def test_the_same_kind_of_sound_is_nearer_than_another_kind() -> None:
    slow, slow_again, fast = (EMBEDDER.embed(pulses(*how)) for how in ((2, 1), (2, 2), (12, 3)))
    low, low_again = EMBEDDER.embed(hum(120)), EMBEDDER.embed(hum(126))
    assert slow @ slow_again > slow @ fast + 0.05
    assert low @ low_again > low @ slow + 0.5


def test_a_click_in_digital_silence_is_described_by_the_click() -> None:
    click = np.zeros(10 * SAMPLE_RATE, np.float32)
    click[1000:1400] = noise(EMBEDDER, 0.025)
    silence = EMBEDDER.embed(np.zeros(SAMPLE_RATE, np.float32))
    assert EMBEDDER.embed(click) @ silence < 0.9


def test_modulation_shows_at_its_own_rate() -> None:
    edges = (0.5, 1, 2, 3, 4.5, 7, 11, 17, 26, 50)
    bands = describe(pulses(5.5, seed=1, seconds=6))["modulation"].reshape(6, 9)
    assert edges[int(bands[-1].argmax())] == 4.5


def test_cosines_of_different_sounds_spread_widely() -> None:
    sounds = [hum(90), hum(900), pulses(1, 1), pulses(15, 2), noise(EMBEDDER, 3.0), *pieces(EMBEDDER)]
    rows = EMBEDDER.embed_batch(sounds)
    cosines = (rows @ rows.T)[np.triu_indices(len(rows), 1)]
    assert cosines.min() < -0.1
    assert cosines.max() > 0.6


def test_an_argument_is_refused() -> None:
    with pytest.raises(UnknownSpec, match="acoustic:big"):
        open_audio_embedder("acoustic:big")


def test_real_sounds_of_one_class_find_each_other(test_data: Path) -> None:
    """Half of the clips have a clip of their own class (22 of them), never of the same original, in first place."""
    entries = [json.loads(line) for line in (test_data / "sounds" / "manifest.jsonl").read_text().splitlines()]
    rows = np.stack([EMBEDDER.embed(load_audio(test_data / "sounds" / entry["path"])) for entry in entries])
    assert np.mean(list(first_hits(rows, entries, "label", "freesound_id"))) > 0.5


def test_real_speakers_find_themselves(test_data: Path) -> None:
    """The nearest recording is one of the same speaker for nine of ten."""
    entries = [json.loads(line) for line in (test_data / "speakers" / "manifest.jsonl").read_text().splitlines()]
    rows = np.stack([EMBEDDER.embed(load_audio(test_data / "speakers" / entry["path"])) for entry in entries])
    assert np.mean(list(first_hits(rows, entries, "speaker", "path"))) > 0.9


def first_hits(
    rows: npt.NDArray[np.float32], entries: list[dict[str, str]], label: str, original: str
) -> Iterator[bool]:
    labels, originals = (np.array([entry[key] for entry in entries]) for key in (label, original))
    for query in range(len(rows)):
        others = originals != originals[query]
        if (labels[others] == labels[query]).any():
            yield labels[others][(rows[others] @ rows[query]).argmax()] == labels[query]
