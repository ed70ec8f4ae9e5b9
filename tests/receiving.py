"""A receiver of webhooks: a real HTTP server that keeps what it is told and answers as a test wants; and deliveries."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from audio_storage_system import AudioStorageSystem
from audio_storage_system.webhooks import Deliverer, Delivery
from catalogues import plain_sql
from sounds import noise, wav


@dataclass(frozen=True)
class Call:
    """One request."""

    path: str
    headers: dict[str, str]  # by names in lower case
    body: bytes

    @property
    def said(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def event(self) -> str:
        return str(self.said["event"])

    def is_signed(self, secret: str) -> bool:
        """Whether both signatures are those of this secret, computed here from what their conventions say."""
        of = self.headers
        signed = f"{of['webhook-id']}.{of['webhook-timestamp']}.".encode() + self.body
        key = base64.b64decode(secret.removeprefix("whsec_"))
        standard = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        plain = "sha256=" + hmac.new(secret.encode(), self.body, hashlib.sha256).hexdigest()
        return of["webhook-signature"] == standard and of["x-audio-storage-signature"] == plain


@dataclass
class Receiver:
    """What was received, and what is answered: a status, or what is done with the connection."""

    url: str = ""
    calls: list[Call] = field(default_factory=list)
    answer: Callable[[Call, BaseHTTPRequestHandler], int] = lambda call, handler: 204
    sni: str | None = None

    def events(self) -> list[tuple[str, int | None]]:
        return [(call.event, call.said["audio_id"]) for call in self.calls]


@contextmanager
def receiving(context: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> Iterator[Receiver]:
    """A receiver on this machine."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            body = self.rfile.read(length)
            if len(body) < length:  # whoever called has died over it
                return
            call = Call(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
            receiver.calls.append(call)
            status = receiver.answer(call, self)
            if status:
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

        def log_message(self, *given: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, *given: Any) -> None:
            pass  # whoever called has gone

    with Server((host, 0), Handler) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        scheme = "https" if context else "http"
        receiver.url = f"{scheme}://{host}:{server.server_address[1]}/hook"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def private_receivers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Webhooks may lead to this machine, in archives that are opened from now on."""
    monkeypatch.setenv("AUDIO_STORAGE_WEBHOOK_ALLOW_PRIVATE", "1")


@pytest.fixture
def receiver(private_receivers: None) -> Iterator[Receiver]:
    with receiving() as running:
        yield running


@pytest.fixture
def sound(tmp_path: Path) -> Callable[[], Path]:
    """A file that nobody has stored."""
    numbers = iter(range(1_000))

    def make() -> Path:
        number = next(numbers)
        path = tmp_path / f"{number}.wav"
        path.write_bytes(wav(noise(0.2, seed=number)))
        return path

    return make


def deliver(storage: AudioStorageSystem) -> None:
    """Send what is due, as a worker does."""
    sender = Deliverer(storage._archive)
    sender.start()
    try:
        until = time.monotonic() + 20
        while not sender.is_idle():
            assert time.monotonic() < until, "there is always something to send"
            time.sleep(0.01)
    finally:
        sender.stop()


def hurry(storage: AudioStorageSystem) -> None:
    """Let the time come for what waits."""
    plain_sql(storage.home, "UPDATE webhook_deliveries SET due_at = created_at WHERE outcome IS NULL")


def told(storage: AudioStorageSystem, webhook_id: int = 1) -> list[Delivery]:
    """Its deliveries, the oldest first."""
    return list(reversed(storage.webhooks.deliveries(webhook_id).deliveries))
