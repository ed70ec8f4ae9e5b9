"""A server over an archive, for tests: the application in a thread of this process, on a port of its own."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import uvicorn
from blockbuster import BlockBuster
from fastapi import FastAPI

from audio_storage_system import AudioStorageSystem
from audio_storage_system.server import create_app
from audio_storage_system.server.protocol import BoundedProtocol
from audio_storage_system.server.serving import configuration

STARTED_WITHIN = 30.0


@contextmanager
def serving(
    open_archive: Callable[[], AudioStorageSystem],
    prepare: Callable[[FastAPI], None] = lambda app: None,
    *,
    proxies: str = "",
) -> Iterator[str]:
    """The address of a server over what this opens, for as long as the block. prepare: may add to the application;
    proxies: the addresses of those that it trusts.

    Whatever of our code blocks the server's event loop is an error there: disks, databases, locks, sleeping.
    """
    app = create_app(open_archive)
    prepare(app)
    server = uvicorn.Server(configuration(app, proxies=proxies, port=0))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    watch = BlockBuster(scanned_modules=["audio_storage_system"])
    try:
        port = _port_of(server, thread)
        watch.activate()
        yield f"http://127.0.0.1:{port}"
    finally:
        watch.deactivate()
        server.should_exit = True
        thread.join(STARTED_WITHIN)


def _port_of(server: uvicorn.Server, thread: threading.Thread) -> int:
    until = time.monotonic() + STARTED_WITHIN
    while not server.started:
        assert thread.is_alive() and time.monotonic() < until, "the server did not start"
        time.sleep(0.01)
    port: int = server.servers[0].sockets[0].getsockname()[1]
    return port


@pytest.fixture
def served(home: Path) -> Iterator[httpx.Client]:
    """A client of a server over an archive, on SQLite and on PostgreSQL; without a token as long as none was made."""
    with serving(lambda: AudioStorageSystem(home)) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client


@pytest.fixture
def long_tasks_may_fail_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails at once is answered with its status, however slow the machine."""
    monkeypatch.setattr("audio_storage_system.server.long_tasks.PATIENCE_SECONDS", 60.0)


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Whether a server has lost a connection."""
    happened, connection_lost = threading.Event(), BoundedProtocol.connection_lost

    def noted(self: BoundedProtocol, exc: Exception | None) -> None:
        connection_lost(self, exc)
        happened.set()

    monkeypatch.setattr(BoundedProtocol, "connection_lost", noted)
    return happened


@contextmanager
def connected(url: str, source: str = "") -> Iterator[socket.socket]:
    """A bare connection to a server. source: the address that it comes from."""
    place = urlsplit(url)
    where = (place.hostname or "", place.port or 0)
    with socket.create_connection(where, 20, source_address=(source, 0) if source else None) as made:
        yield made


def as_bearer(secret: str) -> dict[str, str]:
    """The header that shows a token."""
    return {"Authorization": f"Bearer {secret}"}
