"""Speech windows: all the speech, at most 30 s each, cut in pauses, never overlapping, always the same."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audio_storage_system.audio import SpeechWindow, SpeechWindows, speech_windows, windows
from sounds import RATE, Samples, noise, silence, spoken

FRAME = 512


class LoudnessDetector:
    """Takes every loud frame for speech: what must come out can then be reckoned."""

    def __init__(self) -> None:
        self._held = np.zeros(0, np.float32)
        self.samples = 0

    @property
    def duration(self) -> float:
        return self.samples / RATE

    def feed(self, block: Samples) -> Samples:
        self.samples += len(block)
        self._held = np.concatenate([self._held, block])
        whole = len(self._held) // FRAME * FRAME
        frames, self._held = self._held[:whole].reshape(-1, FRAME), self._held[whole:]
        return np.array(np.abs(frames).max(axis=1) > 0.01, np.float32)

    def finish(self) -> Samples:
        rest, self._held = self._held, self._held[:0]
        return np.array([np.abs(rest).max() > 0.01] if len(rest) else [], np.float32)


@pytest.fixture
def by_loudness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "SpeechDetector", LoudnessDetector)


def cut(samples: Samples, step: int = RATE) -> Iterator[Samples]:
    return (samples[place : place + step] for place in range(0, len(samples), step))


def recording(turns: list[tuple[float, float]]) -> Samples:
    """Pairs of seconds of speech and of silence after it."""
    parts = [part for index, (talk, rest) in enumerate(turns) for part in (noise(talk, seed=index), silence(rest))]
    return np.concatenate([np.zeros(0, np.float32), *parts])


TURNS = st.lists(st.tuples(st.floats(0.2, 45.0), st.floats(0.0, 12.0)), max_size=8)


@settings(max_examples=40, deadline=None)
@given(turns=TURNS)
def test_windows_hold_all_speech_in_order_without_overlap(turns: list[tuple[float, float]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "SpeechDetector", LoudnessDetector)
        samples = recording(turns)
        made = speech_windows(cut(samples))
        found = list(made)
    inside = np.zeros(len(samples), bool)
    for number, window in enumerate(found):
        first = round(window.start * RATE)
        assert window.sequence == number
        assert 0 < len(window.samples) <= 30 * RATE
        assert np.array_equal(window.samples, samples[first : first + len(window.samples)])
        assert not inside[first : first + len(window.samples)].any()
        inside[first : first + len(window.samples)] = True
    assert [window.start for window in found] == sorted(window.start for window in found)
    assert inside[np.abs(samples) > 0.01].all()
    assert made.duration == pytest.approx(len(samples) / RATE)
    assert sum(span.duration for span in made.speech) >= sum(talk for talk, _ in turns) * 0.95 - 1e-6


@settings(max_examples=20, deadline=None)
@given(turns=TURNS, step=st.integers(200, 200_000), skip=st.integers(0, 5))
def test_neither_block_size_nor_skipping_changes_a_window(
    turns: list[tuple[float, float]], step: int, skip: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "SpeechDetector", LoudnessDetector)
        samples = recording(turns)
        whole = list(speech_windows([samples]))
        pieces = list(speech_windows(cut(samples, step), skip=skip))
    assert [(w.sequence, w.start, w.samples.tobytes()) for w in pieces] == [
        (w.sequence, w.start, w.samples.tobytes()) for w in whole[skip:]
    ]


def bounds(made: SpeechWindows) -> list[tuple[float, float]]:
    return [(window.start, window.end) for window in made]


@pytest.mark.usefixtures("by_loudness")
def test_a_long_speech_is_cut_in_its_pause_even_an_early_one() -> None:
    late = bounds(speech_windows([recording([(26.0, 0.6), (20.0, 0.0)])]))
    assert len(late) == 2
    assert 26.0 <= late[0][1] <= 26.6
    assert 26.0 <= late[1][0] <= 26.6
    early = bounds(speech_windows([recording([(7.0, 0.3), (40.0, 0.0)])]))
    assert 7.0 <= early[0][1] <= 7.3


@pytest.mark.usefixtures("by_loudness")
def test_of_several_late_pauses_the_longest_is_taken() -> None:
    found = bounds(speech_windows([recording([(25.5, 0.25), (1.0, 0.5), (1.0, 0.25), (20.0, 0.0)])]))
    assert 26.75 <= found[0][1] <= 27.25


@pytest.mark.usefixtures("by_loudness")
def test_speech_without_any_pause_is_cut_where_it_is_quietest() -> None:
    samples = noise(50.0)
    samples[round(24.5 * RATE) : round(24.7 * RATE)] *= 0.3
    found = bounds(speech_windows([samples]))
    assert 24.5 <= found[0][1] <= 24.7
    assert found[1][0] == found[0][1]


@pytest.mark.usefixtures("by_loudness")
def test_short_utterances_share_a_window_and_a_long_pause_ends_it() -> None:
    together = bounds(speech_windows([recording([(2.0, 2.0), (2.0, 2.0), (2.0, 2.0)])]))
    assert len(together) == 1
    apart = bounds(speech_windows([recording([(2.0, 8.0), (2.0, 8.0)])]))
    assert len(apart) == 2
    assert apart[0][1] < 2.5
    assert 9.5 < apart[1][0] < 10.0


@pytest.mark.usefixtures("by_loudness")
def test_shorter_windows_can_be_asked_for() -> None:
    found = bounds(speech_windows([noise(60.0)], max_seconds=10.0))
    assert len(found) >= 6
    assert all(end - start <= 10.0 for start, end in found)


@pytest.mark.usefixtures("by_loudness")
def test_a_click_makes_no_window_and_silence_none() -> None:
    click = np.concatenate([silence(5.0), noise(0.03), silence(5.0)])
    made = speech_windows([click])
    assert list(made) == []
    assert made.speech == []
    assert made.duration == pytest.approx(10.03)
    assert list(speech_windows([])) == []


@pytest.mark.usefixtures("by_loudness")
def test_real_time_sound_gives_its_windows_as_it_comes() -> None:
    given: list[int] = []

    def live() -> Iterator[Samples]:
        for second, block in enumerate(cut(recording([(2.0, 8.0), (30.0, 0.0)]))):
            given.append(second)
            yield block

    first = next(speech_windows(live()))
    assert first.end < 3.0
    assert len(given) <= 8


def test_real_speech_is_cut_between_words(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("voice")
    sentences = [spoken(text, folder) for text in ("We begin with the budget.", "Then we speak about the new house.")]
    talk = np.concatenate([part for _ in range(12) for sentence in sentences for part in (sentence, silence(0.35))])
    found: list[SpeechWindow] = list(speech_windows(cut(talk)))
    assert len(found) >= 2
    for one, other in pairwise(found):
        around = talk[round((one.end - 0.05) * RATE) : round((other.start + 0.05) * RATE)]
        assert float(np.abs(around).max()) < 0.05, one.end
