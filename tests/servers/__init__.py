"""Object stores that the tests start, over real HTTP, and a fresh place in each."""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

BUCKET = "recordings"
AZURE_ACCOUNT = "devstoreaccount1"
# The key that every Azurite has, published in its documentation.
AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@contextmanager
def s3_server() -> Iterator[str]:
    """moto's S3 server with one bucket; its address."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    assert server._server is not None
    server._server.app = _decided_at_once(server._server.app)
    host, port = server.get_host_and_port()
    _request(
        f"{host}:{port}",
        f"/{BUCKET}",
        {"Authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request"},
    )
    yield f"http://{host}:{port}"
    server.stop()


def _decided_at_once(app: Any) -> Any:
    """moto looks whether there is such a key, and stores it later; S3 does both in one step."""
    lock = threading.Lock()

    def answer(environ: dict[str, Any], start: Any) -> Any:
        with lock if "HTTP_IF_NONE_MATCH" in environ else nullcontext():
            return app(environ, start)

    return answer


def azurite() -> str | None:
    """The program, from `$AUDIO_STORAGE_TEST_AZURITE` or the path; `None` where there is none."""
    named = os.environ.get("AUDIO_STORAGE_TEST_AZURITE")
    return named if named and Path(named).exists() else shutil.which("azurite-blob")


@contextmanager
def az_server(program: str) -> Iterator[str]:
    """Azurite with one container; the address of its account."""
    options = "--blobHost 127.0.0.1 --blobPort 0 --inMemoryPersistence --skipApiVersionCheck --disableTelemetry"
    child = subprocess.Popen([program, *options.split()], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert child.stdout
        found = next(filter(None, (re.search(r"listens on http://(\S+)", line) for line in child.stdout)))
        _request(found[1], f"/{AZURE_ACCOUNT}/{BUCKET}?restype=container", _azure_headers())
        yield f"http://{found[1]}/{AZURE_ACCOUNT}"
    finally:
        child.kill()
        child.wait()
        with suppress(AttributeError):
            child.stdout.close()  # type: ignore[union-attr]


def _azure_headers() -> dict[str, str]:
    headers = {"x-ms-date": f"{datetime.now(UTC):%a, %d %b %Y %H:%M:%S GMT}", "x-ms-version": "2021-08-06"}
    lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
    text = "PUT" + "\n" * 12 + f"{lines}/{AZURE_ACCOUNT}/{AZURE_ACCOUNT}/{BUCKET}\nrestype:container"
    digest = hmac.new(base64.b64decode(AZURE_KEY), text.encode(), hashlib.sha256).digest()
    return {**headers, "Authorization": f"SharedKey {AZURE_ACCOUNT}:{base64.b64encode(digest).decode()}"}


def _request(address: str, path: str, headers: dict[str, str]) -> None:
    connection = HTTPConnection(address, timeout=10)
    connection.request("PUT", path, headers={**headers, "Content-Length": "0"})
    answer = connection.getresponse()
    assert answer.status in (200, 201), answer.read()
    connection.close()
