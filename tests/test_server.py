"""The server: who gets in, what errors look like, and its processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from audio_storage_system import AudioStorageSystem
from audio_storage_system.errors import InvalidSetting
from audio_storage_system.server import Options, serve
from serving import as_bearer, serving


def test_on_ones_own_machine_nobody_needs_a_token(served: httpx.Client) -> None:
    answer = served.get("/api/v1/stats")
    assert answer.status_code == 200
    assert answer.json()["recordings"] == 0


def test_from_the_first_token_on_everybody_needs_one(served: httpx.Client, home: Path) -> None:
    assert served.get("/api/v1/stats").status_code == 200
    with AudioStorageSystem(home) as storage:
        storage.users.add("anna")
        made = storage.tokens.create("anna")
        time.sleep(1.1)
        refused = served.get("/api/v1/stats")
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert served.get("/api/v1/stats", headers=as_bearer(made.secret)).status_code == 200
        storage.tokens.revoke(made.token.id)
    assert served.get("/api/v1/stats", headers=as_bearer(made.secret)).status_code == 401
    assert served.get("/api/v1/stats").status_code == 401, "and when the last one was revoked"


@pytest.mark.parametrize(
    "given", ["Bearer", "Bearer ast_wrong", "Bearer é", "Bearer " + "x" * 10_000, "Basic eDp5", "x"]
)
def test_a_wrong_token_is_never_nobodys(served: httpx.Client, given: str) -> None:
    answer = served.get("/api/v1/stats", headers=[(b"Authorization", given.encode())])
    assert answer.status_code == 401
    assert given.removeprefix("Bearer ") not in answer.text or given == "Bearer"


def test_who_gives_a_token_before_there_is_one_is_told_to_ask_without(served: httpx.Client, home: Path) -> None:
    wrong = as_bearer("ast_wrong")
    assert "ask without one" in served.get("/api/v1/stats", headers=wrong).json()["detail"]
    with AudioStorageSystem(home) as storage:
        storage.tokens.create()
    time.sleep(1.1)
    assert "unknown" in served.get("/api/v1/stats", headers=wrong).json()["detail"]


@pytest.mark.parametrize(
    "headers",
    [{"Host": "evil.example"}, {"Host": "evil.example:8765"}, {"Origin": "https://evil.example"}, {"Origin": "null"}],
)
def test_pages_of_others_get_nothing_of_an_archive_without_tokens(
    served: httpx.Client, headers: dict[str, str]
) -> None:
    answer = served.get("/api/v1/stats", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


@pytest.mark.parametrize(
    "headers",
    [{"X-Forwarded-For": "127.0.0.1"}, {"Forwarded": "for=10.0.0.7"}, {"Sec-Fetch-Site": "cross-site"}],
)
def test_nor_what_a_proxy_sends_on_or_a_page_embeds(served: httpx.Client, headers: dict[str, str]) -> None:
    assert served.get("/api/v1/stats", headers=headers).status_code == 403


def test_what_was_closed_does_not_open_when_its_last_user_is_removed(served: httpx.Client, home: Path) -> None:
    with AudioStorageSystem(home) as storage:
        storage.users.add("anna")
        secret = storage.tokens.create("anna").secret
        storage.users.remove("anna")
        assert storage.tokens.any()
    time.sleep(1.1)
    assert served.get("/api/v1/stats").status_code == 401
    assert served.get("/api/v1/stats", headers=as_bearer(secret)).status_code == 401


def test_where_a_request_comes_from_is_not_what_it_says(tmp_path: Path) -> None:
    with AudioStorageSystem(tmp_path / "archive", audit=True, encryption=bytes(32)) as storage:
        secret = storage.tokens.create(scopes=["admin"]).secret
        with serving(lambda: AudioStorageSystem(tmp_path / "archive", encryption=bytes(32))) as url:
            headers = {**as_bearer(secret), "X-Forwarded-For": "10.0.0.7"}
            assert httpx.get(f"{url}/api/v1/recordings", headers=headers, timeout=60).status_code == 200
        [entry] = [one for one in storage.audit.list().entries if one.action == "recordings.listed"]
        assert entry.origin.startswith("http:127.0.0.1@")


def test_pages_of_its_own_do(served: httpx.Client) -> None:
    own = str(served.base_url).rstrip("/")
    assert served.get("/api/v1/stats", headers={"Origin": own}).status_code == 200


def test_errors_are_problem_details(served: httpx.Client) -> None:
    answer = served.get("/api/v1/no-such-thing")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "Not Found",
        "code": "not_found",
        "retryable": False,
        "faults": [],
    }


def test_the_description_of_the_api_needs_no_other_server(served: httpx.Client) -> None:
    page = served.get("/docs")
    links = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert page.status_code == 200
    assert len(links) >= 2
    assert {served.get(link).status_code for link in links if link.startswith("/")} == {200}
    assert [link for link in links if not link.startswith("/")] == []


def test_the_description_has_the_colours_that_the_browser_prefers(served: httpx.Client) -> None:
    page = served.get("/docs").text
    assert 'matchMedia("(prefers-color-scheme: dark)")' in page
    (named,) = re.findall(r'classList\.toggle\("([^"]+)"', page)
    (styles,) = re.findall(r'href="([^"]+\.css)"', page)
    assert f"html.{named}" in served.get(styles).text


def test_who_opens_the_address_that_is_printed_comes_to_the_description(served: httpx.Client) -> None:
    assert served.get("/", follow_redirects=True).url.path == "/docs"


def test_health_needs_no_token(served: httpx.Client, home: Path) -> None:
    with AudioStorageSystem(home) as storage:
        storage.tokens.create()
    assert [served.get(path).status_code for path in ("/health", "/health/live", "/health/ready")] == [200] * 3


def test_a_public_address_without_tokens_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="audio-storage tokens create"):
        serve(str(tmp_path / "archive"), Options(host="0.0.0.0", port=0))  # noqa: S104 - refused


def test_what_blocks_the_event_loop_is_seen_by_these_tests(tmp_path: Path) -> None:
    async def blocking() -> None:
        time.sleep(0.01)

    with serving(lambda: AudioStorageSystem(tmp_path / "archive"), lambda app: app.get("/blocking")(blocking)) as url:
        answer = httpx.get(f"{url}/blocking", timeout=60)
        assert (answer.status_code, answer.json()["code"]) == (500, "unexpected")
        assert "sleep" not in answer.text


# The program


@contextmanager
def running(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command `serve`, and its address."""
    command = [sys.executable, "-m", "audio_storage_system.cli", "serve", "--json", "--port", "0", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, json.loads(process.stdout.readline())["url"]
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(60)


def children_of(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    return [int(line) for line in found.stdout.split()]


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(pids: list[int], seconds: float = 40) -> None:
    until = time.monotonic() + seconds
    while any(is_there(pid) for pid in pids):
        assert time.monotonic() < until, "it still runs"
        time.sleep(0.1)


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes as Linux shows them")
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_the_worker_is_there_and_ends_with_the_server(tmp_path: Path, call: Path, ending: signal.Signals) -> None:
    place = str(tmp_path / "archive")
    with AudioStorageSystem(place) as storage:
        job = storage.submit(call)
        with running("--archive", place) as (process, url):
            assert httpx.get(f"{url}/health/ready", timeout=120).status_code == 200
            assert storage.jobs.wait([job.id], 200)[0].state == "done"
            children = children_of(process.pid)
            assert len(children) == 1
            process.send_signal(ending)
            process.wait(60)
            wait_until_gone(children)


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is sent differently there")
def test_ctrl_c_is_how_it_ends_and_no_error(tmp_path: Path) -> None:
    with running("--archive", str(tmp_path / "archive"), "--no-worker") as (process, url):
        assert httpx.get(f"{url}/health/live", timeout=120).status_code == 200
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        assert process.stdout.read() == ""
        assert process.wait(60) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes as Linux shows them")
def test_a_worker_that_dies_is_started_again(tmp_path: Path) -> None:
    with running("--archive", str(tmp_path / "archive")) as (process, url):
        assert httpx.get(f"{url}/health/live", timeout=120).status_code == 200
        [first] = children_of(process.pid)
        os.kill(first, signal.SIGKILL)
        until = time.monotonic() + 30
        while not (now := [child for child in children_of(process.pid) if child != first]):
            assert time.monotonic() < until
            time.sleep(0.1)
        assert len(now) == 1


def test_what_it_listens_at_is_noted_while_it_runs(tmp_path: Path) -> None:
    place = str(tmp_path / "archive")
    with AudioStorageSystem(place) as storage:
        storage.tokens.create()
        with running("--archive", place, "--host", "0.0.0.0", "--no-worker") as (process, _):  # noqa: S104
            found = {one.name: one.evidence for one in storage.check_security().weaknesses}
            assert f"process {process.pid}" in found["served without TLS"]
        assert process.returncode == 0
        assert list((storage.home / "serving").iterdir()) == []


def test_several_web_processes_serve_one_archive(tmp_path: Path) -> None:
    with running("--archive", str(tmp_path / "archive"), "--workers", "2", "--no-worker") as (_, url):
        for _ in range(8):
            assert httpx.get(f"{url}/api/v1/stats", timeout=120).json()["recordings"] == 0


def test_web_processes_that_die_while_they_are_waited_for_are_replaced_at_once(tmp_path: Path) -> None:
    with running("--archive", str(tmp_path / "archive"), "--workers", "2", "--no-worker") as (process, url):
        assert httpx.get(f"{url}/health/ready", timeout=120).status_code == 200
        victims = children_of(process.pid)
        for signal_ in (signal.SIGSTOP, signal.SIGKILL):
            for victim in victims:
                os.kill(victim, signal_)
            time.sleep(2)  # so that it is one of them that is asked
        assert httpx.get(f"{url}/health/live", timeout=45).status_code == 200
