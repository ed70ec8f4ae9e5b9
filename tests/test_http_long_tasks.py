"""Long tasks over HTTP: lines while they run, few at once, an end when nobody listens any more."""

from __future__ import annotations

import io
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from audio_storage_system import AudioStorageSystem
from audio_storage_system.errors import Conflict
from audio_storage_system.server import long_tasks
from audio_storage_system.server.long_tasks import AT_ONCE, Tasks, Tell
from patience import until
from serving import serving

pytestmark = pytest.mark.usefixtures("long_tasks_may_fail_late")

WITHIN = 20.0


class Done(BaseModel):
    """The result of the tasks here."""

    steps: int


class Doing:
    """A task that goes on, a step at a time, until it is let go."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.running = 0
        self.ended = 0
        self.lock = threading.Lock()

    def __call__(self, tell: Tell) -> Done:
        with self.lock:
            self.running += 1
        steps = 0
        try:
            while not self.let_go.wait(0.02):
                steps += 1
                tell("stepping", steps, None)
            return Done(steps=steps)
        finally:
            with self.lock:
                self.ended += 1


@pytest.fixture
def doing() -> Doing:
    return Doing()


def add_routes(app: FastAPI, doing: Doing) -> None:
    """Routes of which a test knows what they do."""

    def fail(late: bool, error: Exception) -> Callable[[Tell], Done]:
        def do(tell: Tell) -> Done:
            if late:
                tell("beginning", 1, 2)
            raise error

        return do

    @app.post("/go-on")
    def go_on(tasks: Tasks) -> StreamingResponse:
        return tasks.run(doing)

    @app.post("/refuse")
    def refuse(tasks: Tasks, late: bool = False) -> StreamingResponse:
        return tasks.run(fail(late, Conflict(reason="another is at it")))

    @app.post("/break")
    def break_down(tasks: Tasks, late: bool = False) -> StreamingResponse:
        return tasks.run(fail(late, ZeroDivisionError("a defect")))

    @app.post("/export")
    def export(tasks: Tasks, fails: bool = False) -> StreamingResponse:
        def write(out: io.TextIOBase) -> None:
            for number in range(100_000):
                out.write(f"{number}\n")
            if fails:
                raise ZeroDivisionError("a defect")

        return tasks.export(write)

    @app.post("/endless")
    def endless(tasks: Tasks) -> StreamingResponse:
        def write(out: io.TextIOBase) -> None:
            app.state.endless.append("begun")
            try:
                while True:
                    out.write("x" * 100_000)
            finally:
                app.state.endless.append("ended")

        return tasks.export(write)

    app.state.endless = []


@pytest.fixture
def apps(tmp_path: Path, doing: Doing) -> Iterator[tuple[FastAPI, httpx.Client]]:
    """The application with such routes, served, and a client."""
    made: list[FastAPI] = []

    def prepare(app: FastAPI) -> None:
        add_routes(app, doing)
        made.append(app)

    with (
        serving(lambda: AudioStorageSystem(tmp_path / "archive"), prepare) as url,
        httpx.Client(base_url=url, timeout=WITHIN) as client,
    ):
        yield made[0], client


@pytest.fixture
def client(apps: tuple[FastAPI, httpx.Client]) -> httpx.Client:
    return apps[1]


def parsed(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_lines_come_while_it_runs_and_the_result_at_the_end(client: httpx.Client, doing: Doing) -> None:
    with client.stream("POST", "/go-on") as answer:
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
        assert answer.headers["x-accel-buffering"] == "no", "a proxy passes each line on at once"
        lines = answer.iter_lines()
        first = json.loads(next(lines))
        assert first["event"] == "progress" and first["progress"]["stage"] == "stepping"
        doing.let_go.set()
        last = [json.loads(line) for line in lines][-1]
    assert last["event"] == "result" and last["result"]["steps"] >= first["progress"]["done"]


def test_only_a_few_run_at_once(client: httpx.Client, doing: Doing) -> None:
    answers = [client.stream("POST", "/go-on") for _ in range(AT_ONCE)]
    for answer in answers:
        assert answer.__enter__().status_code == 200
    refused = client.post("/go-on")
    assert (refused.status_code, refused.json()["code"], refused.json()["retryable"]) == (503, "busy", True)
    assert int(refused.headers["retry-after"]) >= 1
    assert client.get("/health/ready").status_code == 200, "others are answered meanwhile"
    doing.let_go.set()
    for answer in answers:
        answer.__exit__(None, None, None)
    until(lambda: doing.ended == AT_ONCE, WITHIN)
    until(lambda: client.post("/go-on").status_code == 200, WITHIN)


def test_a_task_that_nobody_listens_to_stops(client: httpx.Client, doing: Doing) -> None:
    for number in range(AT_ONCE + 2):  # more than would fit if each went on
        with client.stream("POST", "/go-on") as answer:
            next(answer.iter_lines())
        until(lambda: doing.ended == number + 1, WITHIN)  # noqa: B023 - asked at once
    assert not doing.let_go.is_set()


def test_a_client_that_never_reads_is_given_up(
    apps: tuple[FastAPI, httpx.Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    app, client = apps
    monkeypatch.setattr(long_tasks, "UNREAD_SECONDS", 0.2)
    host, port = client.base_url.host, client.base_url.port
    assert port is not None
    with socket.create_connection((host, port)) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.sendall(f"POST /endless HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n".encode())
        until(lambda: app.state.endless == ["begun", "ended"], WITHIN)


def test_what_fails_at_once_is_answered_with_its_status(client: httpx.Client) -> None:
    answer = client.post("/refuse")
    assert (answer.status_code, answer.json()["detail"]) == (409, "another is at it")
    assert client.post("/break").status_code == 500


def test_what_fails_later_is_the_last_line(client: httpx.Client) -> None:
    answer = client.post("/refuse?late=true")
    assert answer.status_code == 200
    told = parsed(answer.text)
    assert told[0]["progress"] == {"stage": "beginning", "done": 1, "total": 2}
    assert (told[-1]["event"], told[-1]["error"]["status"], told[-1]["error"]["code"]) == ("error", 409, "conflict")
    last = parsed(client.post("/break?late=true").text)[-1]["error"]
    assert last["status"] == 500 and "defect" not in last["detail"]


def test_a_line_comes_though_nothing_happens(
    client: httpx.Client, doing: Doing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_tasks, "PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(long_tasks, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(Doing, "__call__", lambda self, tell: (self.let_go.wait(WITHIN), Done(steps=0))[1])
    with client.stream("POST", "/go-on") as answer:
        lines = answer.iter_lines()
        heard = [json.loads(next(lines)) for _ in range(3)]
        doing.let_go.set()
        rest = [json.loads(line) for line in lines]
    assert [one["progress"]["stage"] for one in heard] == ["begun"] * 3
    assert rest[-1]["event"] == "result"


def test_an_export_is_whole_or_cut(client: httpx.Client) -> None:
    assert client.post("/export").text == "".join(f"{number}\n" for number in range(100_000))
    with pytest.raises(httpx.RemoteProtocolError):
        client.post("/export?fails=true")


def test_the_server_ends_though_a_task_runs(apps: tuple[FastAPI, httpx.Client], doing: Doing) -> None:
    app, client = apps
    with client.stream("POST", "/go-on") as answer:
        next(answer.iter_lines())
        app.state.long_tasks.close()
        assert doing.ended == 1
