"""Loops: what a recogniser repeats without end is reduced, what people repeat is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio_storage_system.transcribers.loops import text_without_loops, without_loops


@pytest.mark.parametrize(
    ("heard", "said"),
    [
        ("so " + "thank you very much " * 20, "so thank you very much"),
        ("we go home. " + "Thank you. " * 6 + "and then", "we go home. Thank you. and then"),
        ("no " * 40, "no"),
        ("I think that " * 7 + "I think", "I think that"),
        ("Yes, yes, YES! " * 8, "Yes,"),
        ("ご視聴ありがとうございました" * 10, "ご視聴ありがとうございました"),
        ("我们走吧。" + "谢谢观看" * 12, "我们走吧。谢谢观看"),
        ("ขอบคุณ" * 10, "ขอบคุณ"),
        ("... " * 30, "..."),
    ],
)
def test_a_loop_is_reduced_to_its_first_round(heard: str, said: str) -> None:
    assert text_without_loops(heard) == said


@pytest.mark.parametrize(
    "said",
    [
        "no, no, no, no, that is wrong",
        "very very very very long",
        "Thank you. Thank you. Thank you.",
        "ask not what your country can do for you, ask what you can do for your country",
        "はい、はい、はい",
        "哈哈哈哈哈哈",
        "one two three one two three one two three",
        "",
    ],
)
def test_what_people_repeat_stays(said: str) -> None:
    assert text_without_loops(said) == said


def test_units_of_any_kind_are_reduced_by_their_text() -> None:
    units = [(i, "see you") for i in range(9)] + [(9, "later")]
    assert without_loops(units, lambda unit: unit[1]) == [(0, "see you"), (9, "later")]


@given(st.lists(st.sampled_from("abcdefgh"), max_size=30))
def test_words_without_repetition_are_untouched(letters: list[str]) -> None:
    words = [f"{letter}{i}" for i, letter in enumerate(letters)]
    assert without_loops(words) == words


@given(st.lists(st.sampled_from(["tick", "tock", "bell"]), max_size=40))
def test_nothing_is_invented_and_no_word_is_lost_altogether(words: list[str]) -> None:
    reduced = without_loops(words)
    remaining = iter(words)
    assert all(word in remaining for word in reduced)
    assert set(reduced) == set(words)


@given(
    st.lists(st.sampled_from(["ab", "cd", "ef", "gh", "ij"]), min_size=1, max_size=5, unique=True), st.integers(8, 30)
)
def test_every_loop_of_words_ends_up_as_one_round(words: list[str], rounds: int) -> None:
    assert without_loops(words * rounds) == words
