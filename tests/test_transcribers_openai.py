"""The official client against a local server that speaks the same API, over real HTTP."""

from __future__ import annotations

import io
import traceback
import wave
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from audio_storage_system.errors import EngineUnavailable, InvalidInput, ServiceFailed
from audio_storage_system.testing.openai_server import Failure, OpenAIServer
from audio_storage_system.testing.transcribers import TranscriberContract
from audio_storage_system.transcribers import SAMPLE_RATE, TranscribeOptions, Transcriber, Window, open_transcriber
from audio_storage_system.transcribers import openai as module
from audio_storage_system.transcribers.languages import language_code

OPTIONS = TranscribeOptions()
SECRET = "sk-proj-verysecret0123456789"  # noqa: S105


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAIServer]:
    with OpenAIServer(text="hello from the local server", api_key=SECRET) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", SECRET)
        yield server


@pytest.fixture
def transcriber(server: OpenAIServer) -> Iterator[Transcriber]:
    transcriber = open_transcriber("openai:whisper-1")
    yield transcriber
    transcriber.close()


@pytest.fixture
def windows() -> list[Window]:
    rng = np.random.default_rng(3)
    sounds = [rng.standard_normal(int(seconds * SAMPLE_RATE)).astype(np.float32) * 0.1 for seconds in (1, 2.5, 4)]
    silence = np.zeros(SAMPLE_RATE, np.float32)
    return [Window(100.0 + 10 * i, samples) for i, samples in enumerate([*sounds, silence])]


class TestWhisper(TranscriberContract):
    """A model that gives segments and words with times."""


class TestWithoutTimes(TranscriberContract):
    """A model that gives nothing but text."""

    @pytest.fixture
    def transcriber(self, server: OpenAIServer) -> Iterator[Transcriber]:
        transcriber = open_transcriber("openai:gpt-4o-transcribe")
        yield transcriber
        transcriber.close()

    def test_words_lie_in_their_segment(self, loaded: Transcriber, windows: Sequence[Window]) -> None:
        loaded.transcribe(windows[:1], OPTIONS)
        assert not loaded.capabilities.word_times
        super().test_words_lie_in_their_segment(loaded, windows)


def test_each_window_travels_as_wav_with_what_was_asked(
    server: OpenAIServer, transcriber: Transcriber, windows: list[Window]
) -> None:
    transcriber.transcribe(windows[1:2], TranscribeOptions(language="fr", prompt="Ada"))
    request = server.requests[-1]
    assert request.fields["model"] == ["whisper-1"]
    assert request.fields["language"] == ["fr"]
    assert request.fields["prompt"] == ["Ada"]
    assert request.fields["response_format"] == ["verbose_json"]
    assert sorted(request.fields["timestamp_granularities[]"]) == ["segment", "word"]
    with wave.open(io.BytesIO(request.files["file"])) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)
        sent = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32767
    assert np.abs(sent - windows[1].samples).max() < 1e-4


def test_a_translation_is_asked_for_as_one(
    server: OpenAIServer, transcriber: Transcriber, windows: list[Window]
) -> None:
    [result] = transcriber.transcribe(windows[1:2], TranscribeOptions(language="fr", prompt="Ada", translate=True))
    request = server.requests[-1]
    assert request.path == "/v1/audio/translations"
    assert request.fields.keys() == {"model", "prompt", "response_format"}
    assert (result.language, result.segments[0].text) == ("en", "hello from the local server")


def test_times_count_from_the_start_of_the_recording(transcriber: Transcriber, windows: list[Window]) -> None:
    result = transcriber.transcribe(windows[1:2], OPTIONS)[0]
    (segment,) = result.segments
    assert result.language == "en"
    assert (segment.start, segment.end, segment.text) == (110.0, 112.5, "hello from the local server")
    assert [(word.start, word.end) for word in segment.words][:2] == [(110.0, 110.5), (110.5, 111.0)]
    assert segment.confidence == pytest.approx(np.exp(-0.25), abs=1e-4)
    assert (segment.avg_logprob, segment.no_speech_prob, segment.compression_ratio) == (-0.25, 0.01, 1.0)


def test_a_model_without_times_is_asked_once_and_remembered(server: OpenAIServer, windows: list[Window]) -> None:
    with open_transcriber("openai:gpt-4o-transcribe") as transcriber:
        server.requests.clear()
        first = transcriber.transcribe(windows[1:2], OPTIONS)[0]
        transcriber.transcribe(windows[1:2], OPTIONS)
    formats = [request.fields["response_format"][0] for request in server.requests]
    assert formats == ["verbose_json", "json", "json"]
    assert [(s.start, s.end, s.text) for s in first.segments] == [(110.0, 112.5, "hello from the local server")]


