"""Loaded recognisers, shared by whoever needs them, and the choice between what was asked for and its fallback."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field

from audio_storage_system.errors import EngineUnavailable, UnknownSpec, WeightsUnavailable
from audio_storage_system.transcribers import Transcriber, open_transcriber, resolve_transcriber

logger = logging.getLogger(__name__)

ENGLISH = "en"
# Finding out that weights are not to be had can take seconds: not for every file of a folder.
ASK_AGAIN_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Choice:
    """The engine that will run, and whether it stands in for the one asked for."""

    transcriber: Transcriber
    fallback: bool


@dataclass
class Engines:
    """Recognisers by spec, each loaded once per process."""

    _loaded: dict[str, Transcriber] = field(default_factory=dict)
    _refused: dict[str, tuple[float, EngineUnavailable | None]] = field(default_factory=dict)
    _told: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def choose(self, asked: str, *, language: str | None, fallback: str | None) -> Choice:
        """The engine for `asked`, loaded; the fallback only when its weights are not to be had and the language is
        English or not given.

        Raises `UnknownSpec`, `EngineUnavailable`.
        """
        try:
            return Choice(self.get(asked, language), fallback=False)
        except WeightsUnavailable as error:
            if not fallback or language not in (None, "", ENGLISH):
                raise
            self._tell_once(asked, fallback, error)
            return Choice(self.get(fallback, language), fallback=True)

    def get(self, spec: str, language: str | None = None) -> Transcriber:
        """The recogniser for `spec`, loaded. Raises `EngineUnavailable`, also for a language it does not know."""
        spec = resolve_transcriber(spec)
        with self._lock:
            if spec not in self._loaded:
                self._loaded[spec] = self._load(spec)
            transcriber = self._loaded[spec]
        known = transcriber.capabilities.languages
        if language and known is not None and language not in known:
            raise EngineUnavailable(spec=spec, reason=f'it does not know the language "{language}"')
        return transcriber

    def _load(self, spec: str) -> Transcriber:
        until, error = self._refused.get(spec, (0.0, None))
        if error is not None and time.monotonic() < until:
            raise error
        transcriber = open_transcriber(spec)
        try:
            transcriber.load()
        except EngineUnavailable as refusal:
            self._refused[spec] = (time.monotonic() + ASK_AGAIN_SECONDS, refusal)
            raise
        return transcriber

    def _tell_once(self, asked: str, fallback: str, error: EngineUnavailable) -> None:
        if asked not in self._told:
            self._told.add(asked)
            logger.warning("%s. Using %s instead; redo it later with: audio-storage retranscribe", error, fallback)

    def close(self) -> None:
        """Free every model."""
        with self._lock:
            for transcriber in self._loaded.values():
                transcriber.close()
            self._loaded.clear()


def check_spec(spec: str) -> None:
    """Raise `UnknownSpec` for a recogniser that does not exist, before any work is done."""
    if not spec:
        raise UnknownSpec(kind="transcriber", spec=spec, known="a Whisper size or an engine")
    resolve_transcriber(spec)
