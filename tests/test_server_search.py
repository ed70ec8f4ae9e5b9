"""Finding over HTTP: the same hits as the library's, within limits, and no work for clients that are gone."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from sqlalchemy import text

from audio_storage_system import AudioStorageSystem
from audio_storage_system.catalogue import fulltext
from audio_storage_system.server import app
from builders import Talk, fill
from serving import as_bearer, serving
from test_cancellation import SLOW

TALKS = [
    Talk(
        ["the budget for next year is two million", "we hire three engineers", "the budget again"],
        {"project": "move", "week": 40, "tags": ["a", "b"]},
        datetime(2026, 11, 1, 9, tzinfo=UTC),
        speakers=["Anna", "Ben", "Anna"],
    ),
    Talk(
        ["the budget of the garden", "apple trees"],
        {"project": "garden", "week": 45},
        datetime(2026, 11, 10, tzinfo=UTC),
    ),
    Talk(["das Budget für nächstes Jahr"], {"week": 50.5}, datetime(2026, 12, 1, tzinfo=UTC), language="de"),
    Talk(["nothing of the kind, said twice", "said twice"]),
]


@pytest.fixture
def place(home: Path) -> Path:
    """An archive with talks."""
    with AudioStorageSystem(home) as storage:
        space, _ = storage._archive.spaces.text()
        embed = storage.generate_text_embedding
        fill(storage._archive, [replace(talk, vectors=[embed(text) for text in talk.texts]) for talk in TALKS], space)
    return home


@pytest.fixture
def client(place: Path) -> Iterator[httpx.Client]:
    """A client of a server that lets searches run for minutes."""
    with (
        serving(lambda: AudioStorageSystem(place, search_seconds=600)) as url,
        httpx.Client(base_url=f"{url}/api/v1", timeout=30) as made,
    ):
        yield made


QUERIES: list[dict[str, Any]] = [
    {"text": "budget"},
    {"text": "budget", "mode": "keyword"},
    {"text": "money for the coming year", "mode": "semantic"},
    {"text": "budget", "limit": 1},
    {"text": "budget", "limit": 1, "offset": 1},
    {"text": "budget", "context": 1},
    {"text": "budget", "where": {"project": "move"}},
    {"text": "budget", "where": {"project": ["move", "garden"], "week": {"gte": 41}}},
    {"text": "budget", "where": {"project": {"exists": False}}},
    {"text": "budget", "where": {"audio_id": 2}},
    {"text": "budget", "since": "2026-11-05", "until": "2026-12-01T00:00:00+01:00"},
    {"text": "budget", "language": "de"},
    {"text": "budget", "speaker": "Anna"},
    {"text": "budget", "space": "wordllama"},
    {"text": "nobody ever said this xyzzy", "mode": "keyword"},
    {"text": ""},
    {"text": '"the budget" -garden'},
]


def test_answers_are_those_of_the_library(client: httpx.Client, place: Path) -> None:
    with AudioStorageSystem(place) as storage:
        for query in QUERIES:
            answer = client.post("/search", json=query)
            assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json"), answer.text
            assert answer.json() == json.loads(json.dumps(storage.search_similar_audio(**query).as_dict())), query
    found = [client.post("/search", json=query).json()["hits"] for query in QUERIES]
    assert len({json.dumps(hits) for hits in found}) > len(QUERIES) / 2, "each filter makes a difference"


CONDITIONS: list[tuple[list[str], dict[str, Any]]] = [
    (["project=move"], {"project": "move"}),
    (["week>=41", "week<50"], {"week": {"gte": 41, "lt": 50}}),
    (["project in move,garden"], {"project": ["move", "garden"]}),
    (["!project"], {"project": {"exists": False}}),
    (['{"week": {"gt": 41}}', "project"], {"week": {"gt": 41}, "project": {"exists": True}}),
]


def test_conditions_may_be_written_in_the_address(client: httpx.Client) -> None:
    asked = {"text": "budget", "mode": "keyword"}
    for where, mapping in CONDITIONS:
        answer = client.get("/search", params={**asked, "where": where})
        assert answer.status_code == 200, answer.text
        assert answer.json() == client.post("/search", json={**asked, "where": mapping}).json()
        assert 0 < len(answer.json()["hits"]) < 4, where


def test_pages_follow_one_another(client: httpx.Client) -> None:
    whole = client.get("/search", params={"text": "budget year", "mode": "keyword"}).json()["hits"]
    pages = [
        client.get("/search", params={"text": "budget year", "mode": "keyword", "limit": 1, "offset": n})
        for n in range(4)
    ]
    assert len(whole) == 4
    assert [page.json()["hits"][0]["passage_id"] for page in pages] == [hit["passage_id"] for hit in whole]


def test_what_has_no_vector_has_no_similarity(home: Path) -> None:
    with AudioStorageSystem(home) as storage:
        fill(storage._archive, [Talk(["the budget"])])
    with serving(lambda: AudioStorageSystem(home)) as url:
        answer = httpx.get(f"{url}/api/v1/search", params={"text": "budget"}, timeout=60)
    assert answer.json()["hits"][0]["similarity"] is None
    assert "reembed" in answer.json()["warnings"][0]
    assert "NaN" not in answer.text


def test_a_context_pack_has_links_to_listen_to(client: httpx.Client, place: Path) -> None:
    query = {"text": "budget", "max_tokens": 200, "where": {"project": "move"}}
    pack = client.post("/context", json=query).json()
    with AudioStorageSystem(place) as storage:
        expected = storage.context_pack(**query).as_dict()
    links = [citation.pop("audio") for citation in pack["citations"]]
    assert pack == json.loads(json.dumps(expected))
    assert pack["text"].startswith("[1] talk0.wav, Anna")
    assert (
        links[0]
        == f"/api/v1/recordings/1/audio#t={expected['citations'][0]['start']},{expected['citations'][0]['end']}"
    )
    assert client.post("/context", json={"text": "budget", "max_tokens": 1}).json()["citations"] == []


@pytest.mark.parametrize("by", ["audio", "transcript", "combined"])
def test_an_example_finds_what_it_finds_in_the_library(
    storage: AudioStorageSystem, call: Path, scripted_engine: Any, by: Any
) -> None:
    storage.add(call, metadata={"n": 1})
    fields = {"by": by, "limit": "3", "where": '{"n": 1}', "language": ""}
    with serving(lambda: AudioStorageSystem(storage.home, transcriber="scripted")) as url, call.open("rb") as file:
        answer = httpx.post(f"{url}/api/v1/search/audio", files={"file": file}, data=fields, timeout=30)
        none = httpx.post(
            f"{url}/api/v1/search/audio",
            files={"file": call.read_bytes()},
            data={**fields, "where": '{"n": 2}'},
            timeout=30,
        )
    expected = storage.search_similar_audio(audio=call, by=by, limit=3, where={"n": 1})
    assert answer.json() == json.loads(json.dumps(expected.as_dict()))
    assert len(answer.json()["hits"]) > 0
    assert none.json()["hits"] == []


NO_EXAMPLES: list[tuple[Any, dict[str, str], int]] = [
    ({"file": b"this is no sound"}, {}, 415),
    ({"file": b""}, {}, 415),
    ({"other": b"x"}, {}, 400),
    ([("file", b"x"), ("file", b"y")], {}, 400),
    ([("file", b"x"), ("more", b"y")], {}, 400),
    ({"file": b"x"}, {"by": "nothing"}, 422),
    ({"file": b"x"}, {"limit": "-1"}, 422),
    ({"file": b"x"}, {"unknown": "1"}, 422),
    ({"file": b"x"}, {"where": "{"}, 400),
    ({"file": b"x"}, {"where": '{"a": NaN}'}, 400),
    ({"file": b"x"}, {"whisper_model": "no:such"}, 400),
]


def test_what_is_no_example_is_refused(client: httpx.Client) -> None:
    for files, fields, status in NO_EXAMPLES:
        answer = client.post("/search/audio", files=files, data=fields)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), fields


def test_an_example_too_large_is_refused_unread(client: httpx.Client) -> None:
    with left(client, "POST", "/search/audio", length=1 << 40) as connection:
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 413")


# Whose recordings


def test_only_what_the_token_shows_is_found(place: Path) -> None:
    with AudioStorageSystem(place) as storage:
        storage.users.add("anna")
        storage.grants.give("anna", "reader", audio_id=2)
        secret = storage.tokens.create("anna").secret
    with (
        serving(lambda: AudioStorageSystem(place)) as url,
        httpx.Client(base_url=f"{url}/api/v1", timeout=30) as client,
    ):
        assert client.get("/search", params={"text": "budget"}).status_code == 401
        found = client.get("/search", params={"text": "budget"}, headers=as_bearer(secret)).json()
        assert {hit["audio_id"] for hit in found["hits"]} == {2}
        pack = client.post("/context", json={"text": "budget"}, headers=as_bearer(secret)).json()
        assert {citation["audio_id"] for citation in pack["citations"]} == {2}


# What cannot be asked


ODD: list[bytes] = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'{"text": 1}',
    b'{"text": "a", "unknown": 1}',
    b'{"text": "\xff"}',
    b'{"text": "a\\u0000b"}',
    b'{"text": "\\ud800"}',
    b'{"text": "a", "limit": 0}',
    b'{"text": "a", "limit": -1}',
    b'{"text": "a", "limit": 1e30}',
    b'{"text": "a", "limit": 1000000000000000000000000000000}',
    b'{"text": "a", "offset": 1000000000000000000000000000000}',
    b'{"text": "a", "context": 21}',
    b'{"text": "a", "deadline": NaN}',
    b'{"text": "a", "deadline": -1}',
    b'{"text": "a", "deadline": Infinity}',
    b'{"text": "a", "mode": "psychic"}',
    b'{"text": "a", "since": "yesterday"}',
    b'{"text": "a", "until": "\\u0000"}',
    b'{"text": "a", "speaker": "\\udfff"}',
    b'{"text": "a", "language": "\\u0000"}',
    b'{"text": "a", "space": "no such model"}',
    b'{"text": "a", "where": []}',
    b'{"text": "a", "where": {"": 1}}',
    b'{"text": "a", "where": {"k": NaN}}',
    b'{"text": "a", "where": {"k": -Infinity}}',
    b'{"text": "a", "where": {"k": {"gt": NaN}}}',
    b'{"text": "a", "where": {"duration": {"gt": NaN}}}',
    b'{"text": "a", "where": {"k": "\\ud800"}}',
    b'{"text": "a", "where": {"k": "\\u0000"}}',
    b'{"text": "a", "where": {"k": {"nosuch": 1}}}',
    b'{"text": "a", "where": {"k": {"in": 1}}}',
    b'{"text": "a", "where": {"original_name": "\\u0000"}}',
    b'{"text": "a", "where": {"original_name": "\\ud800"}}',
    b'{"text": "a", "where": {"original_name": ["\\u0000"]}}',
    b'{"text": "a", "where": {"audio_id": "x"}}',
    b'{"text": "a", "where": {"duration": {"gt": "x"}}}',
    b'{"text": "a", "where": {"k": ' + b"[" * 5000 + b"]" * 5000 + b"}}",
    b'{"text": "a", "where": {' + b",".join(b'"k%d": 1' % n for n in range(65)) + b"}}",
    b'{"text": "' + b"x" * 200_000 + b'"}',
    b'{"text": "' + b"x" * 2_000_000 + b'"}',
]


def test_odd_searches_are_refused_in_words(client: httpx.Client) -> None:
    for body in ODD:
        answer = client.post("/search", content=body, headers={"Content-Type": "application/json"})
        assert 400 <= answer.status_code < 500, (body[:100], answer.text[:500])
        assert answer.headers["content-type"] == "application/problem+json"


LARGE = 10**30


NUMBERS: list[dict[str, Any]] = [
    {"k": LARGE},
    {"k": -LARGE},
    {"k": {"gt": LARGE}},
    {"k": {"gt": 10**400}},
    {"duration": LARGE},
    {"audio_id": LARGE},
    {"audio_id": [LARGE]},
    {"audio_id": -1},
    {"k": None},
    {"k": {"a": {"b": []}}},
    {"k": [[], {}]},
]


def test_odd_numbers_find_nothing_or_are_refused(client: httpx.Client) -> None:
    for where in NUMBERS:
        answer = client.post("/search", json={"text": "budget", "where": where})
        assert answer.status_code in (200, 400, 422), (where, answer.text)
        assert answer.status_code != 200 or answer.json()["hits"] == [], where


ADDRESSES: list[dict[str, Any]] = [
    {},
    {"text": "a", "unknown": "1"},
    {"text": "a\0b"},
    {"text": "a", "where": "=="},
    {"text": "a", "where": 'a in "x\ny"\nz'},
    {"text": "a", "where": "{"},
    {"text": "a", "where": ["a=1", '{"a": 2}']},
    {"text": "a", "where": "a " * 5000},
    {"text": "a", "where": "a=\0"},
    {"text": "a", "limit": "ten"},
    {"text": "a", "deadline": "nan"},
    {"text": "a", "limit": str(LARGE)},
]


def test_odd_addresses_are_refused_in_words(client: httpx.Client) -> None:
    for params in ADDRESSES:
        answer = client.get("/search", params=params)
        assert 400 <= answer.status_code < 500, (params, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"


def test_addresses_that_are_no_text_are_no_errors_of_ours(client: httpx.Client) -> None:
    assert client.get("/search?text=%ff%fe%ed%a0%80").status_code in (200, 422)


# Deadlines, and clients that go away


class Slow:
    """Has every search by words wait for the database for minutes; knows how many do."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.running, self.off = 0, False
        found, lock = fulltext.search, threading.Lock()
        with AudioStorageSystem(home) as storage:
            dialect = storage._archive.database.dialect.name

        def slow(connection: Any, *given: Any, **further: Any) -> Any:
            if self.off:
                return found(connection, *given, **further)
            with lock:
                self.running += 1
            try:
                connection.execute(text(SLOW[dialect]))
            finally:
                with lock:
                    self.running -= 1
            return found(connection, *given, **further)

        monkeypatch.setattr(fulltext, "search", slow)

    def becomes(self, count: int) -> bool:
        until = time.monotonic() + 30
        while self.running != count and time.monotonic() < until:
            time.sleep(0.02)
        return self.running == count


