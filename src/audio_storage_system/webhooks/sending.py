"""One call: an HTTP POST to an address that was checked, bounded in time and in what is read of the answer.

The socket is opened here, to an address that `addresses` allows, and handed to `http.client`: it knows of no proxy,
follows no redirection, and nobody looks the name up a second time. The name stays in `Host`, and TLS proves it.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from audio_storage_system.errors import InvalidInput
from audio_storage_system.webhooks.addresses import IPAddress, Refused, Target, parse, resolve

CONNECT_SECONDS, TOTAL_SECONDS = 5.0, 10.0
# So much of an answer is read, and nothing of it is kept: who closes before may be taken for one who broke off.
ANSWER_BYTES = 16_384


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a call: the HTTP status, or why there was none, in words without anything that the receiver said."""

    status: int | None
    reason: str | None

    @property
    def ok(self) -> bool:
        """Whether the receiver took it."""
        return self.status is not None and 200 <= self.status < 300


def post(url: str, headers: Mapping[str, str], body: bytes, *, allow_private: bool) -> Answer:
    """Call once. It takes at most 10 s, of which 5 s to connect, and what the system takes to look the name up."""
    try:
        target = parse(url, allow_private=allow_private)
        addresses = resolve(target, allow_private=allow_private)
        with _within(TOTAL_SECONDS) as opened:
            _connect(target, addresses, opened)
            return _call(target, opened, headers, body)
    except (InvalidInput, Refused) as error:
        return Answer(None, f"refused: {error}")
    except (OSError, http.client.HTTPException) as error:
        return Answer(None, _words(error))


class _Opened:
    """The socket of a call, which ends with its time."""

    def __init__(self) -> None:
        self.socket: socket.socket | None = None
        self.late = False
        self._lock = threading.Lock()

    def hold(self, made: socket.socket) -> socket.socket:
        """Have this one ended in time. Raises `TimeoutError` where that is now."""
        with self._lock:
            if self.late:
                made.close()
                raise TimeoutError
            self.socket = made
        return made

    def end(self) -> None:
        """The time is up: who reads or writes finds the connection closed."""
        with self._lock:
            self.late = True
            if self.socket is not None:
                try:
                    socket.socket.shutdown(self.socket, socket.SHUT_RDWR)  # TLS's own would wait for the other side
                except OSError:
                    pass


@contextmanager
def _within(seconds: float) -> Iterator[_Opened]:
    """Whatever happens in the block ends within so many seconds, as a `TimeoutError`."""
    opened = _Opened()
    timer = threading.Timer(seconds, opened.end)
    timer.daemon = True
    timer.start()
    try:
        yield opened
    except (OSError, http.client.HTTPException) as error:
        raise TimeoutError if opened.late else error from error
    finally:
        timer.cancel()
        if opened.socket is not None:
            opened.socket.close()


def _connect(target: Target, addresses: list[IPAddress], opened: _Opened) -> None:
    """Connect to the target at the first of these that takes it."""
    plain = opened.hold(_reach(target.port, addresses))
    if target.scheme != "https":
        return
    context = ssl.create_default_context()
    try:
        secure = context.wrap_socket(plain, server_hostname=target.host, do_handshake_on_connect=False)
    except ValueError as error:  # a resolver may know names that TLS does not
        raise socket.gaierror("it is no name of a host") from error
    opened.hold(secure)
    secure.do_handshake()


def _reach(port: int, addresses: list[IPAddress]) -> socket.socket:
    until, failure = time.monotonic() + CONNECT_SECONDS, OSError()
    for address in addresses:
        if (left := until - time.monotonic()) <= 0:
            raise TimeoutError
        try:
            made = socket.create_connection((str(address), port), timeout=left)
        except OSError as error:
            failure = error
        else:
            made.settimeout(TOTAL_SECONDS)
            return made
    raise failure


def _call(target: Target, opened: _Opened, headers: Mapping[str, str], body: bytes) -> Answer:
    connection = http.client.HTTPConnection(target.host, target.port)
    connection.sock = opened.socket
    try:
        connection.request("POST", target.path, body, {"Host": target.netloc, "Connection": "close", **headers})
        response = connection.getresponse()
        with response:
            if opened.late:  # headers that were cut off look as if they had ended
                raise TimeoutError
            status = response.status
            _hear_out(response)
    finally:
        connection.close()
    return Answer(status, None if 200 <= status < 300 else f"answered {status}")


def _hear_out(response: http.client.HTTPResponse) -> None:
    try:
        response.read(ANSWER_BYTES)
    except (OSError, http.client.HTTPException):  # what counts, the status, is known
        pass


def _words(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return "no secure connection"
    if isinstance(error, socket.gaierror):
        return "its name is not known"
    if isinstance(error, ConnectionRefusedError):
        return "it refuses connections"
    return "it speaks no HTTP" if isinstance(error, http.client.HTTPException) else "the connection broke off"
