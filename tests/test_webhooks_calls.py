"""Where webhooks may lead, and how one call goes: addresses, names, certificates, time, answers."""

from __future__ import annotations

import datetime as dt
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from audio_storage_system.errors import InvalidInput
from audio_storage_system.webhooks import addresses, sending
from audio_storage_system.webhooks.addresses import may_call, parse
from audio_storage_system.webhooks.sending import Answer, post
from receiving import Call, Receiver, receiving

NEVER = """
169.254.169.254 169.254.1.1 168.63.129.16 100.100.100.200 0.0.0.0 224.0.0.1 239.255.255.250 255.255.255.255 240.0.0.1
:: fe80::1 ff02::1 fd00:ec2::254 ::ffff:169.254.169.254 ::ffff:0.0.0.0 64:ff9b::a9fe:a9fe 2002:a9fe:a9fe::1
""".split()
PRIVATE = """
127.0.0.1 127.255.255.254 10.0.0.1 172.16.0.1 192.168.1.1 100.64.0.1 ::1 fd12:3456::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1
64:ff9b::7f00:1 2002:7f00:1::1 2002:c0a8:101::1 192.0.2.1 198.18.0.1 2001:db8::1 fec0::1
""".split()
PUBLIC = "8.8.8.8 1.1.1.1 2606:4700:4700::1111 ::ffff:8.8.8.8 64:ff9b::808:808 2002:808:808::1".split()


@pytest.mark.parametrize("address", NEVER)
def test_these_are_never_called(address: str) -> None:
    assert [may_call(ipaddress.ip_address(address), allow_private=allowed) for allowed in (False, True)] == [False] * 2


@pytest.mark.parametrize("address", PRIVATE)
def test_these_are_called_where_private_ones_are_allowed(address: str) -> None:
    assert [may_call(ipaddress.ip_address(address), allow_private=allowed) for allowed in (False, True)] == [
        False,
        True,
    ]


@pytest.mark.parametrize("address", PUBLIC)
def test_these_are_called(address: str) -> None:
    assert may_call(ipaddress.ip_address(address), allow_private=False)


@given(st.ip_addresses(v=4))
def test_writing_an_address_in_another_way_changes_nothing(address: ipaddress.IPv4Address) -> None:
    number = int(address)
    forms = [int(ipaddress.ip_address("::ffff:0:0")) + number, int(ipaddress.ip_address("64:ff9b::")) + number]
    forms.append((0x2002 << 112) + (number << 80) + 1)
    for allowed in (False, True):
        wanted = may_call(address, allow_private=allowed)
        assert [may_call(ipaddress.IPv6Address(form), allow_private=allowed) for form in forms] == [wanted] * 3
    assert may_call(address, allow_private=False) <= may_call(address, allow_private=True)


REFUSED = """
http://example.org/x ftp://example.org file:///etc/passwd gopher://example.org:70/ https:///x https:// example.org
https://user@example.org https://user:word@example.org https://example.org/?token=abc https://example.org/?api_key=1
https://example.org/#x https://127.0.0.1/ https://[::1]/ https://10.0.0.1:8443/ https://[::ffff:127.0.0.1]/
https://169.254.169.254/latest/meta-data https://example.org:0/ https://example.org:99999/ https://exa(mple.org\\@127.0.0.1/
javascript:alert(1) https://[::1 //example.org
""".split()


@pytest.mark.parametrize(
    "url",
    [*REFUSED, "", " https://example.org", "https://example.org/a b", "https://é.org/", "https://x.org/\n", 7, None],
)
def test_an_address_that_cannot_be_used_is_refused_when_it_is_given(url: Any) -> None:
    with pytest.raises(InvalidInput, match="address of the webhook"):
        parse(url, allow_private=False)


def test_a_long_address_is_refused() -> None:
    with pytest.raises(InvalidInput):
        parse("https://example.org/" + "x" * 2_000, allow_private=False)


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    for url in (text, f"https://{text}", f"https://example.org/{text}"):
        try:
            target = parse(url, allow_private=False)
        except InvalidInput:
            continue
        assert target.scheme == "https" and target.host and 0 < target.port < 65_536 and target.path.startswith("/")


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://example.org", ("https", "example.org", 443, "example.org", "/")),
        ("https://Example.org.:8443/a?b=c", ("https", "example.org", 8443, "Example.org.:8443", "/a?b=c")),
        ("http://[::1]:80", ("http", "::1", 80, "[::1]:80", "/")),
        ("http://localhost/x", ("http", "localhost", 80, "localhost", "/x")),
    ],
)
def test_what_an_address_says(url: str, target: tuple[Any, ...]) -> None:
    found = parse(url, allow_private=True)
    assert (found.scheme, found.host, found.port, found.netloc, found.path) == target


