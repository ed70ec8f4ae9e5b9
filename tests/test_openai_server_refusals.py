"""What the OpenAI-compatible server refuses, in the words of that API, with nothing kept of it."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from audio_storage_system import AudioStorageSystem
from audio_storage_system.testing import scripted
from audio_storage_system.transcribers import TRANSCRIBERS
from serving import serving
from sounds import noise, wav

SOUND = wav(noise(0.5))
FOLDER = "/etc/ssl"  # a folder that is none of a client's business


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home = tmp_path_factory.mktemp("refusals") / "archive"
    patch = pytest.MonkeyPatch()
    patch.setitem(TRANSCRIBERS.builtin, scripted.SPEC, scripted.FACTORY)  # type: ignore[arg-type]
    with serving(lambda: AudioStorageSystem(home, transcriber="scripted", max_file_bytes=1_000_000)) as url:
        yield url
    patch.undo()


@pytest.fixture
def server(url: str) -> Iterator[httpx.Client]:
    """After the test there is still nothing in the archive."""
    with httpx.Client(base_url=url, timeout=30) as client:
        yield client
        assert client.get("/api/v1/stats").json()["recordings"] == 0


def post(server: httpx.Client, data: Any, path: str = "transcriptions", **files: Any) -> httpx.Response:
    return server.post(f"/v1/audio/{path}", data=data, files=files or {"file": ("a.wav", SOUND)})


def fault(answer: httpx.Response, status: int = 400) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.json().keys() == {"error"}
    error: dict[str, Any] = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["message"]
    return error


UNSUPPORTED, INVALID, UNKNOWN = "unsupported_value", "invalid_value", "unknown_parameter"


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"response_format": "yaml"}, "response_format", INVALID),
        ({"response_format": ["json", "text"]}, "response_format", "duplicate_parameter"),
        ({"response_format": "srt", "timestamp_granularities[]": "word"}, "timestamp_granularities[]", UNSUPPORTED),
        ({"timestamp_granularities[]": "word"}, "timestamp_granularities[]", UNSUPPORTED),
        (
            {"response_format": "verbose_json", "timestamp_granularities[]": "phoneme"},
            "timestamp_granularities[]",
            INVALID,
        ),
        ({"response_format": "srt", "stream": "true"}, "response_format", UNSUPPORTED),
        ({"response_format": "verbose_json", "stream": "true"}, "response_format", UNSUPPORTED),
        ({"stream": "maybe"}, "stream", INVALID),
        ({"include[]": "logprobs"}, "include[]", UNSUPPORTED),
        ({"include[]": "everything"}, "include[]", INVALID),
        ({"temperature": "0.4"}, "temperature", UNSUPPORTED),
        ({"temperature": "2"}, "temperature", INVALID),
        ({"temperature": "nan"}, "temperature", INVALID),
        ({"temperature": "warm"}, "temperature", INVALID),
        ({"language": "klingon"}, "language", INVALID),
        ({"language": "en-US"}, "language", INVALID),
        ({"language": "en", "languages[]": "en"}, "languages[]", INVALID),
        ({"languages[]": ["en", "de"]}, "languages[]", UNSUPPORTED),
        ({"known_speaker_names[]": "agent"}, "known_speaker_names[]", UNSUPPORTED),
        ({"known_speaker_references[]": "data:audio/wav;base64,AAAA"}, "known_speaker_references[]", UNSUPPORTED),
        ({"chunking_strategy": "never"}, "chunking_strategy", INVALID),
        ({"chunking_strategy": "[1]"}, "chunking_strategy", INVALID),
        ({"chunking_strategy": '{"type": "server_vad", "threshold": 0.5}'}, "chunking_strategy", UNSUPPORTED),
        (
            {"chunking_strategy[type]": "server_vad", "chunking_strategy[threshold]": "1"},
            "chunking_strategy",
            UNSUPPORTED,
        ),
        ({"chunking_strategy[type]": "other"}, "chunking_strategy", INVALID),
        ({"prompt": "x" * 8_001}, "prompt", INVALID),
        ({"prompt": "a\0b"}, "prompt", INVALID),
        ({"store": "perhaps"}, "store", INVALID),
        ({"store": "false", "metadata": '{"user": "john"}'}, "metadata", INVALID),
        ({"metadata": "john"}, "metadata", INVALID),
        ({"metadata": "[1]"}, "metadata", INVALID),
        ({"metadata": "[" * 100_000}, "metadata", INVALID),
        ({"vad_filter": "true"}, "vad_filter", UNKNOWN),
        ({"x" * 1000: "1"}, "x" * 100, UNKNOWN),
        ({"model": ["whisper-1", "gpt-transcribe"]}, "model", "duplicate_parameter"),
        ({"model": ""}, "model", "missing_required_parameter"),
    ],
)
def test_what_cannot_be_is_refused_by_name(server: httpx.Client, fields: Any, param: str, code: str) -> None:
    error = fault(post(server, {"model": "whisper-1", **fields}))
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code)
    assert len(error["message"]) < 300


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": "diarized_json"}, "response_format"),
        ({"language": "de"}, "language"),
        ({"stream": "true"}, "stream"),
        ({"timestamp_granularities[]": "word"}, "timestamp_granularities[]"),
    ],
)
def test_a_translation_has_fewer_fields(server: httpx.Client, fields: Any, param: str) -> None:
    assert fault(post(server, {"model": "whisper-1", **fields}, "translations"))["param"] == param


@pytest.mark.parametrize(
    "model",
    [
        "gpt-5",
        "someone/a-model-of-900-GB",
        FOLDER,
        f"faster-whisper:{FOLDER}",
        "../../models/x",
        "openai:whisper-1",
        "scripted:other",
        "text-embedding-3-small",
        "m" * 5_000,
    ],
)
def test_only_models_that_the_archive_offers(server: httpx.Client, model: str) -> None:
    error = fault(post(server, {"model": model}), 404)
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert len(error["message"]) < 300


def test_what_is_no_audio(server: httpx.Client) -> None:
    for content in (b"", b"this is a text", b"RIFF\0\0\0\0WAVE", bytes(2000), b"<html>" * 100):
        for store in ("true", "false"):
            answer = post(server, {"model": "whisper-1", "store": store}, file=("a.wav", content, "audio/wav"))
            error = fault(answer)
            assert (error["code"], error["type"]) == ("not_audio", "invalid_request_error")
            assert "a.wav" in error["message"]


def test_a_file_that_is_too_large(server: httpx.Client) -> None:
    answer = post(server, {"model": "whisper-1"}, file=("a.wav", wav(noise(40))))
    assert fault(answer, 413)["code"] == "too_large"


def test_forms_that_are_none(server: httpx.Client) -> None:
    given: list[dict[str, Any]] = [
        {"json": {"model": "whisper-1"}},
        {"data": {"model": "whisper-1"}},
        {"content": b"x", "headers": {"content-type": "multipart/form-data"}},
        {"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=y"}},
        {"files": {"other": SOUND}, "data": {"model": "whisper-1"}},
        {"files": [("file", SOUND), ("file", SOUND)], "data": {"model": "whisper-1"}},
        {"files": {"file": SOUND, "model": b"whisper-1"}},
        {"files": {"file": SOUND}, "data": {"model": "whisper-1", "file": "a.wav"}},
        {"files": {"file": SOUND, "more": SOUND}, "data": {"model": "whisper-1"}},
        {"files": {"file": SOUND}, "data": {"model": "whisper-1", **{f"field{n}": "1" for n in range(100)}}},
        {"files": {"file": SOUND}, "data": {"model": "whisper-1", "prompt": "x" * ((1 << 20) + 1000)}},
        {"files": {"file": SOUND}},
    ]
    for one in given:
        error = fault(server.post("/v1/audio/transcriptions", **one))
        assert error["type"] == "invalid_request_error"


def test_a_body_that_ends_early_is_no_recording(server: httpx.Client) -> None:
    form: dict[str, Any] = {"data": {"model": "whisper-1"}, "files": {"file": SOUND}}
    request = server.build_request("POST", "/v1/audio/transcriptions", **form)
    body = request.read()
    head = f"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: {request.url.netloc.decode()}\r\n"
    head += "".join(f"{name}: {request.headers[name]}\r\n" for name in ("content-type", "content-length"))
    with socket.create_connection((str(request.url.host), request.url.port or 80)) as connection:
        connection.sendall(f"{head}\r\n".encode() + body[: len(body) // 2])


def test_a_path_or_method_that_is_none(server: httpx.Client) -> None:
    assert fault(server.get("/v1/nothing"), 404)["code"] == "not_found"
    assert fault(server.get("/v1/embeddings"), 405)["type"] == "invalid_request_error"
    assert server.get("/api/v1/nothing").headers["content-type"] == "application/problem+json"


def test_names_from_outside_stay_names(url: str, tmp_path: Path) -> None:
    with serving(lambda: AudioStorageSystem(tmp_path / "archive", transcriber="pocketsphinx")) as own:
        for name in ("../../../etc/passwd.wav", "..\\..\\x.wav", "\u202egnp.wav", "a" * 300 + ".wav"):
            with openai.OpenAI(base_url=f"{own}/v1", api_key="none", max_retries=0) as client:
                said: Any = client.audio.transcriptions.create(model="whisper-1", file=(name, SOUND))
            assert said.audio_id == 1
    with AudioStorageSystem(tmp_path / "archive") as storage:
        assert storage.get_recording(1).original_name == "passwd.wav"


# Embeddings


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a", "  "]}, "input"),
        ({"input": [1, 2, 3]}, "input"),
        ({"input": [[1, 2], [3]]}, "input"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": "word " * 8192}, "input"),
        ({"input": ["word " * 4000] * 60}, "input"),
        ({"input": "a", "dimensions": 64}, "dimensions"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
        ({"input": "a", "truncate": True}, "truncate"),
        ({}, "input"),
    ],
)
def test_embeddings_that_cannot_be(server: httpx.Client, fields: dict[str, Any], param: str) -> None:
    error = fault(server.post("/v1/embeddings", json={"model": "text-embedding-3-small", **fields}))
    assert (error["type"], error["param"]) == ("invalid_request_error", param)


def test_embeddings_of_models_that_are_none(server: httpx.Client) -> None:
    for model in ("whisper-1", "acoustic", "text-embedding-9", "no such"):
        error = fault(server.post("/v1/embeddings", json={"model": model, "input": "a"}), 404)
        assert error["code"] == "model_not_found"


def test_json_that_is_none(server: httpx.Client) -> None:
    for content in (b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, json.dumps({"input": "a"}).encode()):
        answer = server.post("/v1/embeddings", content=content, headers={"content-type": "application/json"})
        assert fault(answer)["type"] == "invalid_request_error"
    huge = json.dumps({"model": "text-embedding-3-small", "input": "a" * 9_000_000})
    answer = server.post("/v1/embeddings", content=huge, headers={"content-type": "application/json"})
    assert fault(answer, 413)["code"] == "too_large"
