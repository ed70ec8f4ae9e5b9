"""ONNX text embedders: a real model, tiny and random, in the real format."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from audio_storage_system.embedders import TextEmbedder, open_text_embedder
from audio_storage_system.embedders.fastembed import FastEmbedEmbedder
from audio_storage_system.errors import EngineUnavailable, InvalidInput, UnknownSpec
from audio_storage_system.testing.embedders import TextEmbedderContract

WORDS = "we agreed on the budget for next year dog barked all night and nobody slept wie komme ich von hier zum".split()
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS, "会", "議", "は"]
DIMENSION = 24
HUB_MODEL = "BAAI/bge-small-en-v1.5"


def varint(number: int) -> bytes:
    head = bytes([(number >> shift & 0x7F) | 0x80 for shift in range(0, max(0, (number.bit_length() - 1) // 7 * 7), 7)])
    return head + bytes([number >> 7 * len(head)])


def message(*fields: tuple[int, int | bytes | str]) -> bytes:
    """Protocol-buffer fields (number, value), as ONNX files are made of."""
    parts = []
    for number, value in fields:
        if isinstance(value, int):
            parts.append(varint(number << 3) + varint(value))
        else:
            data = value.encode() if isinstance(value, str) else value
            parts.append(varint(number << 3 | 2) + varint(len(data)) + data)
    return b"".join(parts)


def tensor_type(name: str, element: int, shape: Iterable[str]) -> bytes:
    dimensions = [(1, message((2, size))) for size in shape]
    return message((1, name), (2, message((1, message((1, element), (2, message(*dimensions)))))))


def onnx_lookup(table: npt.NDArray[np.float32]) -> bytes:
    """An ONNX model with one operation: the row of `table` for each token (Gather)."""
    gather = message((1, "table"), (1, "input_ids"), (2, "last_hidden_state"), (4, "Gather"))
    weights = message((1, table.shape[0]), (1, table.shape[1]), (2, 1), (8, "table"), (9, table.tobytes()))
    graph = message(
        (1, gather),
        (2, "lookup"),
        (5, weights),
        (11, tensor_type("input_ids", 7, ["batch", "tokens"])),
        (12, tensor_type("last_hidden_state", 1, ["batch", "tokens", "hidden"])),
    )
    return message((1, 8), (7, graph), (8, message((2, 13))))


def write_model(folder: Path, *, file: str = "model.onnx", seed: int = 1) -> Path:
    """A folder as an export leaves it: random token vectors, a word tokenizer that adds [CLS] and [SEP]."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(VOCABULARY)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace()])
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"model_max_length": 64, "pad_token": "[PAD]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "config.json").write_text(json.dumps({"pad_token_id": 0, "hidden_size": DIMENSION}))
    table = np.random.default_rng(seed).normal(size=(len(VOCABULARY), DIMENSION)).astype(np.float32)
    (folder / file).write_bytes(onnx_lookup(table))
    return folder


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def loaded(model_folder: Path) -> TextEmbedder:
    return open_text_embedder(f"fastembed:{model_folder}")


class TestFastEmbed(TextEmbedderContract):
    @pytest.fixture
    def embedder(self, loaded: TextEmbedder) -> TextEmbedder:
        return loaded


def test_the_mean_over_the_tokens_is_the_vector_of_a_folder_without_pooling(loaded: TextEmbedder) -> None:
    table = np.random.default_rng(1).normal(size=(len(VOCABULARY), DIMENSION))
    mean = table[[2, VOCABULARY.index("the"), VOCABULARY.index("dog"), 3]].mean(axis=0)
    np.testing.assert_allclose(loaded.embed("the dog"), mean / np.linalg.norm(mean), atol=1e-5)


def test_a_folder_may_ask_for_the_first_tokens_vector_instead(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "cls")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    first = np.random.default_rng(1).normal(size=(len(VOCABULARY), DIMENSION))[2]
    vector = open_text_embedder(f"fastembed:{folder}").embed("the dog")
    np.testing.assert_allclose(vector, first / np.linalg.norm(first), atol=1e-5)


def test_a_space_is_named_by_the_weights_wherever_the_folder_lies(tmp_path: Path, model_folder: Path) -> None:
    moved = FastEmbedEmbedder(str(write_model(tmp_path / "elsewhere" / "tiny")))
    other = FastEmbedEmbedder(str(write_model(tmp_path / "other" / "tiny", seed=2)))
    assert moved.model == FastEmbedEmbedder(str(model_folder)).model
    assert moved.model != other.model
    assert moved.model.startswith("fastembed:tiny@")


@pytest.mark.parametrize("damage", ["no model", "not a model", "no tokenizer"])
def test_a_folder_that_holds_no_model_is_refused(tmp_path: Path, damage: str) -> None:
    folder = write_model(tmp_path / "broken")
    if damage == "no tokenizer":
        (folder / "tokenizer.json").unlink()
    elif damage == "not a model":
        (folder / "model.onnx").write_bytes(b"not a model")
    else:
        (folder / "model.onnx").unlink()
    with pytest.raises(EngineUnavailable, match="cannot run here"):
        open_text_embedder(f"fastembed:{folder}").embed("hello")