# Names


@contextmanager
def naming(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> Iterator[list[str]]:
    """What names stand for, asked one time after the other, the last from then on; who was asked about."""
    asked: list[str] = []
    whole = socket.getaddrinfo

    def getaddrinfo(host: str, port: int, *given: Any, **options: Any) -> Any:
        try:
            ipaddress.ip_address(host)
        except ValueError:
            now = answers[min(len(asked), len(answers) - 1)]
            asked.append(host)
            kinds = [socket.AF_INET6 if ":" in one else socket.AF_INET for one in now]
            return [(kind, socket.SOCK_STREAM, 6, "", (one, port)) for kind, one in zip(kinds, now, strict=True)]
        return whole(host, port, *given, **options)

    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", getaddrinfo)
        yield asked


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "169.254.169.254", "10.0.0.7", "fe80::1%lo"]
)
def test_a_name_that_stands_for_a_private_address_is_not_called(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    connected: list[Any] = []
    monkeypatch.setattr(socket, "create_connection", lambda *given, **options: connected.append(given))
    with naming(monkeypatch, [address]):
        answer = post("https://innocent.example/", {}, b"{}", allow_private=False)
    assert answer.status is None and "private" in str(answer.reason)
    assert connected == []


def test_a_name_that_means_something_else_a_moment_later_gains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: the address that was checked is the one that is connected to."""
    connected: list[str] = []

    def connect(address: tuple[str, int], timeout: float) -> socket.socket:
        connected.append(address[0])
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", connect)
    with naming(monkeypatch, ["8.8.8.8"], ["127.0.0.1"]) as asked:
        post("https://rebinding.example/", {}, b"{}", allow_private=False)
    assert (connected, asked) == (["8.8.8.8"], ["rebinding.example"])


def test_of_several_addresses_only_those_allowed_are_called(
    monkeypatch: pytest.MonkeyPatch, receiver: Receiver
) -> None:
    port = receiver.url.rsplit(":", 1)[1].partition("/")[0]
    with naming(monkeypatch, ["169.254.169.254", "127.0.0.1"]):
        answer = post(f"http://several.example:{port}/x", {}, b"{}", allow_private=True)
    assert answer == Answer(204, None)
    assert receiver.calls[0].headers["host"] == f"several.example:{port}"


@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "0177.0.0.1", "127.1", "localhost"])
def test_other_ways_to_write_this_machine_are_seen_through(host: str) -> None:
    answer = post(f"https://{host}/", {}, b"{}", allow_private=False)
    assert answer.status is None
    assert "private" in str(answer.reason) or "not known" in str(answer.reason)


@pytest.mark.parametrize("host", ["a..b", ".a", "-", "a" * 64, "xn--0", "x" * 300, "%00", "[v1.x]"])
@pytest.mark.parametrize("known", [True, False])
def test_what_is_no_name_is_an_answer_and_no_error(monkeypatch: pytest.MonkeyPatch, host: str, known: bool) -> None:
    with saying(lambda made: None) as url, naming(monkeypatch, ["127.0.0.1"]) if known else nullcontext():
        port = url.rsplit(":", 1)[1]
        assert post(f"https://{host}:{port}", {}, b"{}", allow_private=True).status is None


def test_a_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch, receiver: Receiver) -> None:
    with receiving() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        assert post(receiver.url, {}, b"{}", allow_private=True).ok
        assert (len(receiver.calls), proxy.calls) == (1, [])


# Certificates


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of `hooks.example` with its key, signed by itself."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hooks")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("hooks.example")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "hooks.pem"
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(key.private_bytes(*form) + made.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture
def secure(certificate: Path) -> Iterator[tuple[Receiver, list[str]]]:
    context, asked = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), list[str]()
    context.load_cert_chain(certificate)
    context.sni_callback = lambda sock, name, _: asked.append(name)
    with receiving(context) as running:
        yield running, asked


def test_the_name_is_proven_though_the_address_is_connected_to(
    monkeypatch: pytest.MonkeyPatch, certificate: Path, secure: tuple[Receiver, list[str]]
) -> None:
    receiver, asked = secure
    port = receiver.url.rsplit(":", 1)[1].partition("/")[0]
    with naming(monkeypatch, ["127.0.0.1"]):
        refused = post(f"https://hooks.example:{port}/", {}, b"{}", allow_private=True)
        assert "certificate" in str(refused.reason) and receiver.calls == []
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert post(f"https://hooks.example:{port}/", {}, b"{}", allow_private=True).ok
        assert post(f"https://other.example:{port}/", {}, b"{}", allow_private=True).status is None
    assert asked == ["hooks.example", "hooks.example", "other.example"]
    assert [call.headers["host"] for call in receiver.calls] == [f"hooks.example:{port}"]


def test_plain_http_where_tls_is_expected_is_no_connection(receiver: Receiver) -> None:
    answer = post(receiver.url.replace("http:", "https:"), {}, b"{}", allow_private=True)
    assert (answer.status, answer.reason) == (None, "no secure connection")


# Answers


def test_a_redirection_is_not_followed(receiver: Receiver) -> None:
    with receiving() as other:

        def redirect(call: Call, handler: BaseHTTPRequestHandler) -> int:
            handler.send_response(307)
            handler.send_header("Location", other.url)
            handler.end_headers()
            return 0

        receiver.answer = redirect
        assert post(receiver.url, {}, b"{}", allow_private=True) == Answer(307, "answered 307")
        assert other.calls == []


Raw = Callable[[socket.socket], None]


@contextmanager
def saying(what: Raw) -> Iterator[str]:
    """A server that does this with each connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        stop = threading.Event()

        def serve() -> None:
            server.settimeout(0.05)
            while not stop.is_set():
                try:
                    made, _ = server.accept()
                except TimeoutError:
                    continue
                with made:
                    try:
                        what(made)
                    except OSError:
                        pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/"
        finally:
            stop.set()
            thread.join()


def dripping(data: bytes, seconds: float) -> Raw:
    def drip(made: socket.socket) -> None:
        until = time.monotonic() + seconds
        for byte in data * 10_000:
            made.sendall(bytes([byte]))
            time.sleep(0.02)
            if time.monotonic() > until:
                return

    return drip


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        (lambda made: [*iter(lambda: made.recv(4096), b"")], "no answer in time"),
        (dripping(b"HTTP/1.1 200 OK\r\nX: ", 20), "no answer in time"),
        (lambda made: made.recv(10), "the connection broke off"),
        (lambda made: (made.recv(4096), made.sendall(b"\x00\xff" * 10 + b"\r\n"))[1], "it speaks no HTTP"),
        (
            lambda made: (made.recv(4096), made.sendall(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 5_000))[1],
            "it speaks no HTTP",
        ),
        (lambda made: (made.recv(4096), made.sendall(b"x" * 1_000_000))[1], "it speaks no HTTP"),
    ],
    ids=["silent", "dripping", "closing", "binary", "many headers", "endless line"],
)
def test_what_is_no_answer_ends_in_time(monkeypatch: pytest.MonkeyPatch, what: Raw, reason: str) -> None:
    monkeypatch.setattr(sending, "TOTAL_SECONDS", 0.6 if reason == "no answer in time" else 60.0)
    with saying(what) as url:
        began = time.monotonic()
        assert post(url, {}, b"{}", allow_private=True) == Answer(None, reason)
        assert time.monotonic() - began < 15


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"])
def test_of_an_endless_answer_only_a_little_is_read(head: bytes) -> None:
    sent = [0]

    def endless(made: socket.socket) -> None:
        made.recv(4096)
        made.sendall(head)
        piece = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
        while sent[0] < 200_000_000:
            made.sendall(piece)
            sent[0] += len(piece)

    with saying(endless) as url:
        assert post(url, {}, b"{}", allow_private=True) == Answer(200, None)
    assert sent[0] < 20_000_000


def test_a_handshake_that_drips_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "TOTAL_SECONDS", 0.6)
    record = b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc" + b"\x03" * 100
    with saying(dripping(record, 20)) as url:
        began = time.monotonic()
        answer = post(url.replace("http:", "https:"), {}, b"{}", allow_private=True)
        assert answer.status is None and time.monotonic() - began < 15


def test_nobody_is_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert post(f"http://127.0.0.1:{port}/", {}, b"", allow_private=True) == Answer(None, "it refuses connections")
    assert post("https://nobody.invalid/", {}, b"", allow_private=False) == Answer(None, "its name is not known")


def test_the_times_are_those_that_are_documented() -> None:
    assert (sending.CONNECT_SECONDS, sending.TOTAL_SECONDS, addresses.LONGEST_URL) == (5.0, 10.0, 2_000)
