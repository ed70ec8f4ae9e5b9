"""Where weights come from, and that their absence is known within seconds, whatever the network does."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from audio_storage_system.errors import EngineUnavailable
from audio_storage_system.testing.tiny_whisper import build_tiny_whisper
from audio_storage_system.transcribers import WHISPER_SIZES, open_transcriber
from audio_storage_system.transcribers.weights import find_weights, repository_of

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LOAD = """
import logging, sys, time
import faster_whisper
from huggingface_hub import HfApi
from audio_storage_system import hub
from audio_storage_system.errors import EngineUnavailable
from audio_storage_system.transcribers import TranscribeOptions, open_transcriber
logging.basicConfig(format="%(message)s")
if sys.argv[2:]:
    hub.SECONDS = float(sys.argv[2])
began = time.monotonic()
try:
    with open_transcriber(sys.argv[1]) as transcriber:
        print("loaded", transcriber.parameters(TranscribeOptions())["revision"])
except EngineUnavailable as error:
    print("unavailable", error)
print("seconds", time.monotonic() - began)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_whisper(tmp_path_factory.mktemp("hub") / "model", "hello")


@pytest.fixture
def hub(folder: Path) -> Iterator[str]:
    """A model hub on this machine with one repository, me/tiny, and one without weights, me/other."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), hub_handler(folder))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_folder_is_used_as_it_is(folder: Path) -> None:
    assert find_weights(str(folder), "x") == folder


@pytest.mark.parametrize("name", ["model.bin", "config.json", "tokenizer.json", "vocabulary.json"])
def test_a_folder_that_lacks_a_file_is_refused_by_its_name(folder: Path, tmp_path: Path, name: str) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / name).unlink()
    with pytest.raises(EngineUnavailable, match=re.escape(f"no {name}")):
        open_transcriber(f"faster-whisper:{copy}").load()


def test_damaged_weights_are_unavailable(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "model.bin").write_bytes(b"not a model")
    with pytest.raises(EngineUnavailable, match="cannot be loaded"):
        open_transcriber(f"faster-whisper:{copy}").load()


def test_a_folder_that_is_not_there_is_not_looked_for_on_the_hub(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match="there is no folder"):
        open_transcriber(f"faster-whisper:{tmp_path / 'nowhere'}").load()


def test_offline_the_absence_of_weights_is_known_at_once(tmp_path: Path) -> None:
    output = load("faster-whisper:base", tmp_path, HF_HUB_OFFLINE="1")
    assert seconds_in(output) < 15
    assert "unavailable faster-whisper:base cannot run here" in output
    assert "HF_HUB_OFFLINE is set" in output


def test_a_hub_that_never_answers_costs_seconds(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        output = load("faster-whisper:base", tmp_path, HF_ENDPOINT=f"http://127.0.0.1:{deaf.getsockname()[1]}")
    assert seconds_in(output) < 15
    assert "unavailable faster-whisper:base cannot run here: its weights (Systran/faster-whisper-base)" in output


def test_a_download_says_its_size_first_and_happens_once(hub: str, folder: Path, tmp_path: Path) -> None:
    size = sum(path.stat().st_size for path in folder.iterdir())
    first = load("faster-whisper:me/tiny", tmp_path, patience=60, HF_ENDPOINT=hub)
    assert f"downloading me/tiny: {size / 1e6:.0f} MB" in first
    assert f"loaded {COMMIT}" in first
    offline = load("faster-whisper:me/tiny", tmp_path, HF_HUB_OFFLINE="1")
    assert "downloading" not in offline
    assert f"loaded {COMMIT}" in offline


def test_a_repository_in_another_format_is_not_downloaded(hub: str, tmp_path: Path) -> None:
    output = load("faster-whisper:me/other", tmp_path, patience=60, HF_ENDPOINT=hub)
    assert "me/other is not a Whisper model in CTranslate2's format: no model.bin" in output
    assert "downloading" not in output


def test_a_repository_that_does_not_exist_is_unavailable(hub: str, tmp_path: Path) -> None:
    assert "unavailable faster-whisper:me/none" in load(
        "faster-whisper:me/none", tmp_path, patience=60, HF_ENDPOINT=hub
    )


def test_sizes_mean_the_repositories_that_faster_whisper_means() -> None:
    from faster_whisper.utils import _MODELS

    assert {size: repository_of(size) for size in _MODELS} == _MODELS
    assert set(_MODELS) == WHISPER_SIZES


def load(spec: str, home: Path, *, patience: float | None = None, **environment: str) -> str:
    """What a fresh process says that loads `spec` with an empty cache, stderr included. patience: for how many seconds
    it waits for the hub."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    settings = {"HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", **environment}
    command = [sys.executable, "-c", LOAD, spec, *([str(patience)] if patience else [])]
    done = subprocess.run(
        command, env={**inherited, **settings}, capture_output=True, text=True, check=True, timeout=120
    )
    return done.stderr + done.stdout


def seconds_in(output: str) -> float:
    """How long it took, without the import of the engine."""
    return float(output.rpartition("seconds ")[2])


def hub_handler(folder: Path) -> type[BaseHTTPRequestHandler]:
    """The few requests of the Hugging Face hub's API that a download makes."""
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    listing = {"me/tiny": files, "me/other": {"config.json": b"{}", "model.safetensors": b"0"}}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer()

        def do_HEAD(self) -> None:
            self.answer()

        def log_message(self, format: str, *args: object) -> None: ...

        def answer(self) -> None:
            found = re.match(r"/(?:api/models/)?(me/\w+)(?:/(tree|revision|resolve)/\w+)?/?([^?]*)", self.path)
            if not found or found[1] not in listing:
                return self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            repository, verb, name = found.groups()
            contents = listing[repository]
            if verb == "resolve":
                tag = hashlib.sha1(contents[name], usedforsecurity=False).hexdigest()
                return self.send(200, contents[name], {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT})
            return self.send(200, json.dumps(description(repository, verb, contents)).encode(), {})

        def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    return Handler


def description(repository: str, verb: str | None, contents: dict[str, bytes]) -> object:
    if verb == "tree":
        return [{"type": "file", "path": name, "size": len(data), "oid": "0"} for name, data in contents.items()]
    siblings = [{"rfilename": name, "size": len(data)} for name, data in contents.items()]
    return {"id": repository, "modelId": repository, "sha": COMMIT, "siblings": siblings}
