"""Text embeddings from OpenAI or any server that speaks its API, through the official client.

The client reads `OPENAI_BASE_URL` and `OPENAI_API_KEY`; a server of one's own may need no key.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from audio_storage_system.embedders.base import Matrix, TextEmbedder, unit_rows
from audio_storage_system.embedders.texts import never_blank
from audio_storage_system.errors import (
    AudioStorageSystemError,
    EngineUnavailable,
    ServiceFailed,
    UnknownSpec,
)

if TYPE_CHECKING:
    from openai import OpenAI

MAX_TEXTS = 512  # in one request: a quarter of the service's limit, so that an answer stays around 16 MB
MAX_CHARACTERS = 200_000  # in one request, well below its 300,000 tokens
MAX_TEXT_CHARACTERS = 8_000  # of one text: its 8,192 tokens even where every character is one
SECONDS = 60.0
CONNECT_SECONDS = 3.0
RETRIES = 2


class OpenAIEmbedder(TextEmbedder):
    """One embedding model of a service. Safe to use from several threads.

    Of a text longer than 8,000 characters only the beginning is sent. Raises `EngineUnavailable` when the service
    cannot be reached, refuses the key or does not have the model; `ServiceFailed` for any other answer. Neither ever
    contains the key.
    """

    max_batch = MAX_TEXTS
    remote = True

    def __init__(self, argument: str) -> None:
        if not argument:
            known = "openai:text-embedding-3-small, openai:text-embedding-3-large, or any model of your service"
            raise UnknownSpec(kind="text embedder", spec="openai:", known=known)
        self.name = argument
        self.model = self.spec = f"openai:{argument}"
        self._lock = threading.Lock()
        self._opened: OpenAI | None = None
        self._dimension = 0

    @property
    def dimension(self) -> int:
        """Learned from the model's first vector; asks the service once if there was none yet."""
        return self._dimension or len(self.embed("dimension"))

    def embed_batch(self, texts: Sequence[str]) -> Matrix:
        """Unit rows in the order of `texts`, in as many requests as their length needs."""
        if not texts:
            return np.empty((0, self.dimension), np.float32)
        rows = [row for part in _requests(texts) for row in self._ask(part)]
        matrix = unit_rows(rows, model=self.model, dimension=self._dimension or None)
        self._dimension = matrix.shape[1]
        return matrix

    def _ask(self, texts: list[str]) -> list[list[float]]:
        from openai import OpenAIError

        client = self._client()
        try:
            # plain numbers: not every compatible server knows the client's default, base64
            answer = client.embeddings.create(model=self.name, input=texts, encoding_format="float")
        except OpenAIError as error:
            raise self._explained(error, client) from error
        items = sorted(answer.data or [], key=lambda item: item.index)
        if [item.index for item in items] != list(range(len(texts))):
            raise ServiceFailed(service=_host(client), reason=f"{len(items)} vectors came back for {len(texts)} texts")
        return [item.embedding for item in items]

    def _client(self) -> OpenAI:
        from openai import OpenAI, OpenAIError, Timeout

        with self._lock:
            if self._opened is None:
                # a server of one's own usually has no keys, but the client insists on one
                key = os.environ.get("OPENAI_API_KEY") or ("none" if os.environ.get("OPENAI_BASE_URL") else None)
                timeout = Timeout(SECONDS, connect=CONNECT_SECONDS)
                try:
                    self._opened = OpenAI(api_key=key, timeout=timeout, max_retries=RETRIES)
                except OpenAIError as error:
                    reason = "set OPENAI_API_KEY, or OPENAI_BASE_URL to a server of your own"
                    raise EngineUnavailable(spec=self.spec, reason=reason) from error
            return self._opened

    def _explained(self, error: Exception, client: OpenAI) -> AudioStorageSystemError:
        """The error in our words. The service's own are left out where they may quote the key."""
        from openai import APIConnectionError, APIStatusError

        service = _host(client)
        if isinstance(error, APIConnectionError):
            return EngineUnavailable(spec=self.spec, reason=f"{service} cannot be reached ({type(error).__name__})")
        if not isinstance(error, APIStatusError):
            return ServiceFailed(service=service, reason=type(error).__name__)
        if error.status_code in (401, 403):
            return EngineUnavailable(spec=self.spec, reason=f"{service} refused the key (HTTP {error.status_code})")
        if error.status_code == 404:
            return EngineUnavailable(spec=self.spec, reason=f"{service} has no model {self.name} (HTTP 404)")
        return ServiceFailed(service=service, reason=f"HTTP {error.status_code} {_code(error)}".strip())


def _host(client: OpenAI) -> str:
    """Where the service is, without any user name or password of its URL."""
    return f"{client.base_url.scheme}://{client.base_url.netloc.decode()}"


def _code(error: Any) -> str:
    """The service's short code for what went wrong, such as `insufficient_quota`; never a sentence."""
    code = error.code or error.type
    return str(code)[:60] if isinstance(code, str) and code.replace("_", "").isalnum() else ""


def _requests(texts: Sequence[str]) -> Iterator[list[str]]:
    """The texts in order, as many to a request as its limits allow."""
    part: list[str] = []
    size = 0
    for text in (never_blank(text, limit=MAX_TEXT_CHARACTERS) for text in texts):
        if part and (len(part) == MAX_TEXTS or size + len(text) > MAX_CHARACTERS):
            yield part
            part, size = [], 0
        part.append(text)
        size += len(text)
    yield part
