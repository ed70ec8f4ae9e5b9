"""A proxy that answers some requests as a bad day would: with an error, not at all, or with half of an answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

SKIPPED = {"transfer-encoding", "connection", "content-length", "date", "server"}

Fault = int | str | None
"""A status to answer with; `silence` (no answer), `lost` (the request is done, its answer is lost), `half` (the answer
breaks off half-way); `None` for an honest one."""


@dataclass
class Day:
    """`fault(method, path, number)` says what happens to a request; `seen` are the requests so far, `sent` is how many
    bytes they were answered with."""

    fault: Callable[[str, str, int], Fault] = lambda method, path, number: None
    seen: list[tuple[str, str]] = field(default_factory=list)
    sent: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next(self, method: str, path: str) -> Fault:
        with self.lock:
            self.seen.append((method, path))
            return self.fault(method, path, len(self.seen))


class Handler(BaseHTTPRequestHandler):
    """One request, passed on unless the day has it otherwise."""

    protocol_version = "HTTP/1.1"
    day: Day
    target: str

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        fault = self.day.next(self.command, self.path)
        if isinstance(fault, int):
            return self._answer(fault, [], b"<Error><Code>SlowDown</Code></Error>")
        if fault == "silence":
            time.sleep(0.2)
            return self._hang_up()
        try:
            status, headers, data = self._pass_on(body)
        except ConnectionError:  # a late request, when the server is gone: a mark taken away at the end
            return self._hang_up()
        if fault == "lost":
            return self._hang_up()
        self._answer(status, headers, data, broken=fault == "half")

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _handle

    def _pass_on(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = HTTPConnection(urlsplit(self.target).netloc, timeout=30)
        connection.request(self.command, self.path, body, dict(self.headers.items()))
        answer = connection.getresponse()
        found = answer.status, answer.getheaders(), answer.read()
        connection.close()
        if self.command == "HEAD":
            return found[0], [*found[1], ("Content-Length", answer.getheader("Content-Length") or "0")], b""
        return found

    def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes, *, broken: bool = False) -> None:
        self.send_response(status)
        length = str(len(data))
        for name, value in headers:
            if name.lower() not in SKIPPED:
                self.send_header(name, value)
            elif name == "Content-Length" and self.command == "HEAD":
                length = value
        self.send_header("Content-Length", length)
        self.end_headers()
        self.day.sent += len(data)
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if broken else data)
        if broken:
            self._hang_up()

    def _hang_up(self) -> None:
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is printed."""


@contextmanager
def faulty(target: str) -> Iterator[tuple[str, Day]]:
    """A proxy before the server at `target`: its address, and what its day is like."""
    day = Day()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"day": day, "target": target}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", day
    server.shutdown()
    server.server_close()  # waits for no request: those that still come find nobody
