"""`/mcp`: who gets in, what is refused before the protocol sees it, and that any process can answer."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from audio_storage_system import AudioStorageSystem
from builders import Talk, fill
from mcp_sessions import over_http
from serving import as_bearer, serving
from test_server_search import Slow

ACCEPTED = {"Accept": "application/json, text/event-stream", "Mcp-Protocol-Version": "2025-11-25"}
# What each request of 2026 says.
ENVELOPE = {"protocolVersion": "2026-07-28", "clientInfo": {"name": "test", "version": "1"}, "clientCapabilities": {}}


@pytest.fixture
def secrets(home: Path) -> dict[str, str]:
    """An archive of two recordings on either catalogue, of which anna sees the second; tokens of both."""
    with AudioStorageSystem(home, audit=True) as storage:
        fill(storage._archive, [Talk(["the harbour is closed"]), Talk(["the harbour is open"])])
        storage.users.add("anna")
        storage.grants.give("anna", "reader", audio_id=2)
        return {name: storage.tokens.create(name).secret for name in ("owner", "anna")}


@pytest.fixture
def url(home: Path, secrets: dict[str, str]) -> Iterator[str]:
    """A server over it."""
    with serving(partial(AudioStorageSystem, home)) as address:
        yield address


def post(
    url: str, method: str, secret: str | None = None, headers: Any = None, timeout: float = 60, **params: Any
) -> httpx.Response:
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    given = {**ACCEPTED, **(as_bearer(secret) if secret else {}), **(headers or {})}
    return httpx.post(f"{url}/mcp", json=message, headers=given, timeout=timeout)


def said(answer: httpx.Response) -> Any:
    """The message in an answer, which is an event."""
    assert answer.status_code == 200, answer.text
    [data] = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    return json.loads(data)


def recordings(url: str, secret: str) -> list[int]:
    """What a call without a session before it lists."""
    answer = said(post(url, "tools/call", secret, name="list_recordings", arguments={}))
    return [one["audio_id"] for one in answer["result"]["structuredContent"]["recordings"]]


def test_each_request_is_answered_as_who_sends_it(url: str, secrets: dict[str, str]) -> None:
    assert recordings(url, secrets["anna"]) == [2]
    assert recordings(url, secrets["owner"]) == [2, 1]
    assert recordings(url, secrets["anna"]) == [2]


def test_who_has_no_token_is_told_to_bring_one(url: str) -> None:
    tried = itertools.product([None, "ast_wrong", "x" * 5000], ["initialize", "tools/call", "server/discover"])
    for given, method in tried:
        answer = post(url, method, given)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert answer.json()["code"] == "unauthorized" and (given or "harbour") not in answer.text


def test_a_client_without_a_token_is_refused(url: str) -> None:
    with pytest.raises(ExceptionGroup), over_http(url, "ast_wrong"):
        pass


def test_a_token_that_is_revoked_is_accepted_no_longer(home: Path, url: str, secrets: dict[str, str]) -> None:
    with over_http(url, secrets["anna"]) as session, AudioStorageSystem(home) as storage:
        assert session.ask("list_recordings")["recordings"]
        [token] = storage.tokens.list("anna")
        storage.tokens.revoke(token.id)
        assert post(url, "tools/list", secrets["anna"]).status_code == 401


def test_any_process_answers(home: Path, url: str, secrets: dict[str, str]) -> None:
    arguments = {"name": "list_recordings", "arguments": {"limit": 1}}
    first = said(post(url, "tools/call", secrets["owner"], **arguments))["result"]["structuredContent"]
    with serving(partial(AudioStorageSystem, home)) as other:
        arguments["arguments"] = {"limit": 1, "cursor": first["next_cursor"]}  # type: ignore[assignment]
        second = said(post(other, "tools/call", secrets["owner"], **arguments))["result"]["structuredContent"]
    assert [one["audio_id"] for one in (*first["recordings"], *second["recordings"])] == [2, 1]
    assert "next_cursor" not in second


@pytest.mark.parametrize("with_token", [True, False])
def test_pages_of_other_origins_are_kept_out(url: str, secrets: dict[str, str], with_token: bool) -> None:
    secret = secrets["owner"] if with_token else None
    for origin in ("https://evil.example", "null"):
        assert post(url, "tools/list", secret, {"Origin": origin}).status_code == 403
    assert post(url, "tools/list", secrets["owner"], {"Origin": url}).status_code == 200


def test_an_archive_without_tokens_answers_to_its_own_names(tmp_path: Path) -> None:
    with serving(partial(AudioStorageSystem, tmp_path / "archive")) as url:
        assert said(post(url, "tools/list"))["result"]["tools"]
        assert post(url, "tools/list", headers={"Host": "evil.example"}).status_code == 403
        with over_http(url) as session:
            assert "transcribe_file" not in session.tools() and "add_note" not in session.tools()


def test_no_file_is_read_for_another_machine(home: Path, secrets: dict[str, str]) -> None:
    with serving(partial(AudioStorageSystem, home, mcp_writes=True)) as url, AudioStorageSystem(home) as storage:
        writer = storage.tokens.create("owner", scopes=["write"]).secret
        names = [tool["name"] for tool in said(post(url, "tools/list", writer))["result"]["tools"]]
        assert "set_metadata" in names and "transcribe_file" not in names
        call = {"name": "transcribe_file", "arguments": {"path": "/etc/passwd"}}
        assert said(post(url, "tools/call", writer, **call))["error"]["code"] == -32602


def test_there_is_no_stream_to_hold_open(url: str, secrets: dict[str, str]) -> None:
    for method in ("GET", "DELETE", "PUT", "HEAD"):
        answer = httpx.request(method, f"{url}/mcp", headers={**ACCEPTED, **as_bearer(secrets["owner"])}, timeout=60)
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("version", ["2025-11-25", "2026-07-28"])
def test_the_work_ends_when_the_connection_does(home: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    slow, method = Slow(home, monkeypatch), "tools/call"
    asked: dict[str, Any] = {"name": "search_audio", "arguments": {"query": "budget"}}
    asked["_meta"] = {f"io.modelcontextprotocol/{key}": value for key, value in ENVELOPE.items()}
    headers = {"Mcp-Protocol-Version": version, "Mcp-Method": method, "Mcp-Name": "search_audio"}
    with serving(partial(AudioStorageSystem, home, search_seconds=600)) as url:
        with pytest.raises(httpx.ReadTimeout):
            post(url, method, headers=headers, timeout=1.0, **asked)
        assert slow.becomes(0)


ODD: list[tuple[bytes, dict[str, str], set[int]]] = [
    (b"", {}, {400}),
    (b"{", {}, {400}),
    (b"\xff\xfe", {}, {400}),
    (b"[]", {}, {400}),
    (b"[" * 100_000, {}, {400}),
    (b'{"jsonrpc":"2.0","id":1}', {}, {400}),
    (b"{}", {"Content-Type": "text/plain"}, {400, 415}),
    (b"{}", {"Accept": "text/html"}, {406}),
    (b"{}", {"Mcp-Protocol-Version": "1999-01-01"}, {400}),
    (b"{}", {"Mcp-Protocol-Version": "2026-07-28"}, {400, 202}),
    (b" " * (3 << 20), {}, {413}),
]


def test_odd_requests_are_refused(url: str, secrets: dict[str, str]) -> None:
    for body, headers, statuses in ODD:
        given = {"Content-Type": "application/json", **ACCEPTED, **as_bearer(secrets["owner"]), **headers}
        answer = httpx.post(f"{url}/mcp", content=body, headers=given, timeout=60)
        assert answer.status_code in statuses, (body[:40], headers, answer.text)
        assert "Traceback" not in answer.text
    assert recordings(url, secrets["owner"]) == [2, 1]


def test_the_audit_log_knows_who_read_what_from_where(home: Path, secrets: dict[str, str]) -> None:
    with serving(partial(AudioStorageSystem, home)) as url, over_http(url, secrets["anna"]) as session:
        session.ask("search_audio", query="harbour", mode="keyword")
        session.read("audio-storage://recordings/2/transcript")
    with AudioStorageSystem(home) as storage:
        entries = [entry for entry in storage.audit.list().entries if entry.principal == "anna"]
    assert {"search", "transcript.read"} <= {entry.action for entry in entries}
    assert all(entry.origin.startswith("http:127.0.0.1@") for entry in entries)