def test_silence_has_no_segments(transcriber: Transcriber, windows: list[Window]) -> None:
    result = transcriber.transcribe(windows[-1:], OPTIONS)[0]
    assert result.segments == ()
    assert result.language is None


def test_a_loop_in_the_answer_is_reduced(server: OpenAIServer, transcriber: Transcriber, windows: list[Window]) -> None:
    server.text = "so " + "thank you very much " * 12
    (segment,) = transcriber.transcribe(windows[:1], OPTIONS)[0].segments
    assert segment.text == "so thank you very much"
    assert [word.text for word in segment.words] == segment.text.split()


def test_failures_that_pass_are_tried_again(
    server: OpenAIServer, transcriber: Transcriber, windows: list[Window]
) -> None:
    transcriber.load()
    server.fail_next(Failure(429), Failure(500), Failure(503))
    assert transcriber.transcribe(windows[:1], OPTIONS)[0].segments


def test_failures_that_stay_are_the_service_s(
    server: OpenAIServer, transcriber: Transcriber, windows: list[Window]
) -> None:
    transcriber.load()
    server.requests.clear()
    server.fail_next(*[Failure(500)] * 20)
    with pytest.raises(ServiceFailed, match=r"127\.0\.0\.1") as failure:
        transcriber.transcribe(windows[:1], OPTIONS)
    assert failure.value.retryable
    assert len(server.requests) == 4


def test_a_server_that_does_not_answer_in_time_has_failed(
    server: OpenAIServer, windows: list[Window], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_REQUEST_SECONDS", 0.2)
    monkeypatch.setattr(module, "_RETRIES", 0)
    with open_transcriber("openai:whisper-1") as transcriber:
        server.fail_next(Failure(200, delay_seconds=5))
        with pytest.raises(ServiceFailed, match="timed out"):
            transcriber.transcribe(windows[:1], OPTIONS)


def test_a_window_that_is_refused_is_not_worth_a_retry(
    server: OpenAIServer, transcriber: Transcriber, windows: list[Window]
) -> None:
    transcriber.load()
    server.fail_next(Failure(400))
    with pytest.raises(InvalidInput) as failure:
        transcriber.transcribe(windows[:1], OPTIONS)
    assert not failure.value.retryable


def test_a_wrong_key_is_found_at_loading_and_never_shown(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    wrong = "sk-proj-wrong9876543210"
    monkeypatch.setenv("OPENAI_API_KEY", wrong)
    monkeypatch.setattr(server, "answer", lambda request: (401, {"error": {"message": f"Bad key: {wrong}"}}))
    with pytest.raises(EngineUnavailable, match="Bad key") as failure:
        open_transcriber("openai:whisper-1").load()
    assert wrong not in "".join(traceback.format_exception(failure.value)) + caplog.text
    assert failure.value.retryable


def test_an_unknown_model_is_unavailable(server: OpenAIServer, windows: list[Window]) -> None:
    with open_transcriber("openai:whisper-99") as transcriber, pytest.raises(EngineUnavailable, match="whisper-99"):
        transcriber.transcribe(windows[:1], OPTIONS)


def test_without_key_and_address_it_says_which_variables_to_set() -> None:
    with pytest.raises(EngineUnavailable, match=r"OPENAI_API_KEY.*OPENAI_BASE_URL"):
        open_transcriber("openai:whisper-1").load()


def test_a_server_of_one_s_own_needs_no_key(
    server: OpenAIServer, windows: list[Window], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    server.api_key = "none"
    with open_transcriber("openai:whisper-1") as transcriber:
        assert transcriber.transcribe(windows[:1], OPTIONS)[0].segments


def test_a_server_that_is_not_there_is_found_at_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://user:hidden@127.0.0.1:1/v1")
    with pytest.raises(EngineUnavailable, match=r"http://127\.0\.0\.1:1/v1: Connection error") as failure:
        open_transcriber("openai:whisper-1").load()
    assert "hidden" not in failure.value.message


def test_provenance_names_the_server_without_secrets(transcriber: Transcriber, server: OpenAIServer) -> None:
    transcriber.load()
    parameters = transcriber.parameters(OPTIONS)
    assert parameters["server"] == server.base_url
    assert SECRET not in str(parameters)


def test_languages_are_known_by_name_and_by_code() -> None:
    assert [language_code(name) for name in ("English", "haitian creole", "de", None)] == ["en", "ht", "de", None]


def test_every_language_of_whisper_has_its_name() -> None:
    from faster_whisper.tokenizer import _LANGUAGE_CODES

    from audio_storage_system.transcribers.languages import _CODES

    assert set(_CODES.values()) == set(_LANGUAGE_CODES)
