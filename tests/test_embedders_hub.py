"""Deciding within seconds whether a model can be downloaded."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from audio_storage_system.embedders.hub import announce_download
from audio_storage_system.errors import EngineUnavailable, UnknownSpec
from audio_storage_system.hub import within

SPEC = "sentence-transformers:someone/model"


class Hub(BaseHTTPRequestHandler):
    """A model hub that has one repository: 12 MB of weights beside 5 MB that nobody asks for."""

    def do_GET(self) -> None:
        known = self.path.startswith("/api/models/someone/model")
        files = '{"rfilename": "model.safetensors", "size": 12000000}, {"rfilename": "other.onnx", "size": 5000000}'
        body = f'{{"id": "someone/model", "siblings": [{files}]}}' if known else "{}"
        self.send_response(200 if known else 404)
        self.send_header("content-length", str(len(body)))
        if not known:
            self.send_header("x-error-code", "RepoNotFound")
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    monkeypatch.setattr("audio_storage_system.hub.SECONDS", 60.0)
    yield endpoint
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_size_of_what_will_be_downloaded_is_logged(hub: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        announce_download("someone/model", ["*.safetensors"], spec=SPEC, examples="")
    assert caplog.messages == [f"downloading the weights of {SPEC} from {hub}: 12 MB"]


def test_a_model_that_the_hub_does_not_have_is_unknown(hub: str) -> None:
    with pytest.raises(UnknownSpec, match="Known: this-one, that-one"):
        announce_download("someone/else", ["*"], spec=SPEC, examples="this-one, that-one")


@pytest.mark.parametrize("value", ["1", "true", "YES"])
def test_offline_nothing_is_asked(hub: str, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    with pytest.raises(EngineUnavailable, match="HF_HUB_OFFLINE is set"):
        announce_download("someone/model", ["*"], spec=SPEC, examples="")


def test_a_call_that_takes_too_long_is_left_alone() -> None:
    started = time.monotonic()
    with pytest.raises(TimeoutError, match=r"within 0\.1 s"):
        within(0.1, lambda: time.sleep(600))
    assert time.monotonic() - started < 60


def test_a_call_in_time_gives_its_answer_or_its_error() -> None:
    assert within(5, lambda: 42) == 42
    with pytest.raises(ZeroDivisionError):
        within(5, lambda: 1 // 0)
