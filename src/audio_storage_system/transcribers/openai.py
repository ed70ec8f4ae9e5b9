"""Transcription by a server that speaks OpenAI's API: `openai:<model>`.

The address is `OPENAI_BASE_URL` (OpenAI's own where unset), the key `OPENAI_API_KEY`; both are read by the official
client. Every window is sent by itself, as 16-bit WAV in memory, the one format that all such servers take.
"""

from __future__ import annotations

import io
import math
import os
import re
import threading
import wave
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from audio_storage_system.errors import AudioStorageSystemError, EngineUnavailable, InvalidInput, ServiceFailed
from audio_storage_system.records import Segment, Word
from audio_storage_system.transcribers.base import (
    SAMPLE_RATE,
    Capabilities,
    TranscribeOptions,
    Transcriber,
    Window,
    WindowResult,
)
from audio_storage_system.transcribers.languages import language_code
from audio_storage_system.transcribers.loops import text_without_loops, without_loops
from audio_storage_system.transcribers.timing import shifted

_CONCURRENT_REQUESTS = 4
_REQUEST_SECONDS, _CHECK_SECONDS, _RETRIES = 120.0, 5.0, 3
WavFile = tuple[str, bytes, str]
_FORMAT_WORDS = ("response_format", "verbose_json", "timestamp_granularities")


class OpenAITranscriber(Transcriber):
    """A client of one server and one model. Segments and words are timed where the model gives `verbose_json`; a model
    that refuses it (`gpt-4o-transcribe`) gives one segment per window.

    Failures that may pass (429, 5xx, time-outs) are tried again a few times, then raised as `ServiceFailed`.
    """

    engine = "openai"
    remote = True

    def __init__(self, argument: str) -> None:
        self.model = argument or "whisper-1"
        self.capabilities = _capabilities(word_times=True)
        self._loading = threading.Lock()
        self._client: Any = None
        self._verbose = True

    def load(self) -> None:
        with self._loading:
            if self._client is None:
                client = _client(self.spec)
                self._check(client)
                self._client = client

    def close(self) -> None:
        with self._loading:
            if self._client is not None:
                self._client.close()
                self._client = None

    def transcribe(self, windows: Sequence[Window], options: TranscribeOptions) -> list[WindowResult]:
        self.load()
        with ThreadPoolExecutor(_CONCURRENT_REQUESTS) as pool:
            return list(pool.map(lambda window: self._transcribe(window, options), windows))

    def parameters(self, options: TranscribeOptions) -> Mapping[str, Any]:
        import openai

        server = _place(self._client) if self._client is not None else None
        return {**super().parameters(options), "server": server, "openai": openai.__version__}

    def _check(self, client: Any) -> None:
        """Whether the server is there and takes the key. Not every server can list its models: 404 proves nothing."""
        import openai

        try:
            client.with_options(timeout=_CHECK_SECONDS, max_retries=0).models.retrieve(self.model)
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.APIConnectionError) as error:
            failure = EngineUnavailable(spec=self.spec, reason=_reason(client, error))
            client.close()
            raise failure from None  # the server's words may hold the key
        except openai.APIError:
            return

    def _transcribe(self, window: Window, options: TranscribeOptions) -> WindowResult:
        answer = self._ask(window, options)
        segments = [s for s in _segments(answer, window) if s.text and not _is_silence(s)]
        language = language_code(getattr(answer, "language", None)) or options.language
        language = "en" if options.translate else language
        return WindowResult(tuple(segments), language if segments else None)

    def _ask(self, window: Window, options: TranscribeOptions) -> Any:
        import openai

        try:
            if self._verbose:
                try:
                    return self._send(window, options, verbose=True)
                except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                    if not any(word in str(error) for word in _FORMAT_WORDS):
                        raise
                    self._verbose = False
                    self.capabilities = _capabilities(word_times=False)
            return self._send(window, options, verbose=False)
        except openai.APIError as error:
            raise self._failure(error) from None  # the server's words may hold the key

    def _send(self, window: Window, options: TranscribeOptions, *, verbose: bool) -> Any:
        fields: dict[str, Any] = {
            "model": self.model,
            "prompt": options.prompt,
            "response_format": "verbose_json" if verbose else "json",
        }
        if not options.translate:  # a translation has neither
            fields["language"] = options.language
            fields["timestamp_granularities"] = ["word", "segment"] if verbose else None
        known = {name: value for name, value in fields.items() if value}
        file = ("window.wav", _wav(window), "audio/wav")
        return self._translated(known, file) if options.translate else self._transcribed(known, file)

    def _transcribed(self, fields: dict[str, Any], file: WavFile) -> Any:
        return self._client.audio.transcriptions.create(file=file, **fields)

    def _translated(self, fields: dict[str, Any], file: WavFile) -> Any:
        """By hand: the client's own method is deprecated, which it says at every call."""
        from openai.types.audio import TranslationVerbose

        options = {"headers": {"Content-Type": "multipart/form-data"}}
        files = [("file", file)]
        return self._client.post(
            "/audio/translations", cast_to=TranslationVerbose, body=fields, files=files, options=options
        )

    def _failure(self, error: Any) -> AudioStorageSystemError:
        reason = _reason(self._client, error)
        status = getattr(error, "status_code", None)
        if status in (401, 403, 404):
            return EngineUnavailable(spec=self.spec, reason=reason)
        if status in (400, 413, 415, 422):
            return InvalidInput(reason=f"{_place(self._client)} refused a window: {reason}")
        return ServiceFailed(service=_place(self._client), reason=reason)


