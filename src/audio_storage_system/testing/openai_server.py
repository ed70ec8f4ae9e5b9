"""A local server that speaks OpenAI's audio and embeddings API, for tests of the real `openai` client over real HTTP.

    with OpenAIServer() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", server.api_key)
        server.fail_next(Failure(429), Failure(500))        # the next two requests fail, the third is answered

Answers depend on nothing but the request: a transcription is `server.text` spread evenly over the sound (nothing for
digital silence), an embedding is a hashed bag of words, so that texts sharing words are near each other.
"""

from __future__ import annotations

import base64
import io
import json
import re
import threading
import wave
import zlib
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

KNOWN_MODELS = (
    "whisper-1",
    "gpt-4o-transcribe",
    "gpt-4o-mini-transcribe",
    "text-embedding-3-small",
    "text-embedding-3-large",
)
NATIVE_DIMENSIONS = {"text-embedding-3-small": 1536, "text-embedding-3-large": 3072}


@dataclass(frozen=True, slots=True)
class Failure:
    """One request that goes wrong: after `delay_seconds`, answered with `status` (with 200 it is only slow)."""

    status: int = 500
    delay_seconds: float = 0.0
    headers: Mapping[str, str] = field(default_factory=lambda: {"retry-after-ms": "1"})


@dataclass(frozen=True, slots=True)
class Request:
    """What a client sent: form fields (lists by name) or JSON in `fields`, uploaded bytes in `files`."""

    path: str
    authorization: str
    fields: Mapping[str, Any]
    files: Mapping[str, bytes]


