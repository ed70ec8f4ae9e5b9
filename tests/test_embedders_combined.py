"""Weighted combination of text and audio vectors, and users' own functions."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio_storage_system.audio.waveform import Waveform
from audio_storage_system.embedders import AudioEmbedder, TextEmbedder, unit_rows
from audio_storage_system.embedders.combined import combine
from audio_storage_system.embedders.function import (
    FunctionAudioEmbedder,
    FunctionCombinedEmbedder,
    FunctionTextEmbedder,
)
from audio_storage_system.errors import InvalidInput, InvalidVector
from audio_storage_system.testing.embedders import AudioEmbedderContract, TextEmbedderContract

Rows = npt.NDArray[np.float32]


def random_rows(count: int, dimension: int, seed: int) -> Rows:
    return unit_rows(np.random.default_rng(seed).normal(size=(count, dimension)), model="random")


@given(seed=st.integers(0, 2**32), weight=st.floats(0, 1), text=st.integers(1, 300), audio=st.integers(1, 300))
def test_the_cosine_is_the_weighted_sum_of_both_cosines(seed: int, weight: float, text: int, audio: int) -> None:
    texts, sounds = random_rows(2, text, seed), random_rows(2, audio, seed + 1)
    rows = combine(texts, sounds, weight)
    assert rows.shape == (2, text + audio)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    expected = weight * (texts[0] @ texts[1]) + (1 - weight) * (sounds[0] @ sounds[1])
    assert rows[0] @ rows[1] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan")])
def test_a_weight_outside_its_range_is_refused(weight: float) -> None:
    with pytest.raises(InvalidInput, match="between 0 and 1"):
        combine(random_rows(1, 3, 1), random_rows(1, 3, 2), weight)


def test_texts_and_sounds_must_pair_up() -> None:
    with pytest.raises(InvalidInput, match="2 text vectors"):
        combine(random_rows(2, 3, 1), random_rows(3, 3, 2))


def letters(text: str) -> np.ndarray:
    """A user's function: how often each of some character codes occurs."""
    return np.bincount([ord(character) % 31 for character in text] + [0], minlength=31)


def loudness(audio: np.ndarray) -> list[float]:
    """A user's function on sound."""
    finite = np.nan_to_num(np.asarray(audio), posinf=0, neginf=0)
    spectrum = np.abs(np.fft.rfft(finite, 64 * 1024))[: 32 * 1024].reshape(32, -1).sum(axis=1)
    return [1.0, *spectrum.tolist()]


class TestUserTextFunction(TextEmbedderContract):
    @pytest.fixture
    def embedder(self) -> TextEmbedder:
        return FunctionTextEmbedder(letters)


class TestUserAudioFunction(AudioEmbedderContract):
    @pytest.fixture
    def embedder(self) -> AudioEmbedder:
        return FunctionAudioEmbedder(loudness)


class Model:
    """A user's model object."""

    def encode(self, text: str) -> np.ndarray:
        return np.array([len(text), 1])

    def __call__(self, text: str) -> np.ndarray:
        return self.encode(text)


def test_a_function_names_its_space() -> None:
    assert FunctionTextEmbedder(letters).model == f"user:{__name__}.letters"
    assert FunctionTextEmbedder(Model().encode).model == f"user:{__name__}.Model.encode"
    assert FunctionTextEmbedder(Model()).model == f"user:{__name__}.Model"
    assert FunctionTextEmbedder(functools.partial(letters)).model == f"user:{__name__}.letters.partial"
    assert FunctionAudioEmbedder(loudness, name="loud-2").model == "user:loud-2"


def test_any_numbers_are_normalised() -> None:
    vector = FunctionTextEmbedder(lambda text: [3, 4]).embed("x")
    np.testing.assert_allclose(vector, [0.6, 0.8], atol=1e-6)


@pytest.mark.parametrize(
    "answer",
    [[0.0, 0.0], [np.nan, 1.0], [np.inf, 1.0], [], [[1.0, 2.0]], 1.0, "text", ["a"], None, [1 + 2j]],
    ids=str,
)
def test_what_is_no_vector_is_refused(answer: npt.ArrayLike) -> None:
    with pytest.raises(InvalidVector, match=r"user:bad"):
        FunctionTextEmbedder(lambda text: answer, name="bad").embed("x")


def test_the_first_answer_fixes_the_dimension() -> None:
    embedder = FunctionTextEmbedder(lambda text: np.ones(len(text)), name="long")
    assert embedder.embed("four").shape == (4,)
    assert embedder.dimension == 4
    with pytest.raises(InvalidVector, match="5 dimensions, the space has 4"):
        embedder.embed("fiver")
    with pytest.raises(InvalidVector, match="5 dimensions, the space has 4"):
        embedder.embed_batch(["four", "fiver"])
    assert embedder.embed("also").shape == (4,)


def test_asking_for_the_dimension_calls_the_function_once() -> None:
    calls: list[str] = []
    embedder = FunctionTextEmbedder(lambda text: calls.append(text) or np.ones(3))  # type: ignore[func-returns-value]
    assert (embedder.dimension, embedder.dimension) == (3, 3)
    assert len(calls) == 1


def test_a_function_on_sound_receives_samples_that_know_their_rate() -> None:
    received: list[Waveform] = []
    embedder = FunctionAudioEmbedder(lambda audio: received.append(audio) or [1.0])  # type: ignore[func-returns-value]
    embedder.embed(np.array([0.1, 0.2], np.float32))
    assert isinstance(received[0], np.ndarray)
    assert (received[0].sample_rate, received[0].dtype, received[0].tolist()) == (
        16_000,
        np.float32,
        pytest.approx([0.1, 0.2]),
    )


def test_a_function_of_both_receives_both() -> None:
    embedder = FunctionCombinedEmbedder(lambda transcript, audio: np.concatenate([letters(transcript), audio[:2]]))
    assert embedder.dimension == 33
    sounds = [np.array([0.5, 0.0, 0.3], np.float32), np.array([0.0, 0.5], np.float32)]
    rows = embedder.embed_batch(["one", "two"], sounds)
    assert rows.shape == (2, 33)
    np.testing.assert_allclose(rows[0], embedder.embed("one", sounds[0]))
    assert rows[0, 31] > 0 and rows[0, 32] == 0
    assert embedder.embed_batch([], []).shape == (0, 33)
    with pytest.raises(ValueError, match="argument 2 is longer"):
        embedder.embed_batch(["one"], sounds)


def test_what_a_function_raises_is_passed_on() -> None:
    def broken(text: str) -> np.ndarray:
        raise KeyError("my own mistake")

    with pytest.raises(KeyError, match="my own mistake"):
        FunctionTextEmbedder(broken).embed("x")
