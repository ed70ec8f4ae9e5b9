"""Texts to vectors, and which models there are, asked for with the official client of OpenAI."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest

from audio_storage_system import AudioStorageSystem
from audio_storage_system.records import EmbeddingKind
from serving import serving

TEXTS = ["good morning", "the heating broke down", "guten Morgen"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("embeddings") / "archive"


@pytest.fixture(scope="module")
def client(place: Path) -> Iterator[openai.OpenAI]:
    with serving(lambda: AudioStorageSystem(place, openai_models="calls=pocketsphinx")) as url:
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            yield client


@pytest.fixture
def archive(place: Path, client: openai.OpenAI) -> Iterator[AudioStorageSystem]:
    with AudioStorageSystem(place) as storage:
        yield storage


def test_vectors_are_those_that_the_archive_searches_by(client: openai.OpenAI, archive: AudioStorageSystem) -> None:
    before = archive.stats()
    answer = client.embeddings.create(model="text-embedding-3-small", input=TEXTS)
    assert (answer.object, answer.model) == ("list", "text-embedding-3-small")
    assert [item.index for item in answer.data] == [0, 1, 2]
    for item, text in zip(answer.data, TEXTS, strict=True):
        np.testing.assert_allclose(item.embedding, archive.generate_text_embedding(text), atol=1e-6)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 5
    assert archive.stats() == before, "nothing of it is kept"


def test_numbers_or_bytes(client: openai.OpenAI) -> None:
    plain = client.embeddings.create(model="text-embedding-ada-002", input="hello", encoding_format="float")
    asked = {"model": "text-embedding-ada-002", "input": "hello", "encoding_format": "base64"}
    coded = httpx.post(f"{client.base_url}embeddings", json=asked).json()["data"][0]["embedding"]
    bytes_ = np.frombuffer(base64.b64decode(coded, validate=True), "<f4")
    np.testing.assert_allclose(bytes_, plain.data[0].embedding, atol=1e-6)
    by_default = httpx.post(f"{client.base_url}embeddings", json={"model": "text-embedding-ada-002", "input": "hello"})
    np.testing.assert_allclose(by_default.json()["data"][0]["embedding"], bytes_, atol=1e-6)


def test_a_space_by_its_own_name_and_its_dimensions(client: openai.OpenAI, archive: AudioStorageSystem) -> None:
    [space] = [space for space in archive.embedding_spaces() if space.kind is EmbeddingKind.TRANSCRIPT]
    one = client.embeddings.create(model=space.model, input="hello", dimensions=space.dimension, user="somebody")
    two = client.embeddings.create(model="text-embedding-3-large", input="hello")
    assert one.data[0].embedding == two.data[0].embedding and len(one.data[0].embedding) == space.dimension


def test_as_many_as_the_limit_allows(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model="text-embedding-3-small", input=[f"text {n}" for n in range(2048)])
    assert len(answer.data) == 2048
    one = client.embeddings.create(model="text-embedding-3-small", input="text 2047")
    np.testing.assert_allclose(answer.data[2047].embedding, one.data[0].embedding, atol=1e-6)


def test_the_models_are_listed_and_each_can_be_looked_up(client: openai.OpenAI, archive: AudioStorageSystem) -> None:
    listed = {model.id for model in client.models.list()}
    known = {"whisper-1", "gpt-4o-transcribe-diarize", "gpt-transcribe", "text-embedding-3-small", "calls"}
    spaces = {space.model for space in archive.embedding_spaces() if space.kind is EmbeddingKind.TRANSCRIPT}
    assert known | spaces | {"Systran/faster-whisper-small", "pocketsphinx"} <= listed
    for id_ in listed | {"small", "openai/whisper-large-v3", "gpt-4o-mini-transcribe-2025-12-15"}:
        model = client.models.retrieve(id_)
        assert (model.id, model.object) == (id_, "model")
    for id_ in ("gpt-5", "someone/else", "x" * 3_000):
        with pytest.raises(openai.NotFoundError) as failure:
            client.models.retrieve(id_)
        assert failure.value.code == "model_not_found"


def test_a_list_of_models_that_is_none_is_said(tmp_path: Path) -> None:
    with serving(lambda: AudioStorageSystem(tmp_path / "archive", openai_models="whisper-1")) as url:
        answer = httpx.get(f"{url}/v1/models")
    assert answer.status_code == 400 and "openai_models" in answer.json()["error"]["message"]