@pytest.fixture
def slow(place: Path, monkeypatch: pytest.MonkeyPatch) -> Slow:
    return Slow(place, monkeypatch)


@pytest.mark.parametrize("path", ["search", "context"])
def test_a_search_ends_at_its_deadline(slow: Slow, client: httpx.Client, path: str) -> None:
    began = time.monotonic()
    answer = client.post(f"/{path}", json={"text": "budget", "deadline": 0.3})
    assert (answer.status_code, answer.json()["code"], answer.json()["retryable"]) == (504, "deadline_exceeded", True)
    assert 0.3 <= time.monotonic() - began < 30
    assert slow.becomes(0)


def test_nobody_may_ask_for_more_than_the_setting_allows(slow: Slow, place: Path) -> None:
    with serving(lambda: AudioStorageSystem(place, search_seconds=0.3)) as url:
        began = time.monotonic()
        for query in ({"text": "budget"}, {"text": "budget", "deadline": 1e9}):
            assert httpx.post(f"{url}/api/v1/search", json=query, timeout=30).status_code == 504
        assert time.monotonic() - began < 10


def test_no_time_at_all_finds_nothing(client: httpx.Client) -> None:
    assert client.post("/search", json={"text": "budget", "deadline": 0}).status_code == 504


def left(client: httpx.Client, method: str, path: str, body: bytes = b"", length: int | None = None) -> socket.socket:
    """A request that is sent and not waited for."""
    place = urlsplit(str(client.base_url))
    connection = socket.create_connection((place.hostname or "", place.port or 0), 20)
    head = f"{method} /api/v1{path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    connection.sendall(f"{head}Content-Length: {length or len(body)}\r\n\r\n".encode() + body)
    return connection


LEFT = [
    ("GET", "/search?text=budget", b""),
    ("POST", "/search", b'{"text": "budget"}'),
    ("POST", "/context", b'{"text": "budget"}'),
]


def test_the_work_ends_when_the_client_goes_away(slow: Slow, client: httpx.Client) -> None:
    for method, path, body in LEFT:
        waiting = [left(client, method, path, body) for _ in range(3)]
        assert slow.becomes(3), path
        for connection in waiting:
            connection.close()
        assert slow.becomes(0), f"nobody waits for {path}"


def test_threads_are_free_again(slow: Slow, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More clients than threads ask and go away: the next one is answered."""
    monkeypatch.setattr(app, "THREADS", 4)
    with (
        serving(lambda: AudioStorageSystem(place, search_seconds=600)) as url,
        httpx.Client(base_url=f"{url}/api/v1", timeout=30) as client,
    ):
        waiting = [left(client, "GET", "/search?text=budget") for _ in range(12)]
        assert slow.becomes(4)
        for connection in waiting:
            connection.close()
        slow.off = True
        assert client.get("/search", params={"text": "budget", "deadline": 20}).status_code == 200
        assert slow.becomes(0)
