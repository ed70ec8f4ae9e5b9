"""A small Google Cloud Storage: the part of its documented XML API that obstore uses, in memory, over real HTTP.

The emulators on PyPI speak the JSON API; of the XML API they lack multipart uploads, copies, lists and conditions.
`ignore_conditions` makes it a server that overwrites although told not to.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


class Objects:
    """What one server holds: for each path the bytes, the headers to answer with, and the generation."""

    def __init__(self, bucket: str) -> None:
        self.bucket, self.ignore_conditions = bucket, False
        self.lock = threading.RLock()
        self.found: dict[str, tuple[bytes, dict[str, str]]] = {}
        self.uploads: dict[str, tuple[dict[int, bytes], dict[str, str]]] = {}
        self.numbers = count(1)


class Handler(BaseHTTPRequestHandler):
    """One request: `/bucket/object` with the query and headers of the XML API."""

    protocol_version = "HTTP/1.1"
    objects: Objects

    def do_GET(self) -> None:
        if self._path() == "":
            return self._list()
        with self.objects.lock:
            found = self.objects.found.get(self._path())
        if found is None:
            return self._answer(404)
        return self._send_range(*found)

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        with self.objects.lock:
            if "uploadId" in self._query():
                self.objects.uploads[self._query()["uploadId"]][0][int(self._query()["partNumber"])] = body
                return self._answer(200, {"ETag": '"part"'})
            if source := self.headers["x-goog-copy-source"]:
                found = self.objects.found.get(unquote(source).lstrip("/").partition("/")[2])
                return self._store(*found) if found else self._answer(404)
            return self._store(body, self._kept_headers())

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        with self.objects.lock:
            if "uploads" in self._query():
                id = str(next(self.objects.numbers))
                self.objects.uploads[id] = ({}, self._kept_headers())
                return self._answer(200, body=f"<R><UploadId>{id}</UploadId></R>".encode())
            assert body
            parts, headers = self.objects.uploads.pop(self._query()["uploadId"])
            return self._store(b"".join(parts[number] for number in sorted(parts)), headers)

    def do_DELETE(self) -> None:
        with self.objects.lock:
            if "uploadId" in self._query():
                self.objects.uploads.pop(self._query()["uploadId"], None)
                return self._answer(204)
            return self._answer(204 if self.objects.found.pop(self._path(), None) else 404)

    def _store(self, data: bytes, headers: dict[str, str]) -> None:
        if self.headers["x-goog-if-generation-match"] == "0" and not self.objects.ignore_conditions:
            if self._path() in self.objects.found:
                return self._answer(412)
        etag = f'"{hashlib.sha256(data).hexdigest()}"'
        now = datetime.now(UTC)
        kept = {
            name: value for name, value in headers.items() if name.lower().startswith(("content-type", "x-goog-meta"))
        }
        kept |= {
            "ETag": etag,
            "Last-Modified": f"{now:%a, %d %b %Y %H:%M:%S GMT}",
            "iso": f"{now:%Y-%m-%dT%H:%M:%S.000Z}",
        }
        kept |= {"x-goog-generation": str(next(self.objects.numbers))}
        self.objects.found[self._path()] = (data, kept)
        return self._answer(200, kept, f"<R><ETag>{escape(etag)}</ETag></R>".encode())

    def _send_range(self, data: bytes, headers: dict[str, str]) -> None:
        if not (wanted := self.headers["Range"]):
            return self._answer(200, headers, data)
        first, last = wanted.removeprefix("bytes=").split("-")
        piece = data[int(first) : int(last) + 1 if last else None]
        told = {"Content-Range": f"bytes {first}-{int(first) + len(piece) - 1}/{len(data)}"}
        return self._answer(206 if piece else 416, {**headers, **told}, piece)

    def _list(self) -> None:
        if urlsplit(self.path).path.strip("/") != self.objects.bucket:
            return self._answer(404, body=b"<Error><Code>NoSuchBucket</Code></Error>")
        prefix = self._query().get("prefix", "")
        with self.objects.lock:
            found = [(key, *held) for key, held in sorted(self.objects.found.items()) if key.startswith(prefix)]
        rows = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>{headers['iso']}</LastModified>"
            f"<ETag>{escape(headers['ETag'])}</ETag><Size>{len(data)}</Size></Contents>"
            for key, data, headers in found
        )
        return self._answer(200, body=f"<ListBucketResult>{rows}</ListBucketResult>".encode())

    def _kept_headers(self) -> dict[str, str]:
        return dict(self.headers.items())

    def _path(self) -> str:
        bucket, _, key = urlsplit(self.path).path.lstrip("/").partition("/")
        return unquote(key) if bucket == self.objects.bucket else f"another bucket/{key}" if key else ""

    def _query(self) -> dict[str, str]:
        return {key: values[0] for key, values in parse_qs(urlsplit(self.path).query, keep_blank_values=True).items()}

    def _answer(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is printed."""


@contextmanager
def gs_server(bucket: str) -> Iterator[tuple[str, Objects]]:
    """A running server with one bucket: its address, and what it holds."""
    objects = Objects(bucket)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"objects": objects}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", objects
    server.shutdown()
    server.server_close()


@cache
def private_key() -> str:
    """A key to sign URLs with, in the form that Google gives out."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    encoding, format = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, format, serialization.NoEncryption()).decode()


def service_account(address: str, private_key: str) -> str:
    """A service account for such a server, as the JSON that Google's tools keep."""
    fields = {"client_email": "test@example.com", "private_key": private_key, "private_key_id": "1"}
    return json.dumps({"gcs_base_url": address, **fields})