class OpenAIServer:
    """The server, on a free port of this machine, while its `with` block lasts.

    `text` and `language` script the transcriptions, `models` what is known (others answer 404), `requests` records
    everything received. A request with another key than `api_key` answers 401, as does one that `fail_next` says.
    """

    def __init__(
        self,
        *,
        text: str = "hello from the local server",
        language: str = "english",
        api_key: str = "test-key",
        models: tuple[str, ...] = KNOWN_MODELS,
        default_dimensions: int = 64,
    ) -> None:
        self.text = text
        self.language = language
        self.api_key = api_key
        self.models = models
        self.default_dimensions = default_dimensions
        self.requests: list[Request] = []
        self.failures: deque[Failure] = deque()
        self.closing = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler_for(self))
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    @property
    def base_url(self) -> str:
        """What `OPENAI_BASE_URL` must be."""
        return f"http://127.0.0.1:{self._http.server_port}/v1"

    def fail_next(self, *failures: Failure) -> None:
        """Let the next requests fail, one each, in this order."""
        self.failures.extend(failures)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def answer(self, request: Request) -> tuple[int, Any]:
        """Status and JSON for one request."""
        if request.authorization != f"Bearer {self.api_key}":
            return _error(401, "Incorrect API key provided.", "invalid_api_key")
        if request.path == "/v1/models":
            return 200, {"object": "list", "data": [_model(name) for name in self.models]}
        model = request.fields.get("model") or request.path.removeprefix("/v1/models/")
        model = model[0] if isinstance(model, list) else model
        if model not in self.models:
            return _error(
                404, f"The model `{model}` does not exist or you do not have access to it.", "model_not_found"
            )
        if request.path.startswith("/v1/models/"):
            return 200, _model(model)
        if request.path in ("/v1/audio/transcriptions", "/v1/audio/translations"):
            return self._transcription(model, request)
        if request.path == "/v1/embeddings":
            return 200, self._embeddings(model, request.fields)
        return _error(404, "Unknown path.", None)

    def _transcription(self, model: str, request: Request) -> tuple[int, Any]:
        form = request.fields.get("response_format", ["json"])[0]
        if form == "verbose_json" and model.startswith("gpt-4o"):
            message = f"response_format 'verbose_json' is not compatible with model '{model}'. Use 'json' instead."
            return _error(400, message, "unsupported_value", "response_format")
        duration, silent = _listen(request.files["file"])
        text = "" if silent else self.text
        if form == "json":
            return 200, {"text": text}
        return 200, _verbose(text, duration, self.language, request.fields.get("timestamp_granularities[]", []))

    def _embeddings(self, model: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        texts = [fields["input"]] if isinstance(fields["input"], str) else fields["input"]
        dimensions = fields.get("dimensions") or NATIVE_DIMENSIONS.get(model, self.default_dimensions)
        vectors = [bag_of_words(text, dimensions) for text in texts]
        encode = _base64 if fields.get("encoding_format") == "base64" else _floats
        data = [{"object": "embedding", "index": i, "embedding": encode(v)} for i, v in enumerate(vectors)]
        tokens = sum(len(text.split()) for text in texts)
        return {
            "object": "list",
            "model": model,
            "data": data,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }


def bag_of_words(text: str, dimensions: int) -> npt.NDArray[np.float32]:
    """The unit vector this server answers for `text`: one hashed, signed dimension per word."""
    vector = np.zeros(dimensions, np.float32)
    for word in re.findall(r"\w+", text.lower()) or [text]:
        code = zlib.crc32(word.encode())
        vector[code % dimensions] += 1.0 if code & 0x10000 else -1.0
    norm = float(np.linalg.norm(vector))
    if not norm:  # two words cancelled each other out
        vector[0] = norm = 1.0
    return vector / np.float32(norm)


def _verbose(text: str, duration: float, language: str, granularities: list[str]) -> dict[str, Any]:
    words = text.split()
    step = duration / max(len(words), 1)
    segment = {
        "id": 0,
        "seek": 0,
        "start": 0.0,
        "end": duration,
        "text": f" {text}",
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": -0.25,
        "compression_ratio": 1.0,
        "no_speech_prob": 0.01,
    }
    answer: dict[str, Any] = {"task": "transcribe", "language": language, "duration": duration, "text": text}
    if "segment" in granularities or not granularities:
        answer["segments"] = [segment] if words else []
    if "word" in granularities:
        answer["words"] = [{"word": w, "start": i * step, "end": (i + 1) * step} for i, w in enumerate(words)]
    return answer


def _listen(data: bytes) -> tuple[float, bool]:
    """Duration in seconds of a WAV file, and whether it is digital silence."""
    with wave.open(io.BytesIO(data)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        return file.getnframes() / file.getframerate(), not samples.any()


def _error(status: int, message: str, code: str | None, parameter: str | None = None) -> tuple[int, Any]:
    return status, {
        "error": {"message": message, "type": "invalid_request_error", "param": parameter, "code": code},
    }


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "tests"}


def _floats(vector: npt.NDArray[np.float32]) -> list[float]:
    return [float(value) for value in vector]


def _base64(vector: npt.NDArray[np.float32]) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def _handler_for(server: OpenAIServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._respond()

        def do_POST(self) -> None:
            self._respond()

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet: `server.requests` records what came in."""

        def _respond(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            fields, files = _parse(self.headers.get("content-type", ""), body)
            request = Request(self.path, self.headers.get("authorization", ""), fields, files)
            server.requests.append(request)
            failure = server.failures.popleft() if server.failures else Failure(200, headers={})
            server.closing.wait(failure.delay_seconds)
            status, answer = (
                server.answer(request) if failure.status == 200 else _error(failure.status, "Scripted.", "scripted")
            )
            self._send(status, json.dumps(answer).encode(), failure.headers)

        def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
            try:
                self.send_response(status)
                for name, value in {**headers, "content-type": "application/json"}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except ConnectionError:
                self.close_connection = True  # the client gave up waiting, as a test of time-outs wants

    return Handler


def _parse(content_type: str, body: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Form fields and files, or the JSON object as fields."""
    if content_type.startswith("application/json"):
        return json.loads(body), {}
    if not content_type.startswith("multipart/form-data"):
        return {}, {}
    fields: dict[str, Any] = {}
    files: dict[str, bytes] = {}
    for name, is_file, value in _parts(content_type, body):
        if is_file:
            files[name] = value
        else:
            fields.setdefault(name, []).append(value.decode())
    return fields, files


def _parts(content_type: str, body: bytes) -> list[tuple[str, bool, bytes]]:
    """Name, whether it is a file, and content of each part of a multipart body (RFC 7578)."""
    boundary = content_type.partition("boundary=")[2].strip('"').encode()
    parts = []
    for part in body.split(b"--" + boundary)[1:-1]:
        head, _, value = part.partition(b"\r\n\r\n")
        name = re.search(rb'[; ]name="([^"]*)"', head)
        if name:
            parts.append((name[1].decode(), b"filename=" in head, value.removesuffix(b"\r\n")))
    return parts
