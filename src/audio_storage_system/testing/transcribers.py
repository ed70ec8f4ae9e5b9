"""What every transcriber must do, as tests to inherit.

class TestMine(TranscriberContract):
    @pytest.fixture
    def transcriber(self): ...              # not loaded yet
    @pytest.fixture
    def windows(self): ...                  # at least two, some with speech that the transcriber understands
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import pytest

from audio_storage_system.records import Segment
from audio_storage_system.registry import split_spec
from audio_storage_system.transcribers import (
    SAMPLE_RATE,
    TRANSCRIBERS,
    Listener,
    TranscribeOptions,
    Transcriber,
    Window,
    WindowResult,
)

OPTIONS = TranscribeOptions()
SCORE_TOLERANCE = 1e-3


class TranscriberContract:
    """Inherit, and give the fixtures `transcriber` and `windows`."""

    @pytest.fixture
    def loaded(self, transcriber: Transcriber) -> Iterator[Transcriber]:
        with transcriber:
            yield transcriber

    def test_its_spec_opens_the_same_engine(self, transcriber: Transcriber) -> None:
        assert isinstance(transcriber, TRANSCRIBERS.load(transcriber.spec))
        assert split_spec(transcriber.spec) == (transcriber.engine, transcriber.model)

    def test_loading_and_closing_twice_does_nothing(self, transcriber: Transcriber, windows: Sequence[Window]) -> None:
        transcriber.load()
        transcriber.load()
        assert len(transcriber.transcribe(windows[:1], OPTIONS)) == 1
        transcriber.close()
        transcriber.close()

    def test_every_window_has_its_result_in_order(self, loaded: Transcriber, windows: Sequence[Window]) -> None:
        results = transcribe(loaded, windows)
        assert len(results) == len(windows)
        assert any(result.segments for result in results)
        for window, result in zip(windows, results, strict=True):
            assert all(window.start <= s.start <= s.end <= window.end + 0.001 for s in result.segments)
            assert [s.start for s in result.segments] == sorted(s.start for s in result.segments)

    def test_segments_carry_text_and_scores(self, loaded: Transcriber, windows: Sequence[Window]) -> None:
        for segment in all_segments(transcribe(loaded, windows)):
            assert segment.text == segment.text.strip() != ""
            assert segment.confidence is None or 0 <= segment.confidence <= 1

    def test_words_lie_in_their_segment(self, loaded: Transcriber, windows: Sequence[Window]) -> None:
        segments = all_segments(transcribe(loaded, windows))
        assert all(segment.words for segment in segments) or not loaded.capabilities.word_times
        for segment in segments:
            assert all(segment.start - 0.5 <= w.start <= w.end <= segment.end + 0.5 for w in segment.words)
            assert [word.start for word in segment.words] == sorted(word.start for word in segment.words)
            assert all(word.text == word.text.strip() != "" for word in segment.words)
            assert all(word.probability is None or 0 <= word.probability <= 1 for word in segment.words)

    def test_a_window_gives_the_same_in_any_batch(self, loaded: Transcriber, windows: Sequence[Window]) -> None:
        together = transcribe(loaded, windows)
        alone = [loaded.transcribe([window], OPTIONS)[0] for window in windows]
        backwards = transcribe(loaded, windows[::-1])[::-1]
        for one, two, three in zip(together, alone, backwards, strict=True):
            assert_same(one, two)
            assert_same(one, three)

    def test_several_threads_get_the_same(self, loaded: Transcriber, windows: Sequence[Window]) -> None:
        expected = [loaded.transcribe([window], OPTIONS)[0] for window in windows]
        with ThreadPoolExecutor(3) as pool:
            found = list(pool.map(lambda window: loaded.transcribe([window], OPTIONS)[0], windows))
        for one, two in zip(expected, found, strict=True):
            assert_same(one, two)

    def test_no_windows_give_no_results(self, loaded: Transcriber) -> None:
        assert loaded.transcribe([], OPTIONS) == []

    def test_digital_silence_is_no_failure(self, loaded: Transcriber) -> None:
        silence = Window(5.0, np.zeros(SAMPLE_RATE, np.float32))
        assert len(loaded.transcribe([silence], OPTIONS)) == 1

    def test_a_listener_understands_piece_after_piece(self, loaded: Transcriber, windows: Sequence[Window]) -> None:
        with closing(loaded.listen(OPTIONS)) as listener:
            heard = [listen(listener, window) for window in windows]
        assert any(result.segments for _, result in heard)
        for window, (partials, result) in zip(windows, heard, strict=True):
            assert all(window.start <= s.start <= s.end <= window.end + 0.001 for s in result.segments)
            assert all(segment.text == segment.text.strip() != "" for segment in result.segments)
            assert bool("".join(partials)) == (loaded.capabilities.partials and bool(result.segments))

    def test_a_piece_that_was_broken_off_leaves_nothing(self, loaded: Transcriber, windows: Sequence[Window]) -> None:
        speech, silence = windows[0], Window(0.0, np.zeros(SAMPLE_RATE, np.float32))
        with closing(loaded.listen(OPTIONS)) as listener:
            expected = listen(listener, silence)
            listener.begin(speech.start)
            listener.hear(speech.samples)
            assert_same(listen(listener, silence)[1], expected[1])

    def test_a_listener_may_be_closed_twice(self, loaded: Transcriber) -> None:
        listener = loaded.listen(OPTIONS)
        listener.begin(0.0)
        listener.close()
        listener.close()

    def test_no_language_is_claimed_that_it_does_not_know(self, loaded: Transcriber, windows: Sequence[Window]) -> None:
        known = loaded.capabilities.languages
        found = {result.language for result in transcribe(loaded, windows)} | {loaded.detect_language(windows[0])}
        assert known is None or found <= {*known, None}
        assert loaded.capabilities.detects_language or loaded.detect_language(windows[0]) is None

    def test_its_parameters_are_json(self, loaded: Transcriber) -> None:
        parameters = dict(loaded.parameters(TranscribeOptions(language="en", prompt="names")))
        assert json.loads(json.dumps(parameters)) == parameters
        assert parameters["language"] == "en"
        assert parameters["prompt"] == "names"


def transcribe(transcriber: Transcriber, windows: Sequence[Window]) -> list[WindowResult]:
    """All `windows`, in batches as large as the transcriber takes."""
    size = transcriber.capabilities.batch_size
    batches = [windows[i : i + size] for i in range(0, len(windows), size)]
    return [result for batch in batches for result in transcriber.transcribe(batch, OPTIONS)]


def listen(listener: Listener, window: Window, seconds: float = 0.25) -> tuple[list[str], WindowResult]:
    """What is understood while a window is heard bit by bit, and in the end."""
    listener.begin(window.start)
    step = round(seconds * SAMPLE_RATE)
    samples = window.samples
    partials = [listener.hear(samples[begin : begin + step]) for begin in range(0, len(samples), step)]
    return partials, listener.end()


def all_segments(results: Sequence[WindowResult]) -> list[Segment]:
    """Of every window, in order."""
    return [segment for result in results for segment in result.segments]


def assert_same(one: WindowResult, two: WindowResult) -> None:
    """The same language, texts and times; scores may differ by rounding, which depends on the shape of a batch."""
    assert one.language == two.language
    assert [_said(segment) for segment in one.segments] == [_said(segment) for segment in two.segments]
    for a, b in zip(one.segments, two.segments, strict=True):
        assert _scores(a) == pytest.approx(_scores(b), abs=SCORE_TOLERANCE)


def _said(segment: Segment) -> tuple[float, float, str, list[tuple[float, float, str]]]:
    return segment.start, segment.end, segment.text, [(w.start, w.end, w.text) for w in segment.words]


def _scores(segment: Segment) -> list[float]:
    scores = [segment.confidence, segment.avg_logprob, segment.no_speech_prob, segment.compression_ratio]
    return [score or 0.0 for score in [*scores, *(word.probability for word in segment.words)]]
