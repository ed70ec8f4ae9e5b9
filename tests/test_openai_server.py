"""The official client of OpenAI against our own server: what it asks for is answered, and archived."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from audio_storage_system import AudioStorageSystem
from audio_storage_system.testing.tiny_whisper import build_tiny_whisper
from serving import serving

# The client's own word on its method for translations, which servers still have.
pytestmark = pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("openai") / "archive"


@pytest.fixture(scope="module")
def url(place: Path) -> Iterator[str]:
    """A server whose archive listens with the bundled recogniser."""
    with serving(lambda: AudioStorageSystem(place, transcriber="pocketsphinx")) as url:
        yield f"{url}/v1"


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def archive(place: Path, url: str) -> Iterator[AudioStorageSystem]:
    """What the server writes to, seen by another program."""
    with AudioStorageSystem(place) as storage:
        yield storage


def test_what_is_transcribed_is_archived_and_found(
    client: openai.OpenAI, archive: AudioStorageSystem, note: Path
) -> None:
    with note.open("rb") as file:
        raw = client.audio.transcriptions.with_raw_response.create(
            model="whisper-1", file=file, extra_body={"metadata": '{"user": "john", "n": 2}'}
        )
    answer: Any = raw.parse()
    assert "remember to buy milk" in answer.text
    assert (answer.usage.type, answer.usage.seconds) == ("duration", pytest.approx(12.21, abs=0.01))
    assert [language.code for language in answer.languages] == ["en"]
    assert raw.headers["x-audio-id"] == str(answer.audio_id)
    assert raw.headers["x-transcript-id"] == str(answer.transcript_id)
    assert raw.headers["x-audio-storage-engine"] == "pocketsphinx"
    recording = archive.get_recording(answer.audio_id)
    assert (recording.original_name, recording.metadata) == ("voice_note.flac", {"user": "john", "n": 2})
    with archive.open_audio(answer.audio_id) as kept:
        assert kept.read() == note.read_bytes()
    assert archive.get_transcript(answer.transcript_id).transcription == answer.text
    hit = archive.search_similar_audio("milk and bread", limit=1)[0]
    assert hit.audio_id == answer.audio_id and hit.similarity == hit.similarity, "it has its vectors too"


def ask(client: openai.OpenAI, path: Path, **arguments: Any) -> Any:
    with path.open("rb") as file:
        return client.audio.transcriptions.create(**{"model": "whisper-1", "file": file, **arguments})


def test_verbose_json_has_the_fields_of_the_documentation(client: openai.OpenAI, note: Path) -> None:
    answer = ask(client, note, response_format="verbose_json", timestamp_granularities=["word", "segment"])
    assert (answer.task, answer.language, answer.duration) == ("transcribe", "english", pytest.approx(12.21, abs=0.01))
    assert " ".join(segment.text for segment in answer.segments) == answer.text
    for number, segment in enumerate(answer.segments):
        fields = {"id", "seek", "start", "end", "text", "tokens", "temperature"}
        assert segment.model_fields_set == fields | {"avg_logprob", "compression_ratio", "no_speech_prob"}
        assert segment.id == number and 0 <= segment.start < segment.end <= answer.duration
        assert segment.avg_logprob <= 0 and segment.compression_ratio > 0
    assert " ".join(word.word for word in answer.words) == answer.text
    assert all(word.start <= word.end for word in answer.words)
    assert (answer.usage.type, answer.usage.seconds) == ("duration", answer.duration)


def test_segments_and_words_are_there_as_asked_for(url: str, note: Path) -> None:
    shapes = [
        ([], {"segments"}),
        (["word"], {"words"}),
        (["segment"], {"segments"}),
        (["word", "segment"], {"segments", "words"}),
    ]
    for wanted, present in shapes:
        fields = {"model": "whisper-1", "response_format": "verbose_json", "timestamp_granularities[]": wanted}
        answer = httpx.post(f"{url}/audio/transcriptions", data=fields, files={"file": note.read_bytes()}, timeout=60)
        assert answer.json().keys() & {"segments", "words"} == present


def test_plain_formats_are_no_json(client: openai.OpenAI, archive: AudioStorageSystem, note: Path) -> None:
    said = ask(client, note)
    texts = {format_: ask(client, note, response_format=format_) for format_ in ("text", "srt", "vtt")}
    assert texts["text"] == said.text + "\n"
    for format_ in ("srt", "vtt"):
        assert texts[format_] == archive.export(said.audio_id, format_, said.transcript_id)
    assert texts["vtt"].startswith("WEBVTT") and "00:00:00,220 --> " in texts["srt"]


def test_as_long_as_nothing_tells_speakers_apart_there_is_one(client: openai.OpenAI, note: Path) -> None:
    answer = ask(
        client, note, model="gpt-4o-transcribe-diarize", response_format="diarized_json", chunking_strategy="auto"
    )
    assert (answer.task, {segment.speaker for segment in answer.segments}) == ("transcribe", {"A"})
    assert {segment.type for segment in answer.segments} == {"transcript.text.segment"}
    assert len({segment.id for segment in answer.segments}) == len(answer.segments) > 1
    assert " ".join(segment.text for segment in answer.segments) == answer.text


def test_events_add_up_to_the_text(client: openai.OpenAI, call: Path) -> None:
    *deltas, done = ask(client, call, stream=True)
    assert {event.type for event in deltas} == {"transcript.text.delta"} and len(deltas) > 1
    assert done.type == "transcript.text.done"
    assert "".join(event.delta for event in deltas) == done.text
    usage = done.usage
    assert (usage.type, usage.total_tokens) == ("tokens", usage.input_tokens + usage.output_tokens)
    assert ask(client, call).transcript_id == done.transcript_id
    again = list(ask(client, call, stream=True, response_format="text"))
    assert [event.delta for event in again[:-1]] == [event.delta for event in deltas], "from the archive as well"


def test_events_with_speakers_have_segments(client: openai.OpenAI, call: Path) -> None:
    *events, done = ask(client, call, stream=True, response_format="diarized_json")
    deltas, segments = events[::2], events[1::2]
    assert {event.type for event in segments} == {"transcript.text.segment"}
    assert [event.segment_id for event in deltas] == [event.id for event in segments]
    assert " ".join(event.text for event in segments) == done.text


def test_the_asynchronous_client(url: str, call: Path) -> None:
    async def work() -> tuple[Any, list[Any], Any]:
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
            asked: dict[str, Any] = {"model": "gpt-4o-mini-transcribe", "file": ("call.flac", call.read_bytes())}
            said = await client.audio.transcriptions.create(**asked)
            events = [event async for event in await client.audio.transcriptions.create(**asked, stream=True)]
            return said, events, await client.embeddings.create(model="text-embedding-3-small", input="hello")

    said, events, embedded = asyncio.run(work())
    assert events[-1].text == said.text and events[-1].transcript_id == said.transcript_id
    assert len(embedded.data[0].embedding) == 256


def test_other_ways_to_send_a_form(url: str, note: Path) -> None:
    """As scripts with curl and other libraries do."""
    data = {"model": "whisper-1", "language": "", "prompt": "", "temperature": "0", "stream": "False"}
    files = {"file": ("C:\\sounds\\note.flac", note.read_bytes(), "text/plain")}
    answer = httpx.post(f"{url}/audio/transcriptions", data=data, files=files, timeout=60)
    assert (answer.status_code, answer.json()["languages"]) == (200, [{"code": "en"}])
    data = {"model": "whisper-1", "response_format": "verbose_json", "timestamp_granularities": "word"}
    answer = httpx.post(f"{url}/audio/transcriptions", data=data, files=files, timeout=60)
    assert answer.json()["words"] and "segments" not in answer.json()
    for strategy in ({"chunking_strategy": '{"type": "server_vad"}'}, {"chunking_strategy[type]": "server_vad"}):
        answer = httpx.post(
            f"{url}/audio/transcriptions", data={"model": "whisper-1", **strategy}, files=files, timeout=60
        )
        assert answer.status_code == 200


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_curl(url: str, note: Path) -> None:
    form = ["-F", f"file=@{note}", "-F", "model=whisper-1", "-F", "response_format=text"]
    command = ["curl", "-sS", "-H", "Authorization: Bearer sk-anything", *form, f"{url}/audio/transcriptions"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert said.startswith("remember to buy milk") and said.endswith("\n")
    stream = subprocess.run(
        [*command[:-1], "-F", "stream=true", command[-1]], capture_output=True, text=True, check=True
    )
    last = stream.stdout.strip().rpartition("data: ")[2]
    assert json.loads(last)["text"] == said.strip()


def test_an_archive_transcribes_with_another_archive(
    url: str, archive: AudioStorageSystem, tmp_path: Path, note: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our own engine `openai` is a client of this API as well."""
    before = archive.stats()["recordings"]
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    with AudioStorageSystem(tmp_path / "other", transcriber="openai:whisper-1") as other:
        added = other.add(note)
        assert added.transcript_id is not None
        version, segments = other.get_transcript(added.transcript_id), other.segments(added.transcript_id)
        assert (version.engine, version.language) == ("openai", "en")
        assert "remember to buy milk" in version.transcription
        assert all(segment.words and segment.confidence for segment in segments)
        with pytest.raises(Exception, match="cannot translate"):
            other.generate_transcript(added, translate=True)
        vectors = other.generate_text_embeddings(["one"])
    assert vectors.shape == (1, 256)
    assert archive.stats()["recordings"] > before


