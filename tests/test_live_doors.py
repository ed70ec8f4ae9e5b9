"""Who gets a socket for sound, what is refused there, and what one may cost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from audio_storage_system import AudioStorageSystem
from audio_storage_system.server.live import UVICORN
from audio_storage_system.server.live.outbox import Outbox
from audio_storage_system.server.live.pace import Pace
from audio_storage_system.server.live.protocol import BoundedWebSocket
from serving import as_bearer, serving
from talking import HEARD, OFFERED, WAIT, Talk, failing, recorded, samples_in, speechlike, stored, talking, talking_as

RATE = 16_000
AS_IT_COMES: dict[str, Any] = {"sample_rate": RATE, **HEARD}

pytestmark = pytest.mark.usefixtures("scripted_engine")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AudioStorageSystem]:
    with AudioStorageSystem(tmp_path_factory.mktemp("live") / "archive") as storage:
        yield storage


@pytest.fixture(scope="module")
def url(archive: AudioStorageSystem) -> Iterator[str]:
    with serving(lambda: AudioStorageSystem(archive.home, **OFFERED, live_resume_seconds=30)) as address:
        yield address


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[tuple[AudioStorageSystem, str]]:
    """An archive with users, and the address of its server."""
    with AudioStorageSystem(tmp_path / "archive") as storage:
        for name in ("anna", "bert"):
            storage.users.add(name)
            storage.tokens.create(name)
        with serving(lambda: AudioStorageSystem(storage.home, **OFFERED)) as address:
            yield storage, address


# Who may


def test_tokens_come_in_a_header_or_among_the_subprotocols(guarded: tuple[AudioStorageSystem, str]) -> None:
    archive, url = guarded
    writes, reads = (archive.tokens.create("anna", scopes=scopes).secret for scopes in (["write"], ["read"]))
    with talking_as(as_bearer(writes), url, **AS_IT_COMES) as talk:
        audio_id = talk.until("started")["audio_id"]
        talk.sound(speechlike(1).tobytes())
        talk.finish()
    assert archive.as_user("anna").get_recording(audio_id)
    address = url.replace("http", "ws") + "/api/v1/live?sample_rate=16000&transcriber=scripted"
    with connect(address, subprotocols=["audio-storage", f"bearer.{writes}"]) as connection:  # type: ignore[list-item]
        assert connection.subprotocol == "audio-storage"
        assert json.loads(connection.recv(30))["type"] == "started"
    with talking_as(as_bearer(reads), url, **AS_IT_COMES) as talk:
        assert failing(talk) == ("forbidden", 4403)
    for headers in ({}, as_bearer("ast_wrong"), as_bearer(""), {"Authorization": "Basic eDp5"}):
        with talking_as(headers, url, **AS_IT_COMES) as talk:
            assert failing(talk) == ("unauthorized", 4401)


def test_sessions_of_others_are_not_there(guarded: tuple[AudioStorageSystem, str]) -> None:
    archive, url = guarded
    anna, bert = (as_bearer(archive.tokens.create(name, scopes=["write"]).secret) for name in ("anna", "bert"))
    with talking_as(anna, url, **AS_IT_COMES) as talk:
        session = talk.until("started")["session_id"]
        talk.sound(speechlike(1).tobytes())
        talk.until_safe(0.4)
    with talking_as(bert, url, session=session) as talk:
        assert failing(talk) == ("not_found", 4404)
    with talking_as(anna, url, session=session) as talk:
        talk.until("started")
        assert talk.finish()["seconds"] == 1.0


def test_pages_of_others_get_no_socket_of_an_archive_without_tokens(url: str) -> None:
    with talking_as({"Origin": "https://evil.example"}, url, **AS_IT_COMES) as talk:
        assert failing(talk) == ("forbidden", 4403)
    own = httpx.URL(url)
    with talking_as({"Origin": url}, url, **AS_IT_COMES) as talk:
        talk.until("started")
    line = socket.create_connection((own.host, own.port or 80))  # a name of theirs that leads here
    with connect(
        f"ws://evil.example:{own.port}/api/v1/live?sample_rate=16000&transcriber=scripted", sock=line
    ) as connection:
        assert failing(Talk(connection)) == ("forbidden", 4403)


# Bad input


@pytest.mark.parametrize(
    "query",
    [
        {"sample_rate": 0},
        {"sample_rate": 10**9},
        {"sample_rate": -1},
        {"sample_rate": "fast"},
        {"sample_rate": RATE, "channels": 0},
        {"sample_rate": RATE, "channels": 10**6},
        {"encoding": "hls"},
        {"encoding": "webm", "sample_rate": 10**9},
        {"begins": "nan"},
        {"begins": -1},
        {"nonsense": 1},
        {"sample_rate": RATE, "language": "x" * 1_000},
        {"sample_rate": RATE, "language": "klingon?"},
        {"sample_rate": RATE, "whisper_model": "no-such-model:x"},
    ],
)
def test_what_no_session_can_be_is_refused(url: str, query: dict[str, object]) -> None:
    with talking(url, **query) as talk:
        code, closed = failing(talk)
    assert closed == 4400
    assert code in ("invalid_input", "unknown_spec")


@pytest.mark.parametrize("session", ["x", "../../etc", "0" * 32, "x" * 5_000])
def test_sessions_that_never_were_are_not_found(url: str, session: str) -> None:
    with talking(url, session=session) as talk:
        assert failing(talk)[1] in (4404, 4400)


@pytest.mark.parametrize(
    "first", [b"sound", "no json", "[]", '{"type": "begin"}', '{"type": "start", "sample_rate": 0}']
)
def test_a_first_message_that_is_no_start_is_refused(url: str, first: str | bytes) -> None:
    with talking(url) as talk:
        talk.connection.send(first)
        assert failing(talk) == ("invalid_input", 4400)


def test_junk_in_between_costs_nothing(archive: AudioStorageSystem, url: str) -> None:
    sound = speechlike(2).tobytes()
    with talking(url, **AS_IT_COMES) as talk:
        for junk in ("", "no json", "[1]", '{"type": "stop"}', '{"type": "lost", "seconds": -1}', "[" * 100_000):
            talk.sound(sound[len(sound) // 2 :] if junk == "" else b"")
            talk.connection.send(junk)
            assert json.loads(next_error(talk))["retryable"] is False
        talk.sound(sound[: len(sound) // 2])
        assert talk.finish()["seconds"] == 2.0


def next_error(talk: Talk) -> str:
    while json.loads(message := str(talk.connection.recv(30)))["type"] != "error":
        continue
    return message


@pytest.mark.parametrize("junk", [b"x" * 20_000, bytes(200_000), b"RIFF" + bytes(50_000)])
def test_what_is_no_sound_is_refused(url: str, junk: bytes) -> None:
    with talking(url, encoding="webm", **HEARD) as talk:
        talk.connection.send(junk)
        talk.connection.send(junk)
        assert failing(talk) == ("not_audio", 4415), "without being asked"


def test_messages_have_a_size(archive: AudioStorageSystem, url: str) -> None:
    with talking(url, **AS_IT_COMES) as talk:
        started = talk.until("started")
        talk.sound(speechlike(1).tobytes())
        talk.until_safe(0.4)
        talk.connection.send(bytes(2 << 20))
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                talk.connection.recv(30)
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1009
    with talking(url, session=started["session_id"]) as talk:
        talk.until("started")
        assert talk.finish()["seconds"] == 1.0


def test_somebody_has_so_many_sessions(archive: AudioStorageSystem) -> None:
    with serving(lambda: AudioStorageSystem(archive.home, **OFFERED, live_sessions=2)) as url:
        with talking(url, **AS_IT_COMES) as one, talking(url, **AS_IT_COMES) as two:
            for talk in (one, two):
                talk.until("started")
            with talking(url, **AS_IT_COMES) as three:
                assert failing(three) == ("too_many_sessions", 4429)
        until = time.monotonic() + WAIT
        while (answer := first_answer(url)) == "too_many_sessions":
            assert time.monotonic() < until
            time.sleep(0.05)
        assert answer == "started"


def first_answer(url: str) -> str:
    """What a new socket is told first: the code of an error, or what else it is."""
    with talking(url, **AS_IT_COMES) as talk:
        message = json.loads(talk.connection.recv(WAIT))
        return str(message.get("code", message["type"]))


def test_nobody_is_silent_for_ever(archive: AudioStorageSystem, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with talking(url, **AS_IT_COMES) as talk:
        started = talk.until("started")
        talk.sound(speechlike(1).tobytes())
        talk.until_taken()
        monkeypatch.setattr("audio_storage_system.server.live.socket.LiveSocket.silent_seconds", 0.5)
        talk.say(type="ping")  # from now on it waits for so long only
        assert failing(talk) == ("client_silent", 4408)
    monkeypatch.setattr("audio_storage_system.server.live.socket.START_SECONDS", 0.5)
    with talking(url) as talk:
        assert failing(talk) == ("client_silent", 4408)
    with talking(url, session=started["session_id"]) as talk:
        assert talk.until("started")["position"] == 1.0


@pytest.mark.parametrize("encoding", ["pcm16", "webm"])
def test_who_is_too_fast_waits_and_loses_nothing(
    archive: AudioStorageSystem, url: str, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    monkeypatch.setattr("audio_storage_system.server.live.feeding.Pace", lambda: Pace(fastest=8, burst=4))
    monkeypatch.setattr("audio_storage_system.audio.streaming.PIPE_BYTES", 10_000)
    sound, since = speechlike(20), time.monotonic()
    data = sound.tobytes() if encoding == "pcm16" else recorded(encoding, sound, RATE)
    with talking(url, encoding=encoding, **HEARD) as talk:
        talk.sound(data)
        ended = talk.finish()
    assert time.monotonic() - since >= (20 - 4) / 8 - 0.5
    assert ended["seconds"] == pytest.approx(20, abs=0.05)
    if encoding == "pcm16":
        assert stored(archive, ended["audio_id"]).tobytes() == sound.tobytes()


def test_the_pace_is_that_of_a_bucket() -> None:
    now = [0.0]
    pace = Pace(fastest=2, burst=10, clock=lambda: now[0])
    assert [pace.wait_for(5), pace.wait_for(5), pace.wait_for(3)] == [0.0, 0.0, 1.5]
    now[0] = 100.0
    assert [pace.wait_for(10), pace.wait_for(1)] == [0.0, 0.5], "it holds no more than its burst"


def test_of_what_is_overtaken_only_the_latest_waits() -> None:
    async def work() -> list[int]:
        outbox = Outbox(most=3)
        for number, kind in enumerate([None, "partial", None, "partial", None, None]):
            outbox.put({"number": number}, kind)
        waiting = [(await outbox.next())["number"] for _ in range(3)]
        outbox.sent()
        await outbox.drained(1)
        return waiting

    assert asyncio.run(work()) == [3, 4, 5]


def test_who_never_reads_loses_no_sound(archive: AudioStorageSystem, url: str) -> None:
    """The client's window is shut: nothing can be sent to it. Its sound is stored all the same."""
    sound, own, line = speechlike(20).tobytes(), httpx.URL(url), socket.socket()
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
    line.connect((own.host, own.port or 80))
    address = url.replace("http", "ws") + "/api/v1/live?sample_rate=16000&transcriber=scripted"
    with connect(address, sock=line, max_queue=1, close_timeout=0) as connection:
        session = json.loads(connection.recv(30))["session_id"]
        for start in range(0, len(sound), 32_000):
            connection.send(sound[start : start + 32_000])
            for _ in range(200):
                connection.send("what is this?" * 30)  # each is answered
        until = time.monotonic() + 30
        while sum(path.stat().st_size for path in (archive.home / "spool" / session).glob("*.pcm")) < len(sound):
            assert time.monotonic() < until
            time.sleep(0.1)
    with talking(url, session=session) as talk:
        assert talk.until("started")["position"] == 20.0
        assert talk.finish()["seconds"] == 20.0


