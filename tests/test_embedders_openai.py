"""Text embeddings from a service, through the official client over real HTTP."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import numpy as np
import pytest

from audio_storage_system.embedders import TextEmbedder, open_text_embedder
from audio_storage_system.embedders.openai import MAX_CHARACTERS, MAX_TEXT_CHARACTERS, OpenAIEmbedder
from audio_storage_system.errors import AudioStorageSystemError, EngineUnavailable, ServiceFailed, UnknownSpec
from audio_storage_system.testing.embedders import TextEmbedderContract
from audio_storage_system.testing.openai_server import Failure, OpenAIServer, bag_of_words

MODEL = "a-text-embedder"
DIMENSION = 64


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAIServer]:
    with OpenAIServer(api_key="sk-very-secret", models=(MODEL,), default_dimensions=DIMENSION) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", server.api_key)
        yield server


@pytest.fixture
def embedder(server: OpenAIServer) -> TextEmbedder:
    return OpenAIEmbedder(MODEL)


def inputs(server: OpenAIServer) -> list[list[str]]:
    return [request.fields["input"] for request in server.requests]


class TestOpenAI(TextEmbedderContract):
    @pytest.fixture
    def embedder(self, embedder: TextEmbedder) -> TextEmbedder:
        return embedder


def test_the_dimension_is_learned_from_the_service_once(server: OpenAIServer, embedder: TextEmbedder) -> None:
    assert (embedder.dimension, embedder.dimension) == (DIMENSION, DIMENSION)
    assert len(server.requests) == 1


def test_vectors_are_those_of_the_service_in_the_order_of_the_texts(
    server: OpenAIServer, embedder: TextEmbedder
) -> None:
    texts = [f"word{number} again" for number in range(1200)]
    expected = np.stack([bag_of_words(text, DIMENSION) for text in texts])
    np.testing.assert_allclose(embedder.embed_batch(texts), expected, atol=1e-6)
    assert [len(part) for part in inputs(server)] == [512, 512, 176]


def test_vectors_are_put_in_order_by_their_index(
    server: OpenAIServer, embedder: TextEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = server.answer

    def reversed_answer(request: object) -> tuple[int, dict[str, list[object]]]:
        status, body = answer(request)  # type: ignore[arg-type]
        return status, {**body, "data": body["data"][::-1]}

    monkeypatch.setattr(server, "answer", reversed_answer)
    np.testing.assert_allclose(embedder.embed_batch(["one", "two"])[0], bag_of_words("one", DIMENSION), atol=1e-6)


def test_a_missing_vector_is_a_failure_of_the_service(
    server: OpenAIServer, embedder: TextEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = server.answer

    def shorter_answer(request: object) -> tuple[int, dict[str, list[object]]]:
        status, body = answer(request)  # type: ignore[arg-type]
        return status, {**body, "data": body["data"][1:]}

    monkeypatch.setattr(server, "answer", shorter_answer)
    with pytest.raises(ServiceFailed, match="1 vectors came back for 2 texts"):
        embedder.embed_batch(["one", "two"])


def test_long_texts_are_shared_out_over_several_requests(server: OpenAIServer, embedder: TextEmbedder) -> None:
    texts = [f"{number} ".ljust(MAX_TEXT_CHARACTERS, "x") for number in range(60)]
    rows = embedder.embed_batch(texts)
    assert [text for part in inputs(server) for text in part] == texts
    assert max(sum(map(len, part)) for part in inputs(server)) <= MAX_CHARACTERS
    np.testing.assert_allclose(rows[59], bag_of_words(texts[59], DIMENSION), atol=1e-6)


def test_an_endless_text_is_cut_and_a_blank_one_sent_as_a_full_stop(
    server: OpenAIServer, embedder: TextEmbedder
) -> None:
    embedder.embed_batch(["x" * 50_000, "  ", "bad \ud800"])
    assert inputs(server) == [["x" * MAX_TEXT_CHARACTERS, ".", "bad ?"]]


def test_a_passing_failure_is_tried_again(server: OpenAIServer, embedder: TextEmbedder) -> None:
    server.fail_next(Failure(429), Failure(500))
    assert embedder.embed("hello").shape == (DIMENSION,)
    assert len(server.requests) == 3


def test_a_lasting_failure_is_reported_with_its_status(server: OpenAIServer, embedder: TextEmbedder) -> None:
    server.fail_next(*[Failure(500)] * 3)
    failed = failure(ServiceFailed, embedder)
    assert "HTTP 500 scripted" in failed.message
    assert failed.retryable


def test_an_unknown_model_is_named(server: OpenAIServer) -> None:
    assert "has no model no-such-model" in failure(EngineUnavailable, OpenAIEmbedder("no-such-model")).message


def test_a_refused_key_is_never_shown(server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-another-secret")
    assert "refused the key (HTTP 401)" in failure(EngineUnavailable, OpenAIEmbedder(MODEL)).message


def test_a_service_that_is_not_there_is_reported_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://someone:sk-secret@127.0.0.1:{port}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    started = time.monotonic()
    message = failure(EngineUnavailable, OpenAIEmbedder(MODEL)).message
    assert f"http://127.0.0.1:{port} cannot be reached" in message
    assert time.monotonic() - started < 30


def test_a_server_of_ones_own_needs_no_key(server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    server.api_key = "none"
    assert OpenAIEmbedder(MODEL).embed("hello").shape == (DIMENSION,)


def test_without_a_key_the_message_says_what_to_set() -> None:
    with pytest.raises(EngineUnavailable, match="set OPENAI_API_KEY"):
        OpenAIEmbedder(MODEL).embed("hello")


def test_a_model_must_be_named() -> None:
    with pytest.raises(UnknownSpec, match="text-embedding-3-small"):
        open_text_embedder("openai")


def failure(expected: type[AudioStorageSystemError], embedder: TextEmbedder) -> AudioStorageSystemError:
    """The error that embedding ends in, which must not contain a key."""
    with pytest.raises(expected) as caught:
        embedder.embed("hello")
    assert "secret" not in f"{caught.value} {caught.value.details}"
    return caught.value