# With a Whisper model, which the bundled recogniser is not


@pytest.fixture(scope="module")
def german(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server whose archive hears nothing but a German greeting."""
    folder = tmp_path_factory.mktemp("german")
    model = build_tiny_whisper(folder / "model", "guten morgen allerseits", multilingual=True, language="de")
    with serving(lambda: AudioStorageSystem(folder / "archive", transcriber=f"faster-whisper:{model}")) as url:
        yield f"{url}/v1"


def test_a_translation_is_archived_and_not_followed(german: str, note: Path) -> None:
    with openai.OpenAI(base_url=german, api_key="none", max_retries=0) as client:
        said = ask(client, note, response_format="verbose_json", timestamp_granularities=["word", "segment"])
        asked: dict[str, Any] = {"model": "whisper-1", "file": ("note.flac", note.read_bytes())}
        translated: Any = client.audio.translations.create(**asked, response_format="verbose_json")
        plain = client.audio.translations.create(**asked)
        srt: Any = client.audio.translations.create(**asked, response_format="srt")
    assert (said.language, said.words[0].word) == ("german", "guten")
    assert (translated.task, translated.language, translated.text) == ("translate", "english", said.text)
    assert said.segments[0].avg_logprob < 0 and said.segments[0].no_speech_prob < 0.01
    assert translated.segments[0].text.startswith("guten") and plain.text == said.text
    assert "00:00:0" in str(srt) and "guten morgen" in str(srt)
    assert translated.audio_id == said.audio_id and translated.transcript_id != said.transcript_id
    assert ask(openai.OpenAI(base_url=german, api_key="none"), note).transcript_id == said.transcript_id


def test_what_cannot_translate_says_so(client: openai.OpenAI, note: Path) -> None:
    with pytest.raises(openai.BadRequestError) as failure, note.open("rb") as file:
        client.audio.translations.create(model="whisper-1", file=file)
    assert (failure.value.code, failure.value.type) == ("unsupported", "invalid_request_error")
    assert "cannot translate" in failure.value.message