@pytest.mark.parametrize("goes_on", [True, False])
def test_who_speaks_is_there_also_without_reading(
    archive: AudioStorageSystem, monkeypatch: pytest.MonkeyPatch, goes_on: bool
) -> None:
    """Pings are answered by whoever reads; but whoever speaks is not gone."""
    for name in ("ws_ping_interval", "ws_ping_timeout"):
        monkeypatch.setitem(UVICORN, name, 0.3)
    spared, cut = threading.Event(), threading.Event()
    decide, cut_off = BoundedWebSocket.keepalive_timeout, WebSocketsSansIOProtocol.keepalive_timeout

    def keepalive_timeout(protocol: BoundedWebSocket) -> None:
        if goes_on and protocol._heard_at <= protocol.ping_sent_at:  # a busy machine: it will speak
            protocol.pong_timer = protocol.loop.call_later(0.05, protocol.keepalive_timeout)
        else:
            decide(protocol)
            spared.set()

    monkeypatch.setattr(BoundedWebSocket, "keepalive_timeout", keepalive_timeout)
    monkeypatch.setattr(
        WebSocketsSansIOProtocol, "keepalive_timeout", lambda protocol: (cut_off(protocol), cut.set())[0]
    )
    sound, kinds = speechlike(4).tobytes(), list[str]()
    with serving(lambda: AudioStorageSystem(archive.home, **OFFERED)) as url:
        address = url.replace("http", "ws") + "/api/v1/live?sample_rate=16000&transcriber=scripted"
        with connect(address, max_queue=1, ping_interval=None, close_timeout=0) as connection:
            connection.send(sound)
            until = time.monotonic() + WAIT
            while goes_on and not spared.wait(0.05):
                assert time.monotonic() < until
                connection.send(sound[:6_400])
            assert cut.wait(0 if goes_on else WAIT) is not goes_on
            with contextlib.suppress(ConnectionClosed):
                connection.send(json.dumps({"type": "finish"}))
                kinds = [json.loads(message)["type"] for message in connection]
    assert ("ended" in kinds) is goes_on


