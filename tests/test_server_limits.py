"""What a client may make the server wait for, keep, or do: all of it ends."""

from __future__ import annotations

import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Sized
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request, Response

from audio_storage_system import AudioStorageSystem
from audio_storage_system.permissions import Tokens
from audio_storage_system.server import app, bodies, protocol
from audio_storage_system.server import waiting as waiting_module
from audio_storage_system.server.rates import Rates
from audio_storage_system.webhooks import sending
from receiving import receiving
from serving import as_bearer, connected, serving


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """A server with two routes of the test: one that takes JSON, one that answers with a lot."""

    def prepare(app: FastAPI) -> None:
        app.post("/echo")(lambda body: Response(str(len(body))))
        app.post("/json")(_json)
        app.get("/much")(lambda: Response(b"x" * (64 << 20)))

    with serving(lambda: AudioStorageSystem(tmp_path / "archive"), prepare) as url:
        yield url


def _json(body: dict[str, Any]) -> dict[str, int]:
    return {"entries": len(body)}


def reach(what: Sized, count: int) -> None:
    """Until there are so many; then a while in which there could be more."""
    until = time.monotonic() + 15
    while len(what) < count and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(0.3)


def seconds_until_closed(connection: socket.socket) -> float:
    began = time.monotonic()
    try:
        while connection.recv(1 << 20):
            pass
    except ConnectionResetError:
        pass
    return time.monotonic() - began


def test_a_head_that_does_not_come_is_not_waited_for(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.5)
    with connected(url) as silent, connected(url) as slow:
        slow.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        assert seconds_until_closed(slow) < 12
        assert seconds_until_closed(silent) < 12


def test_the_head_of_a_second_request_is_bounded_too(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.5)
    with connected(url) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200")
        connection.sendall(b"GET /heal")
        assert seconds_until_closed(connection) < 12


def test_a_head_without_end_is_cut(url: str) -> None:
    with connected(url) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\n")
        with pytest.raises(ConnectionError):
            for number in range(10_000):
                connection.sendall(f"X-{number}: {'y' * 1000}\r\n".encode())


def test_trailers_without_end_are_cut(url: str) -> None:
    with connected(url) as connection:
        connection.sendall(
            b"POST /json HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n"
        )
        with pytest.raises(ConnectionError):
            for number in range(10_000):
                connection.sendall(f"X-{number}: {'y' * 1000}\r\n".encode())


def test_the_head_of_a_request_that_waits_behind_another_is_bounded(url: str) -> None:
    with connected(url) as connection:
        connection.sendall(b"GET /much HTTP/1.1\r\nHost: localhost\r\n\r\nGET /health HTTP/1.1\r\n")
        with pytest.raises(ConnectionError):
            for number in range(10_000):
                connection.sendall(f"X-{number}: {'y' * 1000}\r\n".encode())


def test_a_client_that_leaves_with_requests_in_line_is_gone_for_all(tmp_path: Path) -> None:
    left = threading.Event()

    async def waiting(request: Request) -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        left.set()

    def prepare(app: FastAPI) -> None:
        app.get("/waiting")(waiting)

    with serving(lambda: AudioStorageSystem(tmp_path / "archive"), prepare) as url:
        with connected(url) as connection:
            connection.sendall(2 * b"GET /waiting HTTP/1.1\r\nHost: localhost\r\n\r\n")
            time.sleep(0.5)
        assert left.wait(30)


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8"])
def test_json_is_bounded_where_files_are_sent_too(url: str, kind: str) -> None:
    answer = httpx.post(f"{url}/api/v1/uploads", content=b" " * (2 << 20), headers={"Content-Type": kind}, timeout=60)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def test_a_request_in_time_is_answered_after_the_time_for_heads(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 2.0)
    with connected(url) as connection:
        head = b"POST /json HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n"
        connection.sendall(head + b"{")
        time.sleep(3)
        connection.sendall(b"}")
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200")


