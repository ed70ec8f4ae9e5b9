"""Models that clients name: those that the operator offers, on every way into the server."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from audio_storage_system import AudioStorageSystem
from audio_storage_system.embedders import TEXT_EMBEDDERS
from audio_storage_system.registry import Registry
from audio_storage_system.testing import scripted
from audio_storage_system.transcribers import TRANSCRIBERS
from serving import serving
from sounds import integers, noise, wav
from talking import talking

SOUND = wav(noise(0.5))
FILE = {"file": ("a.wav", SOUND)}
TUS = {"Tus-Resumable": "1.0.0", "Upload-Length": "9"}
REFUSED = ["faster-whisper:/etc", "openai:gpt-4o-transcribe", "scripted:other", "someone/large"]
# The first is what the archive is set to; "calls" is what the operator called so.
OFFERED = ["scripted", "base", "faster-whisper:tiny", "pocketsphinx", "whisper-1", "gpt-4o-transcribe", "calls", ""]

Answer = tuple[int | str, str]
Way = Callable[[str, str], Answer]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home = tmp_path_factory.mktemp("models") / "archive"
    patch = pytest.MonkeyPatch()
    patch.setitem(TRANSCRIBERS.builtin, scripted.SPEC, scripted.FACTORY)  # type: ignore[arg-type]
    patch.setitem(TEXT_EMBEDDERS.builtin, scripted.SPEC, scripted.TEXT_FACTORY)  # type: ignore[arg-type]
    settings: dict[str, Any] = {"transcriber": "scripted", "openai_models": "calls=scripted:calls"}
    settings["text_embedder"] = "scripted:one"
    with AudioStorageSystem(home, **settings) as storage:
        path = home.parent / "first.wav"
        path.write_bytes(wav(noise(1.0)))
        storage.add(path)
    with serving(lambda: AudioStorageSystem(home, **settings)) as address:
        yield address
    patch.undo()


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the registry of transcribers was asked for: no spec is read, loaded or opened before."""
    asked: list[str] = []
    load = Registry.load

    def noted(self: Registry, spec: str) -> Any:
        asked.append(spec)
        return load(self, spec)

    monkeypatch.setattr(Registry, "load", noted)
    return asked


def post(path: str, **how: Any) -> Callable[[str], Answer]:
    def asked(url: str) -> Answer:
        answer = httpx.post(f"{url}/api/v1{path}", timeout=30, **how)
        return answer.status_code, answer.text

    return asked


def said(model: str) -> str:
    return f"whisper_model {b64encode(model.encode()).decode()}" if model else ""


def live(field: str) -> Way:
    def asked(url: str, model: str) -> Answer:
        with talking(url, sample_rate=16_000, **{field: model}) as talk:
            return heard(talk.connection, "started")

    return asked


def realtime(url: str, model: str) -> Answer:
    session = {"type": "transcription", "audio": {"input": {"transcription": {"model": model}}}}
    with talking(url, path="/v1/realtime", intent="transcription") as talk:
        talk.until("session.created")
        talk.say(type="session.update", session=session)
        return heard(talk.connection, "session.updated")


def heard(connection: ClientConnection, wanted: str) -> Answer:
    """The type of the message that says how it went, and the message."""
    while True:
        try:
            text = str(connection.recv(30))
        except ConnectionClosed as closed:  # pragma: no cover - a failure of the test
            return "closed", str(closed)
        if (kind := json.loads(text)["type"]) in (wanted, "error"):
            return kind, text


JSON: dict[str, Callable[[str], Callable[[str], Answer]]] = {
    "recordings": lambda model: post("/recordings", files=FILE, data={"whisper_model": model}),
    "uploads": lambda model: post("/uploads", json={"size": 9, "name": "a.wav", "whisper_model": model}),
    "tus": lambda model: post("/uploads", headers={**TUS, "Upload-Metadata": said(model)}),
    "retranscribe": lambda model: post("/retranscribe", json={"audio_ids": [1], "whisper_model": model or None}),
    "retranscribe one": lambda model: post("/recordings/1/retranscribe", json={"whisper_model": model or None}),
    "search": lambda model: post("/search/audio", files=FILE, data={"whisper_model": model}),
}
WAYS: dict[str, Way] = {
    **{name: (lambda url, model, made=made: made(model)(url)) for name, made in JSON.items()},
    "live": live("whisper_model"),
    "live transcriber": live("transcriber"),
    "realtime": realtime,
}