def test_an_unknown_model_is_answered_with_models_that_exist() -> None:
    with pytest.raises(UnknownSpec, match=r"fastembed:BAAI/bge-small-en-v1\.5"):
        open_text_embedder("fastembed:BAAI/bge-smal-en").embed("hello")
    with pytest.raises(InvalidInput, match="all-MiniLM-L6-v2"):
        open_text_embedder("fastembed")


def write_cache(cache: Path) -> None:
    """`HUB_MODEL` as a download leaves it, with the tiny model's weights."""
    root = cache / f"models--{_repository().replace('/', '--')}"
    write_model(root / "snapshots" / "abc123", file="model_optimized.onnx")
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("abc123")


def _repository() -> str:
    from fastembed import TextEmbedding

    return next(m["sources"]["hf"] for m in TextEmbedding.list_supported_models() if m["model"] == HUB_MODEL)


def test_a_model_in_the_cache_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cache(tmp_path)
    monkeypatch.setenv("FASTEMBED_CACHE_PATH", str(tmp_path))
    embedder = open_text_embedder(f"fastembed:{HUB_MODEL}")
    assert embedder.dimension == DIMENSION
    assert embedder.model == f"fastembed:{HUB_MODEL}"


def test_offline_a_missing_model_is_reported_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FASTEMBED_CACHE_PATH", str(tmp_path))
    started = time.monotonic()
    with pytest.raises(EngineUnavailable, match="HF_HUB_OFFLINE is set"):
        open_text_embedder(f"fastembed:{HUB_MODEL}").embed("hello")
    assert time.monotonic() - started < 5
    assert capfd.readouterr().err == ""


def online(cache: Path, endpoint: str, code: str) -> subprocess.CompletedProcess[str]:
    """`code` in a process of its own, whose hub is at `endpoint`: the hub's client reads that when it is imported."""
    keep = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    settings = {"HF_ENDPOINT": endpoint, "FASTEMBED_CACHE_PATH": str(cache), "HF_HOME": str(cache / "home")}
    program = f"from audio_storage_system.embedders import open_text_embedder\n{code}"
    return subprocess.run(
        [sys.executable, "-c", program], env=keep | settings, capture_output=True, text=True, timeout=60
    )


FAIL = f"""
import time
import fastembed, huggingface_hub
from audio_storage_system.errors import EngineUnavailable
started = time.monotonic()
try:
    open_text_embedder("fastembed:{HUB_MODEL}").embed("hello")
except EngineUnavailable as error:
    print(error, time.monotonic() - started < 30)
"""


def test_a_hub_that_does_not_answer_is_given_up_within_seconds(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        result = online(tmp_path, endpoint, FAIL)
    assert f"{endpoint} did not give them" in result.stdout
    assert result.stdout.endswith("True\n"), result.stdout


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[str]:
    """A model hub on this machine that has `HUB_MODEL`, with the tiny model's weights."""
    folder = write_model(tmp_path / "served", file="model_optimized.onnx")
    server = ThreadingHTTPServer(("127.0.0.1", 0), hub_handler(folder, _repository()))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def hub_handler(folder: Path, repository: str) -> type[BaseHTTPRequestHandler]:
    revision = "a" * 40
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    siblings = [{"rfilename": name, "size": len(data), "blobId": name} for name, data in files.items()]
    tree = [{"type": "file", "path": name, "size": len(data), "oid": name} for name, data in files.items()]

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path, name = self.path.partition("?")[0], self.path.partition("?")[0].rpartition("/")[2]
            if path.startswith(f"/api/models/{repository}/tree/"):
                self.reply(200, json.dumps(tree).encode())
            elif path.startswith(f"/api/models/{repository}"):
                self.reply(200, json.dumps({"id": repository, "sha": revision, "siblings": siblings}).encode())
            elif path.startswith(f"/{repository}/resolve/") and name in files:
                self.reply(200, files[name], name)
            else:
                self.reply(404, b"{}")

        def reply(self, status: int, body: bytes, etag: str = "") -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.send_header("content-type", "application/json")
            if etag:
                self.send_header("etag", f'"{etag}"')
                self.send_header("x-repo-commit", revision)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    return Handler


def test_a_download_is_announced_with_its_size_and_done_once(tmp_path: Path, hub: str) -> None:
    use = "from audio_storage_system import hub; hub.SECONDS = 60\n"
    use += f'print(open_text_embedder("fastembed:{HUB_MODEL}").embed("the dog").shape)'
    first = online(tmp_path / "cache", hub, use)
    assert first.stdout == f"({DIMENSION},)\n", first.stderr
    assert f"downloading the weights of fastembed:{HUB_MODEL} from {hub}: 0 MB" in first.stderr
    again = online(tmp_path / "cache", "http://127.0.0.1:9", use)
    assert again.stdout == first.stdout, again.stderr
    assert "downloading" not in again.stderr
