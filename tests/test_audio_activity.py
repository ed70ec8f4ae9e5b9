"""Voice activity: no lost speech, the same answer however the sound is cut into blocks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audio_storage_system.audio import load_audio, resample, speech_spans, speech_windows
from audio_storage_system.audio.activity import SpeechDetector
from audio_storage_system.audio.waveform import Waveform
from audio_storage_system.records import Span
from sounds import RATE, Samples, noise, silence, spoken, tone

SENTENCE = "The meeting about the yearly budget begins at seven o'clock in the large room."


@pytest.fixture(scope="module")
def sentence(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    return spoken(SENTENCE, tmp_path_factory.mktemp("voice"))


def covered(spans: list[Span], samples: Samples) -> float:
    """The part of the loud frames that lies within `spans`."""
    frames = np.square(samples[: len(samples) // 512 * 512].reshape(-1, 512)).sum(axis=1)
    times = (np.arange(len(frames)) + 0.5) * 512 / RATE
    loud = times[frames > 0.01 * np.quantile(frames, 0.95)]
    return float(np.mean([any(span.start <= time <= span.end for span in spans) for time in loud]))


def telephone(samples: Samples) -> Samples:
    """300 to 3,400 Hz at 8 kHz, 8-bit µ-law."""
    narrow = np.asarray(resample(Waveform(samples, RATE), 8_000))
    spectrum, hertz = np.fft.rfft(narrow), np.fft.rfftfreq(len(narrow), 1 / 8_000)
    band = np.fft.irfft(np.where((hertz > 300) & (hertz < 3_400), spectrum, 0), len(narrow))
    companded = np.round(127 * np.sign(band) * np.log1p(255 * np.abs(band)) / np.log(256)) / 127
    expanded = np.sign(companded) * (256 ** np.abs(companded) - 1) / 255
    return np.asarray(resample(Waveform(expanded, 8_000), RATE))


def test_speech_between_silence_is_found_where_it_is(sentence: Samples) -> None:
    spans = speech_spans([silence(4.0), sentence, silence(4.0)])
    assert spans[0].start == pytest.approx(4.0, abs=0.3)
    assert spans[-1].end == pytest.approx(4.0 + len(sentence) / RATE, abs=0.5)
    assert covered(spans, np.concatenate([silence(4.0), sentence])) > 0.95


@pytest.mark.parametrize("gain", [1.0, 0.1, 0.01, 0.003])
def test_quiet_speech_is_found_as_well(sentence: Samples, gain: float) -> None:
    quiet = np.rint(sentence * gain * 32767).astype(np.float32) / np.float32(32767)
    assert covered(speech_spans([quiet]), quiet) > 0.95


def test_quiet_speech_is_found_soon_after_loud_speech(sentence: Samples) -> None:
    both = np.concatenate([sentence, silence(1.0), sentence * np.float32(0.03)])
    later = [span for span in speech_spans([both]) if span.start > len(sentence) / RATE + 0.5]
    assert sum(span.duration for span in later) > 0.8 * len(sentence) / RATE


def test_telephone_speech_and_speech_in_noise_are_found(sentence: Samples) -> None:
    assert covered(speech_spans([telephone(sentence)]), sentence) > 0.9
    noisy = sentence + noise(len(sentence) / RATE, level=float(np.std(sentence)))
    assert covered(speech_spans([noisy[: len(sentence)]]), sentence) > 0.9


def test_a_single_word_between_digital_silence_is_found(tmp_path: Path) -> None:
    for word in ("eight", "five", "no", "yes"):
        assert speech_spans([np.concatenate([silence(2.0), spoken(word, tmp_path), silence(2.0)])]), word


@pytest.mark.parametrize("sound", [silence(8.0), noise(8.0), noise(8.0, level=0.001), tone(8.0), tone(8.0, 60.0)])
def test_what_is_no_speech_has_no_spans(sound: Samples) -> None:
    assert speech_spans([sound]) == []


def test_no_real_word_is_outside_the_windows(test_data: Path) -> None:
    for line in (test_data / "speech" / "manifest.jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        audio = np.asarray(load_audio(test_data / "speech" / entry["path"]))
        windows = [Span(window.start, window.end) for window in speech_windows([audio])]
        assert covered(windows, audio) > 0.9, entry["path"]
        for word in entry.get("word_times") or []:
            middle = (word["start_sec"] + word["end_sec"]) / 2
            assert any(window.start <= middle <= window.end for window in windows), (entry["path"], word)


def test_speech_fills_most_of_each_real_utterance(test_data: Path) -> None:
    for path in sorted((test_data / "speech").glob("*-*.flac")):
        audio = np.asarray(load_audio(path))
        assert covered(speech_spans([audio]), audio) > 0.8, path.name


def probabilities(samples: Samples, cuts: list[int]) -> Samples:
    detector = SpeechDetector()
    parts = [detector.feed(block) for block in np.split(samples, sorted(cut % len(samples) for cut in cuts))]
    return np.concatenate([*parts, detector.finish()])


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 10**6), max_size=12), st.integers(1, 100_000))
def test_the_size_of_the_blocks_changes_nothing(cuts: list[int], length: int) -> None:
    samples = noise(7.0, seed=length)[:length]
    whole = probabilities(samples, [])
    assert len(whole) == -(-length // 512)
    assert np.array_equal(probabilities(samples, cuts), whole)
