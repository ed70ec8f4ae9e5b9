"""faster-whisper by real decoding: a tiny model in CTranslate2's format, built here; a real one where it is cached."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audio_storage_system.errors import InvalidInput, UnknownSpec
from audio_storage_system.records import Word
from audio_storage_system.testing.tiny_whisper import build_tiny_whisper
from audio_storage_system.testing.transcribers import TranscriberContract
from audio_storage_system.transcribers import SAMPLE_RATE, TranscribeOptions, Transcriber, Window, open_transcriber
from audio_storage_system.transcribers import faster_whisper as module
from audio_storage_system.transcribers.timing import split_at_pauses

OPTIONS = TranscribeOptions()
Build = Callable[..., Transcriber]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """A transcriber over a tiny model that always decodes to the given text (or listens, where there is none)."""

    def make(text: str | None = None, **options: Any) -> Transcriber:
        folder = build_tiny_whisper(tmp_path / "model", text, **options)
        return module.FasterWhisperTranscriber(str(folder), cpu_threads=1)

    return make


@pytest.fixture
def windows() -> list[Window]:
    """Noise of many lengths and levels, 40 s apart."""
    rng = np.random.default_rng(7)
    shapes = [(1.0, 0.1), (5.3, 0.3), (30.0, 0.2), (0.02, 0.1)]
    sounds = [rng.standard_normal(int(seconds * SAMPLE_RATE)) * level for seconds, level in shapes]
    return [Window(40.0 * i, sound.astype(np.float32)) for i, sound in enumerate(sounds)]


class TestScripted(TranscriberContract):
    @pytest.fixture
    def transcriber(self, build: Build) -> Transcriber:
        return build("hello again world. and then more")


class TestListening(TranscriberContract):
    """Random weights: what is decoded depends on every detail of the sound, so a batch that leaked would show."""

    @pytest.fixture
    def transcriber(self, build: Build) -> Transcriber:
        return build(multilingual=True, seed=1)

    def test_different_sounds_give_different_texts(self, loaded: Transcriber, windows: list[Window]) -> None:
        texts = [" ".join(s.text for s in result.segments) for result in loaded.transcribe(windows, OPTIONS)]
        assert len(set(texts)) == len(windows)


def test_sentences_become_segments_with_timed_words(build: Build, windows: list[Window]) -> None:
    with build("hello again world. and then more") as transcriber:
        first, second = transcriber.transcribe([windows[1]], OPTIONS)[0].segments
    assert (first.text, second.text) == ("hello again world.", "and then more")
    assert [word.text for word in first.words] == ["hello", "again", "world."]
    assert 40.0 <= first.start < first.end <= second.start <= second.end <= 45.301
    assert first.confidence is not None and first.confidence > 0.9
    assert first.avg_logprob is not None and -0.1 < first.avg_logprob <= 0
    assert first.no_speech_prob is not None and first.no_speech_prob < 0.01
    assert all(word.probability is not None and word.probability > 0.9 for word in first.words)


def test_a_translation_is_decoded_as_one(build: Build, windows: list[Window], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    attempt = module._Decoder._attempt

    def heard(self: Any, how: Any, encoded: Any) -> Any:
        prompt = self.whisper.get_prompt(self.tokenizer, self.prompt, without_timestamps=not how.timestamps)
        asked.append("".join(self.whisper.hf_tokenizer.id_to_token(token) for token in prompt))
        return attempt(self, how, encoded)

    monkeypatch.setattr(module._Decoder, "_attempt", heard)
    with build("guten morgen", multilingual=True, language="de") as transcriber:
        said = [transcriber.transcribe([windows[1]], TranscribeOptions(translate=it))[0] for it in (False, True)]
    assert asked == [f"<|startoftranscript|><|de|><|{task}|><|notimestamps|>" for task in ("transcribe", "translate")]
    assert [result.language for result in said] == ["de", "en"]


def test_an_english_model_translates_nothing(build: Build) -> None:
    with build("hello world") as transcriber:
        assert not transcriber.capabilities.translates


def test_a_batch_is_decoded_in_one_go(build: Build, windows: list[Window], monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = count_decoded(monkeypatch)
    with build("hello world") as transcriber:
        transcriber.transcribe(windows, OPTIONS)
    assert sizes == [len(windows)]


def test_only_windows_that_fail_are_decoded_again(
    build: Build, windows: list[Window], monkeypatch: pytest.MonkeyPatch
) -> None:
    with build(multilingual=True, seed=1) as transcriber:
        monkeypatch.setattr(module, "ATTEMPTS", module.ATTEMPTS[:1])
        scores = [result.segments[0].avg_logprob or 0.0 for result in transcriber.transcribe(windows, OPTIONS)]
        monkeypatch.undo()
        monkeypatch.setattr(module, "LOG_PROB_THRESHOLD", float(np.median(scores)))
        monkeypatch.setattr(module, "COMPRESSION_RATIO_THRESHOLD", 100.0)
        sizes = count_decoded(monkeypatch)
        transcriber.transcribe(windows, OPTIONS)
    assert sizes[0] == len(windows)
    assert sizes[1] == len(windows) // 2


def test_a_loop_is_said_once_and_its_compression_ratio_kept(build: Build, windows: list[Window]) -> None:
    with build("thank you very much", loop=True) as transcriber:
        (segment,) = transcriber.transcribe(windows[:1], OPTIONS)[0].segments
    assert segment.text == "thank you very much"
    assert segment.compression_ratio is not None and segment.compression_ratio > module.COMPRESSION_RATIO_THRESHOLD


def test_improbable_text_over_no_speech_is_dropped(build: Build, windows: list[Window]) -> None:
    with build("nothing was said", certainty=0.05, no_speech=True) as transcriber:
        result = transcriber.transcribe(windows[:1], OPTIONS)[0]
    assert result.segments == ()
    assert result.language is None


def test_probable_text_stays_however_little_it_seems_speech(build: Build, windows: list[Window]) -> None:
    with build("something was said", no_speech=True) as transcriber:
        (segment,) = transcriber.transcribe(windows[:1], OPTIONS)[0].segments
    assert segment.text == "something was said"
    assert segment.no_speech_prob is not None and segment.no_speech_prob > module.NO_SPEECH_THRESHOLD


def test_improbable_speech_is_tried_in_every_way_and_kept(
    build: Build, windows: list[Window], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = count_decoded(monkeypatch)
    with build("barely heard words", certainty=0.05) as transcriber:
        segments = transcriber.transcribe(windows[:1], OPTIONS)[0].segments
    assert " ".join(segment.text for segment in segments).startswith("barely heard words")
    assert all(segment.confidence is not None and segment.confidence < 0.37 for segment in segments)
    assert sizes == [1] * len(module.ATTEMPTS)


def test_the_language_is_heard_by_a_multilingual_model(build: Build, windows: list[Window]) -> None:
    with build("guten tag", multilingual=True, language="de") as transcriber:
        assert transcriber.capabilities.detects_language
        assert transcriber.detect_language(windows[0]) == "de"
        assert [result.language for result in transcriber.transcribe(windows[:2], OPTIONS)] == ["de", "de"]
        assert transcriber.transcribe(windows[:1], TranscribeOptions(language="fr"))[0].language == "fr"


def test_windows_in_several_languages_share_a_batch(build: Build, windows: list[Window]) -> None:
    with build(multilingual=True, seed=0) as transcriber:
        heard = [transcriber.detect_language(window) for window in windows]
        assert len(set(heard)) > 1
        assert [result.language for result in transcriber.transcribe(windows, OPTIONS)] == heard


def test_an_english_model_never_claims_another_language(build: Build, windows: list[Window]) -> None:
    with build("bonjour") as transcriber:
        assert transcriber.capabilities.languages == frozenset({"en"})
        assert transcriber.transcribe(windows[:1], TranscribeOptions(language="fr"))[0].language == "en"
    assert open_transcriber("faster-whisper:base.en").capabilities.languages == frozenset({"en"})


def test_what_no_model_can_do_is_refused(build: Build, windows: list[Window]) -> None:
    with pytest.raises(UnknownSpec, match=r"enormous.*base\.en"):
        open_transcriber("faster-whisper:enormous")
    with build("hello", multilingual=True) as transcriber:
        with pytest.raises(InvalidInput, match="xx"):
            transcriber.transcribe(windows[:1], TranscribeOptions(language="xx"))
        with pytest.raises(InvalidInput, match="30 s"):
            transcriber.transcribe([Window(0.0, np.zeros(31 * SAMPLE_RATE, np.float32))], OPTIONS)


def test_memory_that_runs_out_is_a_memory_error(
    build: Build, windows: list[Window], monkeypatch: pytest.MonkeyPatch
) -> None:
    def encode(self: Any, features: Any) -> Any:
        raise RuntimeError("CUDA failed with error out of memory")

    with build("hello") as transcriber:
        monkeypatch.setattr("faster_whisper.WhisperModel.encode", encode)
        with pytest.raises(MemoryError):
            transcriber.transcribe(windows[:1], OPTIONS)


def test_provenance_names_what_shaped_the_text(build: Build) -> None:
    with build("hello") as transcriber:
        parameters = transcriber.parameters(TranscribeOptions(prompt="Ada, Grace"))
    assert parameters["prompt"] == "Ada, Grace"
    assert parameters["device"] == "cpu"
    assert parameters["compute_type"].startswith("int8")
    assert parameters["log_prob_threshold"] == -1.0


def test_pauses_and_sentences_split_words_but_abbreviations_do_not() -> None:
    texts = ["Mr.", "Smith", "left.", "He", "waved"]
    words = [Word(i * 0.5, i * 0.5 + 0.4, text) for i, text in enumerate(texts)]
    late = Word(5.0, 5.4, "twice")
    pieces = [[word.text for word in piece] for piece in split_at_pauses([*words, late])]
    assert pieces == [["Mr.", "Smith", "left."], ["He", "waved"], ["twice"]]


def test_the_silence_before_a_sentence_is_not_given_to_its_first_word() -> None:
    alignment = [
        {"word": word, "start": start, "end": end, "probability": 0.9, "tokens": [0]}
        for word, start, end in [(" so", 0.0, 3.0), (" it", 3.0, 3.2), (" ends", 3.2, 3.5), (".", 3.5, 3.6)]
    ]
    words = module._timed_words(alignment)
    assert [word.text for word in words] == [" so", " it", " ends."]
    assert words[0].start == pytest.approx(2.4)
    assert words[0].end == 3.0


def test_real_weights_understand_real_speech_where_they_are_cached(test_data: Path) -> None:
    from huggingface_hub import try_to_load_from_cache

    if not isinstance(try_to_load_from_cache("Systran/faster-whisper-base", "model.bin"), str):
        pytest.skip("the weights of faster-whisper:base are not in the Hugging Face cache")
    from faster_whisper.audio import decode_audio

    samples = decode_audio(str(test_data / "speech" / "jfk.flac"))
    with open_transcriber("faster-whisper:base") as transcriber:
        (result,) = transcriber.transcribe([Window(0.0, samples)], OPTIONS)
        assert transcriber.detect_language(Window(0.0, samples)) == "en"
    text = re.sub(r"[^a-z ]", "", " ".join(segment.text for segment in result.segments).lower())
    assert "ask not what your country can do for you" in text
    assert all(word.end - word.start < 3 for segment in result.segments for word in segment.words)


def count_decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many windows each call of the decoder gets, filled in as it is called."""
    sizes: list[int] = []
    attempt = module._Decoder._attempt

    def counted(self: Any, settings: Any, encoded: Any) -> Any:
        sizes.append(encoded.shape[0])
        return attempt(self, settings, encoded)

    monkeypatch.setattr(module._Decoder, "_attempt", counted)
    return sizes
