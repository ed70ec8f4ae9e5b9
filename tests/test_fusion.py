"""One ranking from words and meaning."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio_storage_system.search.fusion import DEFAULT_WEIGHT, fuse, weight_for

ids = st.integers(1, 30)
bm25 = st.dictionaries(ids, st.floats(0.001, 100))
cosines = st.dictionaries(ids, st.floats(-1, 1))
weights = st.floats(0, 5)


def test_the_score_is_bm25_over_its_best_plus_the_weighted_cosine() -> None:
    assert fuse({1: 8.0, 2: 4.0}, {2: 0.9, 3: 0.5}, 0.5) == [
        (1, pytest.approx(1.0)),
        (2, pytest.approx(0.95)),
        (3, pytest.approx(0.25)),
    ]


def test_meaning_can_lift_a_passage_above_the_best_words() -> None:
    lexical, semantic = {1: 10.0, 2: 9.0}, {1: 0.1, 2: 0.8}
    assert [id_ for id_, _ in fuse(lexical, semantic, 0.0)] == [1, 2]
    assert [id_ for id_, _ in fuse(lexical, semantic, 1.0)] == [2, 1]


def test_nothing_found_is_an_empty_ranking() -> None:
    assert fuse({}, {}, 1.0) == []


def test_words_alone_and_meaning_alone_keep_their_order() -> None:
    assert [id_ for id_, _ in fuse({3: 1.0, 1: 2.0}, {}, 0.3)] == [1, 3]
    assert [id_ for id_, _ in fuse({}, {3: 0.9, 1: 0.2}, 0.3)] == [3, 1]


@given(bm25, cosines, weights)
def test_every_id_comes_once_best_first_ties_by_id(
    lexical: dict[int, float], semantic: dict[int, float], weight: float
) -> None:
    found = fuse(lexical, semantic, weight)
    assert sorted(id_ for id_, _ in found) == sorted({*lexical, *semantic})
    assert found == sorted(found, key=lambda item: (-item[1], item[0]))


@given(bm25, cosines, weights, st.sampled_from([0.125, 2.0, 1024.0]))
def test_the_scale_of_bm25_does_not_matter(
    lexical: dict[int, float], semantic: dict[int, float], weight: float, scale: float
) -> None:
    assert fuse({id_: scale * score for id_, score in lexical.items()}, semantic, weight) == fuse(
        lexical, semantic, weight
    )


@given(bm25.filter(bool), cosines, weights, ids)
def test_a_higher_cosine_never_lowers_a_passage(
    lexical: dict[int, float], semantic: dict[int, float], weight: float, raised: int
) -> None:
    def rank(found: list[tuple[int, float]]) -> int:
        return [id_ for id_, _ in found].index(raised)

    before = {**semantic, raised: semantic.get(raised, 0.0)}
    after = {**before, raised: 1.0}
    assert rank(fuse(lexical, after, weight)) <= rank(fuse(lexical, before, weight))


def test_a_weak_embedder_weighs_less() -> None:
    assert 0 < weight_for("wordllama") < weight_for("anything else") == DEFAULT_WEIGHT