def _capabilities(*, word_times: bool) -> Capabilities:
    return Capabilities(batch_size=_CONCURRENT_REQUESTS, word_times=word_times, translates=True)


def _client(spec: str) -> Any:
    import openai

    key, address = os.environ.get("OPENAI_API_KEY"), os.environ.get("OPENAI_BASE_URL")
    if not key and not address:
        reason = "set OPENAI_API_KEY, or OPENAI_BASE_URL for a server of your own that needs no key"
        raise EngineUnavailable(spec=spec, reason=reason)
    return openai.OpenAI(api_key=key or "none", timeout=_REQUEST_SECONDS, max_retries=_RETRIES)


def _place(client: Any) -> str:
    """The server's address without what a URL may hide in it."""
    parts = urlsplit(str(client.base_url))
    return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "") + parts.path.rstrip("/")


def _reason(client: Any, error: Exception) -> str:
    """What the server or the network said, without the key or a part of it."""
    text = str(error).replace(client.api_key, "***") if client.api_key else str(error)
    return f"{_place(client)}: {re.sub(r'sk-[A-Za-z0-9_*-]+', '***', text)}"


def _wav(window: Window) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((np.clip(window.samples, -1, 1) * 32767).astype("<i2").tobytes())
    return buffer.getvalue()


def _segments(answer: Any, window: Window) -> list[Segment]:
    """Segments of one answer, at the times of the recording; one for the whole window where there are no times."""
    timed = without_loops(getattr(answer, "segments", None) or [], lambda item: item.text)
    if timed:
        return _with_words([_segment(item, window) for item in timed], _words(answer, window))
    text = text_without_loops(answer if isinstance(answer, str) else getattr(answer, "text", "") or "")
    words = _words(answer, window)
    if words:
        return [Segment(words[0].start, words[-1].end, text, tuple(words))]
    return [Segment(round(window.start, 3), round(window.end, 3), text)] if text else []


def _segment(item: Any, window: Window) -> Segment:
    span = shifted(Word(item.start, item.end, ""), window.start, window.end)
    log_prob = getattr(item, "avg_logprob", None)
    return Segment(
        span.start,
        span.end,
        text_without_loops(item.text),
        confidence=None if log_prob is None else round(min(1.0, math.exp(log_prob)), 4),
        avg_logprob=log_prob,
        no_speech_prob=getattr(item, "no_speech_prob", None),
        compression_ratio=getattr(item, "compression_ratio", None),
    )


def _words(answer: Any, window: Window) -> list[Word]:
    words = [Word(item.start, item.end, item.word.strip()) for item in getattr(answer, "words", None) or []]
    return [shifted(word, window.start, window.end) for word in without_loops(words, lambda word: word.text)]


def _with_words(segments: list[Segment], words: list[Word]) -> list[Segment]:
    """Each word goes to the last segment that begins before the word's middle."""
    groups: list[list[Word]] = [[] for _ in segments]
    for word in words:
        middle = (word.start + word.end) / 2
        place = max((i for i, segment in enumerate(segments) if segment.start <= middle), default=0)
        groups[place].append(word)
    return [replace(segment, words=tuple(group)) for segment, group in zip(segments, groups, strict=True)]


def _is_silence(segment: Segment) -> bool:
    """Whisper's own rule for text that was made up: speech is unlikely, and so is the text."""
    return (segment.no_speech_prob or 0.0) > 0.6 and (segment.avg_logprob or 0.0) < -1.0
