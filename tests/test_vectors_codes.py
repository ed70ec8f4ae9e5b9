"""Codes of vectors: what of them is kept, and how well they tell what is near."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from audio_storage_system.testing.vectors import Vectors
from audio_storage_system.vectors.codes import Codes, Coding, Signs, hamming
from topics import WIDTH, topical


def test_codes_without_the_mean_taken_off_would_not_find_them() -> None:
    vectors, queries = topical(5000, seed=1, offset=2), topical(20, seed=2, offset=2)

    def recall(mean: Vectors) -> float:
        coding = Coding(mean, np.ones(WIDTH, np.float32))
        codes, hits = coding.encode(vectors), 0
        for query in queries:
            distances = hamming(codes.signs, coding.signs_of(query))
            true = np.argsort(-(vectors @ query))[:10]
            hits += len(np.intersect1d(true, np.argsort(distances, kind="stable")[:100]))
        return hits / (10 * len(queries))

    assert recall(vectors.mean(axis=0)) >= 0.9
    assert recall(np.zeros(WIDTH, np.float32)) <= 0.5


def test_questions_that_have_nothing_of_what_all_have_in_common_find_their_answers() -> None:
    vectors, queries = topical(8000, seed=1, offset=0.5), topical(40, seed=2, offset=0)
    coding = Coding.train(vectors)
    codes = coding.encode(vectors)

    def recall(wanted: Callable[[Vectors], Signs]) -> float:
        hits = 0
        for query in queries:
            near = np.argsort(hamming(codes.signs, wanted(query)), kind="stable")[:300]
            hits += len(np.intersect1d(np.argsort(-(vectors @ query))[:10], near))
        return hits / (10 * len(queries))

    centred = recall(lambda query: coding.encode(query[None]).signs)
    assert recall(coding.signs_of) >= max(0.9, centred + 0.05)


def test_estimates_are_near_the_cosines() -> None:
    vectors = topical(2000, seed=1, offset=1)
    coding = Coding.train(vectors)
    for query in topical(10, seed=2, offset=0.5):
        errors = vectors @ query - coding.estimates(coding.encode(vectors), query)
        assert errors.std() <= 0.03 and abs(errors.mean()) <= 0.03


@pytest.mark.parametrize("dimension", [1, 3, 63, 64, 65, 96])
def test_codes_keep_every_level(dimension: int) -> None:
    levels = np.random.default_rng(dimension).integers(0, 8, (50, dimension), dtype=np.uint8)
    codes = Codes.of(levels)
    assert np.array_equal(codes.levels(dimension), levels)
    assert np.array_equal(Codes.joined([codes[:20], codes[20:]]).levels(dimension), levels)
    assert np.array_equal(codes[levels[:, 0] > 3].levels(dimension), levels[levels[:, 0] > 3])
