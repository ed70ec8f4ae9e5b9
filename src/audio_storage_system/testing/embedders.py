"""What every embedder must do, as tests to inherit: subclass, and give the embedder as a fixture.

class TestMine(TextEmbedderContract):
    @pytest.fixture
    def embedder(self) -> TextEmbedder:
        return MyEmbedder("model")
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pytest

from audio_storage_system.embedders.base import AudioEmbedder, Matrix, TextEmbedder

TEXTS = (
    "We agreed on the budget for next year.",
    "The dog barked all night and nobody slept.",
    "Wie komme ich von hier zum Bahnhof?",
    "会議は三時に始まります。",
)
ODD_TEXTS = ("", " \n\t", "\x00", "\ud800", "\u200b", "🙂🙃", "a" * 30_000, "word " * 5_000)
TOLERANCE = 1e-4


class TextEmbedderContract:
    """The promises of `TextEmbedder`."""

    @pytest.fixture
    def embedder(self) -> TextEmbedder:
        """The embedder under test; a subclass must give it."""
        pytest.fail(f"{type(self).__name__} gives no fixture `embedder`")

    def test_each_text_gets_a_unit_row_of_the_declared_dimension(self, embedder: TextEmbedder) -> None:
        assert_unit_rows(embedder.embed_batch(TEXTS), len(TEXTS), embedder.dimension)

    def test_no_texts_make_no_rows(self, embedder: TextEmbedder) -> None:
        assert embedder.embed_batch([]).shape == (0, embedder.dimension)

    def test_a_vector_does_not_depend_on_its_batch(self, embedder: TextEmbedder) -> None:
        together = embedder.embed_batch(TEXTS)
        alone = np.stack([embedder.embed(text) for text in TEXTS])
        np.testing.assert_allclose(together, alone, atol=TOLERANCE)

    def test_different_texts_get_different_vectors(self, embedder: TextEmbedder) -> None:
        rows = embedder.embed_batch(TEXTS)
        assert (rows @ rows.T)[np.triu_indices(len(TEXTS), 1)].max() < 1 - TOLERANCE

    def test_odd_texts_get_vectors_and_leave_their_neighbours_alone(self, embedder: TextEmbedder) -> None:
        rows = embedder.embed_batch([TEXTS[0], *ODD_TEXTS, TEXTS[1]])
        assert_unit_rows(rows, len(ODD_TEXTS) + 2, embedder.dimension)
        np.testing.assert_allclose(rows[[0, -1]], embedder.embed_batch(TEXTS[:2]), atol=TOLERANCE)

    def test_a_query_lies_in_the_same_space(self, embedder: TextEmbedder) -> None:
        assert_unit_rows(embedder.embed_query("the budget")[None, :], 1, embedder.dimension)

    def test_a_full_batch_is_taken_in_one_call(self, embedder: TextEmbedder) -> None:
        texts = [f"passage number {number}" for number in range(embedder.max_batch)]
        assert_unit_rows(embedder.embed_batch(texts), len(texts), embedder.dimension)

    def test_several_threads_get_what_one_gets(self, embedder: TextEmbedder) -> None:
        expected = embedder.embed_batch(TEXTS)
        with ThreadPoolExecutor(4) as threads:
            for rows in threads.map(embedder.embed_batch, [TEXTS] * 8):
                np.testing.assert_allclose(rows, expected, atol=TOLERANCE)

    def test_the_model_has_a_name_for_its_space(self, embedder: TextEmbedder) -> None:
        assert_name(embedder.model)


class AudioEmbedderContract:
    """The promises of `AudioEmbedder`."""

    @pytest.fixture
    def embedder(self) -> AudioEmbedder:
        """The embedder under test; a subclass must give it."""
        pytest.fail(f"{type(self).__name__} gives no fixture `embedder`")

    def test_each_piece_gets_a_unit_row_of_the_declared_dimension(self, embedder: AudioEmbedder) -> None:
        assert_unit_rows(embedder.embed_batch(pieces(embedder)), 4, embedder.dimension)

    def test_no_pieces_make_no_rows(self, embedder: AudioEmbedder) -> None:
        assert embedder.embed_batch([]).shape == (0, embedder.dimension)

    def test_a_vector_does_not_depend_on_its_batch(self, embedder: AudioEmbedder) -> None:
        together = embedder.embed_batch(pieces(embedder))
        alone = np.stack([embedder.embed(piece) for piece in pieces(embedder)])
        np.testing.assert_allclose(together, alone, atol=TOLERANCE)

    def test_different_sounds_get_different_vectors(self, embedder: AudioEmbedder) -> None:
        rows = embedder.embed_batch(pieces(embedder))
        assert (rows @ rows.T)[np.triu_indices(4, 1)].max() < 1 - TOLERANCE

    @pytest.mark.parametrize("seconds", [0.0001, 0.02, 0.2, 1.0, 65.0])
    def test_any_length_will_do(self, embedder: AudioEmbedder, seconds: float) -> None:
        sound = noise(embedder, seconds)
        assert_unit_rows(embedder.embed(sound)[None, :], 1, embedder.dimension)

    def test_odd_pieces_get_vectors_and_leave_their_neighbours_alone(self, embedder: AudioEmbedder) -> None:
        silence = np.zeros(embedder.sample_rate, np.float32)
        odd = [silence, silence + 1, silence * np.nan, silence + np.float32(np.inf), silence[:1]]
        sound = noise(embedder, 1.0)
        rows = embedder.embed_batch([*odd, sound])
        assert_unit_rows(rows, len(odd) + 1, embedder.dimension)
        np.testing.assert_allclose(rows[-1], embedder.embed(sound), atol=TOLERANCE)

    def test_the_samples_are_left_as_they_were(self, embedder: AudioEmbedder) -> None:
        sound = noise(embedder, 1.0)
        before = sound.copy()
        embedder.embed(sound)
        np.testing.assert_array_equal(sound, before)

    def test_several_threads_get_what_one_gets(self, embedder: AudioEmbedder) -> None:
        sounds = pieces(embedder)
        expected = embedder.embed_batch(sounds)
        with ThreadPoolExecutor(4) as threads:
            for rows in threads.map(embedder.embed_batch, [sounds] * 8):
                np.testing.assert_allclose(rows, expected, atol=TOLERANCE)

    def test_the_model_has_a_name_for_its_space(self, embedder: AudioEmbedder) -> None:
        assert_name(embedder.model)


def assert_unit_rows(rows: Matrix, count: int, dimension: int) -> None:
    """`rows` is a float32 matrix of this shape with rows of length one."""
    assert rows.shape == (count, dimension)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def assert_name(model: str) -> None:
    """`model` is one printable line."""
    assert model
    assert model.isprintable()


def noise(embedder: AudioEmbedder, seconds: float, seed: int = 1) -> npt.NDArray[np.float32]:
    """White noise at the embedder's rate, at least one sample."""
    count = max(1, round(seconds * embedder.sample_rate))
    return np.random.default_rng(seed).normal(0, 0.1, count).astype(np.float32)


def pieces(embedder: AudioEmbedder) -> list[npt.NDArray[np.float32]]:
    """Four different sounds of different lengths: noise, noise in pulses, a tone, and a rising tone."""
    rate = embedder.sample_rate
    seconds = np.arange(2 * rate) / rate
    pulses = noise(embedder, 2.0) * (np.sin(2 * np.pi * 4 * seconds) > 0)
    tone = 0.3 * np.sin(2 * np.pi * 440 * seconds[: rate // 2])
    rising = 0.3 * np.sin(2 * np.pi * 300 * seconds * (1 + seconds))
    return [np.asarray(sound, np.float32) for sound in (noise(embedder, 1.0), pulses, tone, rising)]
