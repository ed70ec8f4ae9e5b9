"""Grouping segments into passages."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio_storage_system.catalogue.analysis import count_words
from audio_storage_system.passages import CUT_AT, SPLIT_AT, TARGET_WORDS, Grouper, group
from audio_storage_system.records import Passage, Segment

TARGET = 20.0


def words(count: int) -> str:
    return " ".join(["word"] * count)


def segment(id_: int, text: str, start: float, end: float, speaker: str | None = None) -> Segment:
    return Segment(start, end, text, speaker=speaker, id=id_)


def even(*sizes: int, speakers: str = "") -> list[Segment]:
    """Segments of so many words, one after the other without a pause."""
    names = speakers or "A" * len(sizes)
    return [segment(i + 1, words(n), i * 5.0, i * 5.0 + 5, names[i]) for i, n in enumerate(sizes)]


def spans(passages: list[Passage]) -> list[tuple[int, int]]:
    return [(p.first_segment_id, p.last_segment_id) for p in passages]


@st.composite
def transcripts(draw: st.DrawFn) -> list[Segment]:
    """Segments of any size, pause and speaker, some empty, some far too long."""
    found: list[Segment] = []
    now = 0.0
    for id_ in range(1, draw(st.integers(0, 30)) + 1):
        count = draw(st.integers(0, 15) | st.sampled_from([30, 45, 130]))
        end = draw(st.sampled_from([".", "", "?"]))
        now += draw(st.sampled_from([0.0, 0.0, 0.3, 2.0]))
        found.append(segment(id_, words(count) + end if count else " ", now, now + 1, draw(st.sampled_from("AB"))))
        now += 1
    return found


def test_consecutive_segments_make_a_passage_of_about_the_target() -> None:
    passages = group(even(*[5] * 12), target_words=TARGET)
    assert spans(passages) == [(1, 4), (5, 8), (9, 12)]
    assert [p.sequence for p in passages] == [0, 1, 2]
    assert (passages[1].start, passages[1].end, passages[1].text) == (20.0, 40.0, words(20))


def test_a_short_transcript_is_one_passage_and_an_empty_one_none() -> None:
    assert spans(group(even(5, 5), target_words=TARGET)) == [(1, 2)]
    assert group([]) == group([segment(1, " \n", 0, 1)]) == []


def test_a_passage_rather_ends_where_the_speaker_changes() -> None:
    assert spans(group(even(*[5] * 8, speakers="AAABBBBB"), target_words=TARGET))[0] == (1, 3)
    assert spans(group(even(*[5] * 8, speakers="AAAAABBB"), target_words=TARGET))[0] == (1, 5)


def test_a_passage_rather_ends_at_a_pause() -> None:
    said = even(*[5] * 8)
    later = [segment(s.id or 0, s.text, s.start + 2, s.end + 2, s.speaker) for s in said[3:]]
    assert spans(group(said[:3] + later, target_words=TARGET))[0] == (1, 3)


def test_a_speaker_change_far_from_the_target_is_no_reason_to_end() -> None:
    assert spans(group(even(*[5] * 8, speakers="ABBBBBBB"), target_words=TARGET))[0] == (1, 4)


def test_a_segment_up_to_twice_the_target_stays_whole() -> None:
    assert spans(group(even(40), target_words=TARGET)) == [(1, 1)]
    assert spans(group(even(5, 39, 5), target_words=TARGET)) == [(1, 1), (2, 2), (3, 3)]


def test_a_far_longer_segment_is_split_after_sentences_with_times_by_its_text() -> None:
    text = " ".join(f"{words(9)} end{i}." for i in range(8))
    passages = group([segment(7, text, 100.0, 180.0)], target_words=TARGET)
    assert [(p.first_segment_id, p.last_segment_id) for p in passages] == [(7, 7)] * 4
    assert [p.text.split()[-1] for p in passages] == ["end1.", "end3.", "end5.", "end7."]
    assert [p.start for p in passages] == pytest.approx([100, 120, 140, 160], abs=1)
    assert [p.end for p in passages] == pytest.approx([120, 140, 160, 180], abs=1)


def test_a_far_longer_segment_without_sentences_is_split_between_words() -> None:
    passages = group([segment(1, words(100), 0.0, 10.0)], target_words=TARGET)
    assert len(passages) == 5
    assert {word for p in passages for word in p.text.split()} == {"word"}


def test_a_far_longer_segment_of_unspaced_writing_is_split_between_characters() -> None:
    passages = group([segment(1, "議" * 200, 0.0, 10.0)], target_words=TARGET)
    assert len(passages) == 5
    assert "".join(p.text for p in passages) == "議" * 200


def test_white_space_is_no_text_to_split() -> None:
    passages = group([segment(1, words(30) + " " * 5000 + words(30), 0.0, 10.0)], target_words=TARGET)
    assert all(p.text for p in passages) and len(passages) == 3


def test_unspaced_writing_makes_passages_of_the_same_length_in_words() -> None:
    said = [segment(i, "会議の予算を話す", float(i), i + 1.0) for i in range(1, 21)]
    assert spans(group(said, target_words=TARGET))[0] == (1, 5)


def test_overlapping_segments_end_with_the_last_to_end() -> None:
    [passage] = group([segment(1, "a b", 0.0, 9.0), segment(2, "c", 1.0, 2.0)])
    assert (passage.start, passage.end) == (0.0, 9.0)


def test_segments_without_ids_are_refused() -> None:
    with pytest.raises(ValueError, match="stored"):
        group([Segment(0, 1, "a")])


def test_the_shipped_size_fits_the_window_of_a_small_sentence_model() -> None:
    largest = SPLIT_AT * TARGET_WORDS
    assert TARGET_WORDS * CUT_AT * 1.3 < 256 and largest < 256


@given(transcripts(), st.lists(st.integers(0, 30), max_size=4))
def test_pushing_piece_by_piece_equals_grouping_at_once(said: list[Segment], cuts: list[int]) -> None:
    grouper = Grouper(target_words=TARGET)
    edges = [0, *sorted(cuts), len(said)]
    closed = [p for a, b in pairwise(edges) for p in grouper.push(said[a:b])]
    assert closed + grouper.finish() == group(said, target_words=TARGET)


@given(transcripts(), transcripts())
def test_closed_passages_never_change_whatever_is_said_later(said: list[Segment], later: list[Segment]) -> None:
    closed = Grouper(target_words=TARGET).push(said)
    more = [segment(100 + (s.id or 0), s.text, 99 + s.start, 99 + s.end, s.speaker) for s in later]
    assert group(said + more, target_words=TARGET)[: len(closed)] == closed


@given(transcripts(), st.integers(0, 30))
def test_going_on_after_a_crash_gives_the_same_passages(said: list[Segment], crash: int) -> None:
    stored = Grouper(target_words=TARGET).push(said[:crash])
    last = stored[-1].last_segment_id if stored else 0
    resumed = Grouper(sequence=len(stored), target_words=TARGET)
    rest = resumed.push([s for s in said[:crash] if (s.id or 0) > last]) + resumed.push(said[crash:])
    assert stored + rest + resumed.finish() == group(said, target_words=TARGET)


@given(transcripts())
def test_every_word_is_in_exactly_one_passage_in_order(said: list[Segment]) -> None:
    passages = group(said, target_words=TARGET)
    assert " ".join(p.text for p in passages).split() == " ".join(s.text for s in said).split()
    assert [p.sequence for p in passages] == list(range(len(passages)))
    assert all(count_words(p.text) <= SPLIT_AT * TARGET * 1.3 for p in passages)
    assert all(p.start <= p.end for p in passages)
    assert [p.first_segment_id for p in passages] == sorted(p.first_segment_id for p in passages)
