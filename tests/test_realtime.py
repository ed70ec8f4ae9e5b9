"""OpenAI's realtime API, spoken by OpenAI's own client."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection, RealtimeConnection
from openai.types.realtime import RealtimeServerEvent
from websockets.exceptions import ConnectionClosed

import audio_storage_system
import patience
from audio_storage_system import AudioStorageSystem, load_audio
from audio_storage_system.audio import resample
from audio_storage_system.server.live.g711 import TABLES, expanded
from audio_storage_system.server.live.realtime_items import Item
from serving import as_bearer, serving
from sounds import integers, tone, wav
from talking import Talk, samples_in, talking_as

RATE = 24_000
# OpenAI's client opens its sockets in a way that the library under it advises against since its version 17.1.
pytestmark = pytest.mark.filterwarnings("ignore:connect\\(\\) must be used as a context manager:DeprecationWarning")

TRANSCRIPTION = "conversation.item.input_audio_transcription"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AudioStorageSystem]:
    with AudioStorageSystem(tmp_path_factory.mktemp("realtime") / "archive") as storage:
        yield storage


@pytest.fixture(scope="module")
def key(archive: AudioStorageSystem) -> str:
    """OpenAI's clients always send one."""
    return archive.tokens.create(scopes=["write"]).secret


@pytest.fixture(scope="module")
def url(archive: AudioStorageSystem, key: str) -> Iterator[str]:
    with serving(lambda: AudioStorageSystem(archive.home)) as address:
        yield address


@contextmanager
def conversing(url: str, key: str, **headers: str) -> Iterator[Talk]:
    with talking_as({**as_bearer(key), **headers}, url, path="/v1/realtime", intent="transcription") as talk:
        yield talk


@pytest.fixture(scope="module")
def spoken() -> bytes:
    """Two sentences, as these clients send sound."""
    note = Path(audio_storage_system.__file__).parent / "demo" / "voice_note.flac"
    sound = resample(load_audio(note), RATE)[: round(8.2 * RATE)]
    return integers(np.asarray(sound)).tobytes() + bytes(2 * RATE)