def test_a_slow_body_is_not_waited_for(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "GRACE_SECONDS", 0.5)
    with connected(url) as connection:
        connection.sendall(b"POST /json HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        began = time.monotonic()
        answer = connection.recv(1 << 16)
        assert answer.startswith(b"HTTP/1.1 408")
        assert b'"code":"too_slow"' in answer + connection.recv(1 << 16)
        assert time.monotonic() - began < 10
        assert seconds_until_closed(connection) < 4


def test_a_body_that_says_it_is_too_large_is_refused_unread(url: str) -> None:
    with connected(url) as connection:
        connection.sendall(b"POST /json HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999999\r\n\r\n{")
        answer = connection.recv(1 << 16)
        assert answer.startswith(b"HTTP/1.1 413")
        assert b'"code":"too_large"' in answer or b'"code":"too_large"' in connection.recv(1 << 16)


def test_a_body_that_does_not_say_so_is_cut_there(url: str) -> None:
    def endless() -> Iterator[bytes]:
        yield b'{"a": "'
        for _ in range(64):
            yield b"x" * (1 << 16)

    try:
        answer = httpx.post(f"{url}/json", content=endless(), headers={"Content-Type": "application/json"}, timeout=60)
    except (httpx.NetworkError, httpx.RemoteProtocolError):
        return  # cut while it was sent
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def test_a_client_that_never_reads_is_cut(url: str, monkeypatch: pytest.MonkeyPatch, lost: threading.Event) -> None:
    monkeypatch.setattr(protocol, "UNREAD_SECONDS", 0.5)
    with connected(url) as connection:
        connection.sendall(b"GET /much HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert lost.wait(60)
        got = 0
        with pytest.raises(ConnectionError):
            while block := connection.recv(1 << 20):
                got += len(block)
            raise ConnectionError  # the kernel gave what it had, then the end
        assert got < 64 << 20


def test_one_that_reads_slowly_gets_all_of_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long that takes: between two looks of the server it reads a little, three times as often as a client may
    read nothing."""
    may_look, looked, look = threading.Semaphore(0), threading.Semaphore(0), protocol.Held._look

    def once_it_may(held: protocol.Held, before: int, in_vain: int) -> None:
        if may_look.acquire(blocking=False):
            look(held, before, in_vain)
            looked.release()
        else:
            held._unread_timer = held.loop.call_later(0.005, held._look, before, in_vain)

    monkeypatch.setattr(protocol.Held, "_look", once_it_may)
    monkeypatch.setattr(protocol, "UNREAD_SECONDS", 0.03)
    with connected(url) as connection, connection.makefile("rb") as answer:
        connection.sendall(b"GET /much HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        for _ in range(3 * protocol.LOOKS):
            assert len(answer.read(1 << 20)) == 1 << 20
            may_look.release()
            assert looked.acquire(timeout=60)
        assert len(answer.read()) > (64 - 3 * protocol.LOOKS) << 20


@pytest.mark.parametrize("body", [b"\xff\xfe", b"{", b"[" * 100_000, b'{"a": 1e999}', b"null", b""])
def test_what_is_no_json_is_refused_in_words(url: str, body: bytes) -> None:
    answer = httpx.post(f"{url}/json", content=body, headers={"Content-Type": "application/json"}, timeout=60)
    assert answer.status_code in (200, 400, 422)
    if answer.status_code != 200:
        assert answer.headers["content-type"] == "application/problem+json"


# How often


@pytest.fixture
def no_time_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """For who counts how often somebody asks."""
    monkeypatch.setattr("audio_storage_system.server.rates.time", SimpleNamespace(monotonic=lambda: 0.0))


def test_who_asks_too_often_waits(tmp_path: Path, no_time_passes: None) -> None:
    with serving(lambda: AudioStorageSystem(tmp_path / "archive", requests_per_minute=5)) as url:
        with AudioStorageSystem(tmp_path / "archive") as storage:
            mine, other = storage.tokens.create().secret, storage.tokens.create().secret
        with httpx.Client(base_url=url, timeout=60) as client:
            codes = [client.get("/api/v1/stats", headers=as_bearer(mine)).status_code for _ in range(7)]
            assert codes == [200] * 5 + [429] * 2
            answer = client.get("/api/v1/stats", headers=as_bearer(mine))
            assert answer.json()["code"] == "too_many_requests"
            assert answer.headers["retry-after"] == "12"
            assert client.get("/api/v1/stats", headers=as_bearer(other)).status_code == 200, "everybody has their own"


def test_guesses_are_not_even_looked_up_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_time_passes: None
) -> None:
    looked_up: list[str] = []
    authenticate = Tokens.authenticate

    def counted(self: Tokens[AudioStorageSystem], token: str) -> AudioStorageSystem:
        looked_up.append(token)
        return authenticate(self, token)

    monkeypatch.setattr(Tokens, "authenticate", counted)
    with (
        serving(lambda: AudioStorageSystem(tmp_path / "archive")) as url,
        httpx.Client(base_url=url, headers=as_bearer("ast_guess"), timeout=60) as client,
    ):
        codes = [client.get("/api/v1/stats").status_code for _ in range(80)]
    assert codes == [401] * 60 + [429] * 20
    assert len(looked_up) == 60


def test_a_bucket_fills_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    rates = Rates(60)
    assert [rates.take("a") for _ in range(60)] == [0.0] * 60
    assert 0 < rates.take("a") <= 1
    now[0] += 1.0
    assert rates.take("a") == 0.0
    assert rates.take("a") > 0
    assert rates.take("b") == 0.0


# Pages of other origins


PREFLIGHT = {"Origin": "https://app.example", "Access-Control-Request-Method": "GET"}


def test_no_page_of_another_origin_may_read_unless_it_is_named(tmp_path: Path) -> None:
    with serving(lambda: AudioStorageSystem(tmp_path / "archive")) as url:
        answer = httpx.options(f"{url}/api/v1/stats", headers=PREFLIGHT, timeout=60)
        assert "access-control-allow-origin" not in answer.headers


def test_one_that_is_named_may(tmp_path: Path) -> None:
    origins = "https://app.example, https://two.example/"
    with serving(lambda: AudioStorageSystem(tmp_path / "archive", cors_origins=origins)) as url:
        answer = httpx.options(f"{url}/api/v1/stats", headers=PREFLIGHT, timeout=60)
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        got = httpx.get(f"{url}/api/v1/stats", headers={"Origin": "https://two.example"}, timeout=60)
        assert (got.status_code, got.headers["access-control-allow-origin"]) == (200, "https://two.example")
        other = httpx.get(f"{url}/api/v1/stats", headers={"Origin": "https://evil.example"}, timeout=60)
        assert (other.status_code, "access-control-allow-origin" in other.headers) == (403, False)


# Threads


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server has six threads for all that is not slow."""
    monkeypatch.setattr(app, "THREADS", 6)


def test_that_it_lives_is_said_while_every_thread_is_at_work(tmp_path: Path, few: None) -> None:
    goes_on = threading.Event()

    def prepare(app: FastAPI) -> None:
        app.get("/held")(lambda: goes_on.wait(60))

    with serving(lambda: AudioStorageSystem(tmp_path / "archive"), prepare) as url, ThreadPoolExecutor(8) as pool:
        held = [pool.submit(httpx.get, f"{url}/held", timeout=60) for _ in range(8)]
        time.sleep(0.3)
        try:
            assert httpx.get(f"{url}/health/live", timeout=15).status_code == 200
        finally:
            goes_on.set()
        assert all(one.result(60).json() for one in held)


SLOW: list[tuple[str, str, dict[str, Any] | None]] = [
    ("generate_embeddings", "/api/v1/recordings/1/embeddings", None),
    ("activate_transcript", "/api/v1/transcripts/1/activate", None),
    ("generate_text_embeddings", "/v1/embeddings", {"model": "text-embedding-3-small", "input": "good morning"}),
]


@pytest.mark.parametrize(("method", "path", "body"), SLOW)
def test_slow_calls_leave_threads_to_others(
    tmp_path: Path, few: None, monkeypatch: pytest.MonkeyPatch, method: str, path: str, body: dict[str, Any] | None
) -> None:
    goes_on, running = threading.Event(), list[str]()
    whole = getattr(AudioStorageSystem, method)

    def slow(*given: Any, **further: Any) -> Any:
        running.append(method)
        assert goes_on.wait(60)
        return whole(*given, **further)

    monkeypatch.setattr(AudioStorageSystem, method, slow)
    with serving(lambda: AudioStorageSystem(tmp_path / "archive")) as url, ThreadPoolExecutor(12) as pool:
        waiting = [pool.submit(httpx.post, f"{url}{path}", json=body, timeout=60) for _ in range(12)]
        reach(running, waiting_module.SLOW_AT_ONCE)
        try:
            assert httpx.get(f"{url}/api/v1/recordings", timeout=15).status_code == 200
            assert len(running) == waiting_module.SLOW_AT_ONCE
        finally:
            goes_on.set()
        assert {one.result(60).status_code for one in waiting} <= {200, 404}
    assert len(running) == 12


def test_a_deadline_holds_also_while_a_search_waits_for_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, demo: Path
) -> None:
    goes_on, running = threading.Event(), list[str]()
    whole = AudioStorageSystem.search_similar_audio

    def slow(storage: AudioStorageSystem, text: str | None = None, **further: Any) -> Any:
        running.append(text or "")
        assert text is None or goes_on.wait(60)
        return whole(storage, text, **further)

    monkeypatch.setattr(AudioStorageSystem, "search_similar_audio", slow)
    most = waiting_module.SEARCHES_AT_ONCE
    with serving(lambda: AudioStorageSystem(tmp_path / "archive")) as url, ThreadPoolExecutor(most) as pool:
        search = f"{url}/api/v1/search"
        busy = [pool.submit(httpx.get, search, params={"text": "long"}, timeout=60) for _ in range(most)]
        reach(running, most)
        try:
            assert len(running) == most
            late = httpx.get(search, params={"text": "short", "deadline": 0.3}, timeout=30)
            assert (late.status_code, late.json()["code"]) == (504, "deadline_exceeded")
            with (demo / "voice_note.flac").open("rb") as file:  # which may take long, and keeps nobody waiting
                example = httpx.post(f"{search}/audio", files={"file": file}, data={"by": "audio"}, timeout=30)
            assert example.status_code == 200
        finally:
            goes_on.set()
        assert {one.result(60).status_code for one in busy} == {200}
    assert "short" not in running


def test_webhooks_that_do_not_answer_leave_threads_to_others(
    tmp_path: Path, few: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDIO_STORAGE_WEBHOOK_ALLOW_PRIVATE", "1")
    monkeypatch.setattr(sending, "TOTAL_SECONDS", 60.0)
    goes_on = threading.Event()
    with (
        receiving() as receiver,
        serving(lambda: AudioStorageSystem(tmp_path / "archive")) as url,
        ThreadPoolExecutor(12) as pool,
    ):
        receiver.answer = lambda call, handler: 204 if goes_on.wait(60) else 500
        httpx.post(f"{url}/api/v1/webhooks", json={"url": receiver.url}, timeout=30).raise_for_status()
        tests = [pool.submit(httpx.post, f"{url}/api/v1/webhooks/1/test", timeout=60) for _ in range(12)]
        reach(receiver.calls, waiting_module.SLOW_AT_ONCE)
        try:
            assert httpx.get(f"{url}/api/v1/recordings", timeout=15).status_code == 200
            assert len(receiver.calls) == waiting_module.SLOW_AT_ONCE
        finally:
            goes_on.set()
        assert {one.result(60).json()["state"] for one in tests} == {"delivered"}


# Files of who may not store them


@pytest.mark.parametrize("path", ["/api/v1/recordings", "/api/v1/recordings/1/transcripts", "/v1/audio/transcriptions"])
def test_a_file_is_not_taken_from_who_may_only_read(tmp_path: Path, path: str) -> None:
    with AudioStorageSystem(tmp_path / "archive") as storage:
        storage.users.add("anna")
        token = storage.tokens.create("anna", scopes=["read"]).secret
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Length: 9999999\r\n"
    form = '--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF'
    with serving(lambda: AudioStorageSystem(tmp_path / "archive")) as url, connected(url) as connection:
        connection.sendall(f"{head}Content-Type: multipart/form-data; boundary=x\r\n\r\n{form}".encode())
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 403 "), "though most of it has not come"


def test_what_is_on_its_way_in_is_on_the_disk_of_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    for encryption in (None, True):
        monkeypatch.setenv("AUDIO_STORAGE_KEY_FILE", str(tmp_path / "key"))
        with AudioStorageSystem(tmp_path / f"archive{encryption}", encryption=encryption) as storage:
            with storage.temporary_file() as file:
                file.write(b"sound")
                file.seek(0)
                assert file.read(5) == b"sound"
                assert list((storage.home / "spool").iterdir()) == [], "it has no name"
            assert storage.recovered == [] and storage.verify(deep=True).clean
