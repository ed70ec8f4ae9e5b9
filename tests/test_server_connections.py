"""How many connections one address may have: nobody takes the places of all others."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import httpx
import pytest

from audio_storage_system import AudioStorageSystem
from audio_storage_system.server import protocol
from serving import connected, serving
from talking import talking

GREEDY, OTHER = "127.0.0.2", "127.0.0.1"  # both of this machine


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server with forty places, of which one address has ten."""
    monkeypatch.setattr("audio_storage_system.server.serving.MOST_CONNECTIONS", 40)
    monkeypatch.setattr(protocol, "MOST_OF_ONE", 10)
    with serving(partial(AudioStorageSystem, tmp_path / "archive")) as url:
        yield url


def received(connection: socket.socket) -> bytes:
    """All that comes before the server hangs up."""
    got = b""
    while block := connection.recv(1 << 16):
        got += block
    return got


def status_of(url: str, source: str = OTHER) -> int:
    with httpx.Client(transport=httpx.HTTPTransport(local_address=source), timeout=60) as client:
        return client.get(f"{url}/health/live").status_code


def test_one_address_has_not_more_than_its_share(url: str) -> None:
    with ExitStack() as held:
        for _ in range(protocol.MOST_OF_ONE):
            held.enter_context(connected(url, GREEDY))
        with connected(url, GREEDY) as refused:
            head, _, body = received(refused).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ") and b"content-type: application/problem+json" in head
        assert (json.loads(body)["code"], json.loads(body)["retryable"]) == ("busy", True)
        assert status_of(url, OTHER) == 200
    until = time.monotonic() + 30
    while status_of(url, GREEDY) != 200:
        assert time.monotonic() < until, "what was given back can be had again"


def test_silent_connections_of_one_address_leave_places_to_others(url: str) -> None:
    with ExitStack() as held:
        for _ in range(50):
            held.enter_context(connected(url, GREEDY))
        assert status_of(url, OTHER) == 200


def test_sockets_count(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MOST_OF_ONE", 1)
    with talking(url):
        assert status_of(url, OTHER) == 503
        assert status_of(url, GREEDY) == 200


def test_a_trusted_proxy_has_as_many_as_it_has_clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MOST_OF_ONE", 1)
    with (
        serving(partial(AudioStorageSystem, tmp_path / "archive"), proxies=OTHER) as url,
        connected(url, OTHER),
        connected(url, OTHER),
        connected(url, GREEDY),
    ):
        assert (status_of(url, OTHER), status_of(url, GREEDY)) == (200, 503)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
    ],
)
def test_whoever_has_an_address_of_ipv6_has_its_network(one: str, other: str, same: bool) -> None:
    assert (protocol.holder_of(one) == protocol.holder_of(other)) is same