@pytest.mark.parametrize("model", REFUSED)
@pytest.mark.parametrize("way", WAYS)
def test_what_nobody_offers_is_refused_before_anything_is_opened(
    url: str, opened: list[str], way: str, model: str
) -> None:
    status, text = WAYS[way](url, model)
    assert status in (400, "error"), text
    assert "unknown_spec" in text and "whisper-1" in text, text
    assert model not in opened


@pytest.mark.parametrize("model", OFFERED)
@pytest.mark.parametrize("way", [way for way in WAYS if way not in ("search", "live transcriber")])
def test_what_is_offered_is_taken(url: str, way: str, model: str) -> None:
    status, text = WAYS[way](url, model)
    assert status in (200, 201, 202, "started", "session.updated"), text


@pytest.mark.parametrize(
    "spec",
    [
        "fastembed:/etc",
        "fastembed:someone/large",
        "sentence-transformers:a/b",
        "openai:text-embedding-3-small",
        "user:f",
    ],
)
@pytest.mark.parametrize("kind", ["transcript", "audio"])
def test_an_embedder_that_nobody_offers_is_refused_before_anything_is_opened(
    url: str, opened: list[str], kind: str, spec: str
) -> None:
    wanted = {"embedder": spec, "kind": kind}
    planned = httpx.get(f"{url}/api/v1/reembed/plan", params=wanted, timeout=60)
    for answer in (planned, httpx.post(f"{url}/api/v1/reembed", json=wanted, timeout=60)):
        assert (answer.status_code, answer.json()["code"]) == (400, "unknown_spec"), answer.text
    assert spec not in opened


def test_an_embedder_that_is_offered_is_taken(url: str) -> None:
    named = [("transcript", spec) for spec in ("wordllama", "auto", "fastembed:BAAI/bge-small-en-v1.5", "scripted:one")]
    for kind, spec in [*named, ("audio", "acoustic"), ("audio", "auto")]:
        answer = httpx.post(f"{url}/api/v1/reembed", json={"embedder": spec, "kind": kind}, timeout=60)
        assert (answer.status_code, answer.json()["options"]["embedder"]) == (202, spec), answer.text


def test_what_is_asked_for_is_what_the_job_does(url: str) -> None:
    """A size stays as it was written, OpenAI's ids mean the archive's own, and others what the operator says."""
    wanted = {
        "base": "base",
        "whisper-1": "scripted",
        "calls": "scripted:calls",
        "openai/whisper-base": "faster-whisper:base",
    }
    for model, spec in wanted.items():
        _, text = WAYS["retranscribe one"](url, model)
        assert json.loads(text)["options"]["whisper_model"] == spec


def test_examples_are_understood_by_what_is_offered(url: str) -> None:
    for model in ("scripted", "calls", "whisper-1"):
        answer = httpx.post(
            f"{url}/api/v1/search/audio", files=FILE, data={"whisper_model": model, "by": "transcript"}, timeout=30
        )
        assert answer.status_code == 200, answer.text


def test_a_session_of_the_realtime_api_keeps_its_model(url: str) -> None:
    """What is refused changes nothing: sound that comes afterwards is recorded as before."""
    sound = integers(noise(0.5)).tobytes()
    with talking(url, path="/v1/realtime", intent="transcription") as talk:
        talk.until("session.created")
        refused = {"type": "transcription", "audio": {"input": {"transcription": {"model": "faster-whisper:/etc"}}}}
        talk.say(type="session.update", session=refused)
        assert heard(talk.connection, "session.updated")[0] == "error"
        talk.say(type="input_audio_buffer.append", audio=b64encode(sound).decode())
        talk.say(type="input_audio_buffer.commit")
        assert talk.until("input_audio_buffer.committed")


def test_in_python_every_spec_works(tmp_path: Path, scripted_engine: object, call: Path) -> None:
    with AudioStorageSystem(tmp_path / "archive", transcriber="scripted") as storage:
        audio_id = storage.add(call, whisper_model="scripted:other")
        assert [version.whisper_model for version in storage.transcripts(audio_id)] == ["scripted:other"]