def test_who_never_reads_is_cut_in_the_end(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audio_storage_system.server.protocol.UNREAD_SECONDS", 0.5)
    own, line = httpx.URL(url), socket.socket()
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
    line.connect((own.host, own.port or 80))
    address = url.replace("http", "ws") + "/v1/realtime"
    with connect(address, sock=line, max_queue=1, close_timeout=0) as connection:
        connection.recv(30)
        with pytest.raises(ConnectionClosed):
            for _ in range(100_000):
                connection.send("what is this?" * 100)  # each is answered


def test_nobody_stays_whose_token_was_revoked(
    guarded: tuple[AudioStorageSystem, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("audio_storage_system.server.live.conversation.ADMITTED_SECONDS", 0.2)
    archive, url = guarded
    made = archive.tokens.create("anna", scopes=["write"])
    with talking_as(as_bearer(made.secret), url, **AS_IT_COMES) as talk:
        audio_id = talk.until("started")["audio_id"]
        talk.sound(speechlike(1).tobytes())
        talk.until_safe(1.0)
        archive.tokens.revoke(made.token.id)
        assert failing(talk) == ("unauthorized", 4401)
    assert archive.get_recording(audio_id).status == "recording", "what was said is kept"


def test_nor_does_who_is_much_too_fast(
    guarded: tuple[AudioStorageSystem, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compressed sound waits before it is decoded, here for most of a minute."""
    monkeypatch.setattr("audio_storage_system.server.live.conversation.ADMITTED_SECONDS", 0.2)
    monkeypatch.setattr("audio_storage_system.server.live.feeding.Pace", lambda: Pace(fastest=0.05, burst=1))
    monkeypatch.setattr("audio_storage_system.audio.streaming.PIPE_BYTES", 10_000)
    archive, url = guarded
    made, data = archive.tokens.create("anna", scopes=["write"]), recorded("webm", speechlike(40), RATE)
    with talking_as(as_bearer(made.secret), url, encoding="webm", **HEARD) as talk:
        talk.sound(data, (len(data),))
        talk.until("started")
        archive.tokens.revoke(made.token.id)
        since = time.monotonic()
        assert failing(talk) == ("unauthorized", 4401)
        assert time.monotonic() - since < 60


def test_of_an_encrypted_archive_nothing_lies_open(tmp_path: Path) -> None:
    sound, coded = speechlike(2).tobytes(), recorded("webm", speechlike(2), RATE)
    key = os.urandom(32)
    with AudioStorageSystem(tmp_path / "archive", encryption=key) as archive:
        with serving(lambda: AudioStorageSystem(archive.home, **OFFERED, encryption=key)) as url:
            for data, encoding in ((sound, "pcm16"), (coded, "webm")):
                with talking(url, encoding=encoding, **HEARD) as talk:
                    talk.sound(data)
                    talk.until("started")
                    talk.until_safe(1.0)
                    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
                        held = path.read_bytes()
                        assert data[4_000:4_032] not in held and sound[4_000:4_032] not in held, path
                    ended = talk.finish()
        with archive.open_audio(ended["audio_id"]) as file:
            assert len(samples_in(file.read())) == pytest.approx(2 * 48_000, abs=2_000)


def test_it_is_no_page(url: str) -> None:
    assert httpx.get(f"{url}/api/v1/live", timeout=WAIT).status_code == 404
    with pytest.raises(InvalidStatus), talking(url, path="/api/v1/nothing"):
        pass