def pieces(sound: bytes, size: int = RATE // 5) -> Iterator[str]:
    for start in range(0, len(sound), size):
        yield base64.b64encode(sound[start : start + size]).decode()


def client_of(url: str, token: str) -> OpenAI:
    return OpenAI(base_url=f"{url}/v1", api_key=token)


def until(connection: RealtimeConnection, kind: str, count: int = 1) -> list[RealtimeServerEvent]:
    """All events up to the last of so many of this type."""
    heard: list[RealtimeServerEvent] = []
    while sum(event.type == kind for event in heard) < count:
        heard.append(connection.recv())
        assert heard[-1].type != "error" or kind == "error", heard[-1]
    return heard


def kinds(events: list[Any]) -> list[str]:
    return [event.type for event in events if not event.type.endswith(".delta")]


PRESENT = {"type": "transcription", "audio": {"input": {"transcription": {"model": "whisper-1", "language": "en"}}}}
OF_ONE = [
    "input_audio_buffer.speech_started",
    "input_audio_buffer.speech_stopped",
    "input_audio_buffer.committed",
    "conversation.item.added",
    "conversation.item.done",
    f"{TRANSCRIPTION}.completed",
]


def test_pieces_of_speech_are_items(archive: AudioStorageSystem, url: str, key: str, spoken: bytes) -> None:
    with client_of(url, key).realtime.connect(extra_query={"intent": "transcription"}) as connection:
        connection.session.update(session=PRESENT)  # type: ignore[arg-type]
        begun = until(connection, "session.updated")
        assert kinds(begun) == ["session.created", "session.updated"]
        assert begun[-1].session.audio.input.transcription.language == "en"  # type: ignore[union-attr]
        for piece in pieces(spoken):
            connection.input_audio_buffer.append(audio=piece)
        heard = until(connection, f"{TRANSCRIPTION}.completed", 2)
    assert kinds(heard) == [*OF_ONE, *OF_ONE]
    assert len({event.event_id for event in heard}) == len(heard)
    said = [event for event in heard if event.type == f"{TRANSCRIPTION}.completed"]
    assert "milk" in said[0].transcript and "airport" in said[1].transcript
    deltas = [event for event in heard if event.type == f"{TRANSCRIPTION}.delta"]
    for done in said:
        told = "".join(event.delta or "" for event in deltas if event.item_id == done.item_id)
        assert told.split()[:3] == done.transcript.split()[:3], "what comes later may be understood otherwise"
    in_order = [event.type for event in heard]
    assert in_order.index(f"{TRANSCRIPTION}.delta") < in_order.index("input_audio_buffer.speech_stopped")
    committed = [event for event in heard if event.type == "input_audio_buffer.committed"]
    assert [event.previous_item_id for event in committed] == [None, committed[0].item_id]
    assert said[0].usage.type == "duration" and said[0].usage.seconds > 2
    audio_id = said[0].audio_id  # type: ignore[attr-defined]
    wait_until_stored(archive, audio_id)
    with archive.open_audio(audio_id) as file:
        assert samples_in(file.read()).tobytes() == spoken
    assert archive.transcripts(audio_id)[0].transcription == " ".join(one.transcript for one in said)


def wait_until_stored(archive: AudioStorageSystem, audio_id: int) -> None:
    patience.until(lambda: archive.get_recording(audio_id).status == "stored", 60)


def test_without_turn_detection_the_client_says_what_belongs_together(
    archive: AudioStorageSystem, url: str, key: str, spoken: bytes
) -> None:
    manual = {"type": "transcription", "audio": {"input": {**PRESENT["audio"]["input"], "turn_detection": None}}}  # type: ignore[index]

    async def dictate(connection: AsyncRealtimeConnection, sound: bytes) -> Any:
        for piece in pieces(sound):
            await connection.input_audio_buffer.append(audio=piece)
        await connection.input_audio_buffer.commit()
        heard: list[Any] = []
        while not heard or heard[-1].type != f"{TRANSCRIPTION}.completed":
            heard.append(await connection.recv())
        assert kinds(heard) == OF_ONE[2:]
        return heard[-1]

    async def work() -> list[Any]:
        client = AsyncOpenAI(base_url=f"{url}/v1", api_key=key)
        async with client, client.realtime.connect(extra_query={"intent": "transcription"}) as connection:
            assert (await connection.recv()).type == "session.created"
            await connection.session.update(session=manual)  # type: ignore[arg-type]
            assert (await connection.recv()).type == "session.updated"
            half = round(4.4 * RATE) * 2
            return [await dictate(connection, spoken[:half]), await dictate(connection, spoken[half:])]

    said = asyncio.run(work())
    assert "milk" in said[0].transcript and "airport" in said[1].transcript
    assert [archive.get_recording(one.audio_id).status for one in said] == ["stored", "stored"]
    assert said[0].item_id != said[1].item_id and said[0].audio_id != said[1].audio_id


def test_a_commit_always_makes_an_item(url: str, key: str, spoken: bytes) -> None:
    with conversing(url, key) as talk:
        for sound, count in ((spoken[: 3 * RATE * 2], 1), (bytes(RATE), 1)):
            before = len(talk.of(f"{TRANSCRIPTION}.completed"))
            for piece in pieces(sound):
                talk.say(type="input_audio_buffer.append", audio=piece)
            talk.say(type="input_audio_buffer.commit")
            talk.until(f"{TRANSCRIPTION}.completed")
            assert len(talk.of(f"{TRANSCRIPTION}.completed")) == before + count
    said = talk.of(f"{TRANSCRIPTION}.completed")
    assert "milk" in said[0]["transcript"] and said[1]["transcript"] == ""
    assert said[0]["audio_id"] != said[1]["audio_id"]


def test_the_documented_programs_run(
    archive: AudioStorageSystem, url: str, key: str, tmp_path: Path, spoken: bytes
) -> None:
    """Those of the how-to page: one for our socket, one for OpenAI's client."""
    page = (Path(__file__).parents[1] / "docs/howto/live-sockets.md").read_text(encoding="utf-8")
    programs = re.findall(r"```py\n(.*?)```", page, re.DOTALL)
    sound, told = tmp_path / "talk.wav", []
    sound.write_bytes(wav(np.frombuffer(spoken, "<i2")[: 5 * RATE] / np.float32(32767), RATE))
    for program in programs:
        program = program.replace("ast_…", key).replace("127.0.0.1:8765", url.removeprefix("http://"))
        done = subprocess.run([sys.executable, "-c", program, sound], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        told.append(done.stdout)
    assert "milk" in told[0] and "0.00 s missing" in told[0]
    assert "milk" in told[1] and len(told) == 2


def test_the_beta_s_clients_are_understood(url: str, key: str) -> None:
    with conversing(url, key, **{"OpenAI-Beta": "realtime=v1"}) as talk:
        assert talk.until("transcription_session.created")["session"]["input_audio_format"] == "pcm16"
        wanted = {"input_audio_format": "g711_ulaw", "input_audio_transcription": {"model": "gpt-4o-transcribe"}}
        talk.say(type="transcription_session.update", session={**wanted, "turn_detection": None})
        session = talk.until("transcription_session.updated")["session"]
        assert (session["input_audio_format"], session["turn_detection"]) == ("g711_ulaw", None)
        for piece in pieces(bytes([255]) * 8_000, 800):
            talk.say(type="input_audio_buffer.append", audio=piece)
        talk.say(type="input_audio_buffer.commit")
        assert talk.until(f"{TRANSCRIPTION}.completed")["transcript"] == ""
        assert [message["type"] for message in talk.heard[2:5]] == [
            "input_audio_buffer.committed",
            "conversation.item.created",
            f"{TRANSCRIPTION}.completed",
        ]


@pytest.mark.parametrize(("kind", "codec"), [("audio/pcmu", "pcm_mulaw"), ("audio/pcma", "pcm_alaw")])
def test_telephone_sound_is_as_ffmpeg_reads_it(kind: str, codec: str) -> None:
    data = bytes(range(256))
    context: Any = av.CodecContext.create(codec, "r")
    context.sample_rate, context.layout = 8_000, "mono"
    [frame] = context.decode(av.Packet(data))
    assert expanded(data, TABLES[kind]) == bytes(frame.planes[0])[:512]


def test_what_is_cleared_stays_in_the_recording(archive: AudioStorageSystem, url: str, key: str, spoken: bytes) -> None:
    half = round(4.4 * RATE) * 2
    with conversing(url, key) as talk:
        talk.say(type="session.update", session={"type": "transcription", "audio": {"input": {"turn_detection": None}}})
        for number, part in enumerate((spoken[:half], spoken[half:])):
            for piece in pieces(part):
                talk.say(type="input_audio_buffer.append", audio=piece)
            talk.say(type="input_audio_buffer.commit" if number else "input_audio_buffer.clear")
        said = talk.until(f"{TRANSCRIPTION}.completed")
    assert "airport" in said["transcript"] and "milk" not in said["transcript"]
    assert talk.of("input_audio_buffer.cleared")
    with archive.open_audio(said["audio_id"]) as file:
        assert samples_in(file.read()).tobytes() == spoken


def test_who_leaves_without_a_word_leaves_a_recording(archive: AudioStorageSystem, url: str, key: str) -> None:
    sound, before = integers(tone(2.0, rate=RATE)).tobytes(), {one.id for one in archive.list_recordings()}
    with conversing(url, key) as talk:
        talk.until("session.created")
        for piece in pieces(sound):
            talk.say(type="input_audio_buffer.append", audio=piece)
        talk.say(type="input_audio_buffer.clear")
        talk.until("input_audio_buffer.cleared")
        [recording] = [one for one in archive.list_recordings() if one.id not in before]
        assert recording.status == "recording"
        talk.reset()
    wait_until_stored(archive, recording.id)
    with archive.open_audio(recording.id) as file:
        assert samples_in(file.read()).tobytes() == sound


@pytest.mark.parametrize(
    "message",
    [
        "no json",
        b"sound",
        "[]",
        "{}",
        '{"type": "response.create"}',
        '{"type": ["x"]}',
        '{"type": "input_audio_buffer.append"}',
        '{"type": "input_audio_buffer.append", "audio": "no base64!"}',
        '{"type": "input_audio_buffer.append", "audio": 7}',
        '{"type": "input_audio_buffer.commit"}',
        '{"type": "session.update"}',
        '{"type": "session.update", "session": {"type": "realtime"}}',
        '{"type": "session.update", "session": {"audio": 7}}',
        '{"type": "session.update", "session": {"audio": {"input": [7]}}}',
        '{"type": "session.update", "session": {"audio": {"input": {"format": {"type": "audio/mp3"}}}}}',
        '{"type": "session.update", "session": {"audio": {"input": {"format": {"type": ["audio/pcm"]}}}}}',
        '{"type": "session.update", "session": {"audio": {"input": {"format": {"type": "audio/pcm", "rate": "x"}}}}}',
        '{"type": "session.update", "session": {"audio": {"input": {"transcription": "whisper"}}}}',
        '{"type": "session.update", "session": {"audio": {"input": {"transcription": {"language": 7}}}}}',
        '{"type": "transcription_session.update", "session": {"input_audio_format": "mp3"}}',
        '{"type": "transcription_session.update", "session": {"input_audio_format": ["pcm16"]}}',
    ],
)
def test_what_is_wrong_is_answered_and_ends_nothing(url: str, key: str, message: str | bytes) -> None:
    with conversing(url, key) as talk:
        talk.until("session.created")
        talk.connection.send(message)
        error = json.loads(talk.connection.recv(30))
        assert (error["type"], error["error"]["type"]) == ("error", "invalid_request_error")
        assert error["error"]["message"]
        talk.say(type="session.update", session={"type": "transcription"})
        talk.until("session.updated")


def test_errors_name_the_event_that_was_wrong(url: str, key: str) -> None:
    with conversing(url, key) as talk:
        talk.until("session.created")
        talk.say(type="response.create", event_id="mine")
        assert json.loads(talk.connection.recv(30))["error"]["event_id"] == "mine"


@pytest.mark.parametrize("rate", [1, 10**9, -5, 10**400])
def test_no_session_has_such_a_rate(url: str, key: str, rate: int) -> None:
    with conversing(url, key) as talk:
        talk.until("session.created")
        form = {"type": "audio/pcm", "rate": rate}
        talk.say(type="session.update", session={"type": "transcription", "audio": {"input": {"format": form}}})
        talk.say(type="input_audio_buffer.append", audio="AAAA")
        while (message := json.loads(talk.connection.recv(30)))["type"] != "error":
            continue
        assert "sample_rate" in message["error"]["message"]


def test_nobody_gets_in_with_a_wrong_token(archive: AudioStorageSystem, url: str, key: str) -> None:
    reads = archive.tokens.create(scopes=["read"]).secret
    for token, code, closed in (("ast_wrong", "unauthorized", 4401), (reads, "forbidden", 4403)):
        with talking_as(as_bearer(token), url, path="/v1/realtime") as talk:
            with suppress(ConnectionClosed):  # it may be closed by now
                talk.say(type="input_audio_buffer.append", audio="AAAA")
            with pytest.raises(ConnectionClosed) as end:
                while True:
                    talk.heard.append(json.loads(talk.connection.recv(30)))
        assert end.value.rcvd is not None and end.value.rcvd.code == closed
        assert talk.heard[-1]["error"]["code"] == code


def test_words_are_told_once_they_stay() -> None:
    item = Item("item_1")
    texts = [
        ("ben", 0.5),
        ("ben and", 1.0),
        ("remember to", 1.4),
        ("remember to buy", 2.0),
        ("remember to buy me", 2.5),
    ]
    told = [event["delta"] for text, until in texts for event in item.delta(text, until)]
    assert told == ["remember to"]
    assert [event["delta"] for event in item.rest("remember to buy milk")] == [" buy milk"]
    assert list(item.rest("remind her to buy milk")) == []
