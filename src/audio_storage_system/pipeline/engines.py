"""Loaded recognisers, lent to whoever needs them, and the choice between what was asked for and its fallback."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from audio_storage_system.errors import EngineUnavailable, UnknownSpec, Unsupported, WeightsUnavailable
from audio_storage_system.model_pool import LoadedModel, ModelPool
from audio_storage_system.transcribers import Transcriber, open_transcriber, resolve_transcriber

logger = logging.getLogger(__name__)

ENGLISH = "en"


@dataclass(frozen=True, slots=True)
class Choice:
    """The engine that will run, and whether it stands in for the one asked for."""

    transcriber: Transcriber
    fallback: bool


class Engines:
    """Recognisers by spec, each loaded once, and freed when nobody has used it for `idle_seconds` (see `ModelPool`).

    `at_once`: how many transcriptions there will be at the same time; they share the cores.
    """

    def __init__(self, idle_seconds: float = 300.0, at_once: int = 1) -> None:
        self._at_once = max(1, at_once)
        self._pool: ModelPool[Transcriber] = ModelPool(
            "transcriber",
            self._load,
            lambda transcriber: transcriber.close(),
            idle_seconds=idle_seconds,
            elsewhere=lambda transcriber: transcriber.memory_elsewhere(),
        )
        self._told: set[str] = set()

    @contextmanager
    def borrow(
        self, asked: str, *, language: str | None = None, fallback: str | None = None, translate: bool = False
    ) -> Iterator[Choice]:
        """The engine for `asked`, loaded, for as long as the block runs; the fallback only when its weights are not to
        be had and the language is English or not given, and never to `translate`.

        Raises `UnknownSpec`, `EngineUnavailable`, also for a language that the engine does not know, and `Unsupported`
        where it cannot translate.
        """
        with ExitStack() as stack:
            choice = self._choose(stack, asked, language, None if translate else fallback)
            if translate and not choice.transcriber.capabilities.translates:
                raise Unsupported(spec=choice.transcriber.spec, what="translate into English")
            yield choice

    def expect(self, at_once: int) -> None:
        """Reckon with so many transcriptions at the same time, for what is loaded from now on."""
        self._at_once = max(1, at_once)

    def loaded(self) -> list[LoadedModel]:
        """The recognisers in memory now."""
        return self._pool.loaded()

    def close(self) -> None:
        """Free every model; one in use when it is given back."""
        self._pool.close()

    def _choose(self, stack: ExitStack, asked: str, language: str | None, fallback: str | None) -> Choice:
        try:
            return Choice(self._enter(stack, asked, language), fallback=False)
        except WeightsUnavailable as error:
            if not fallback or language not in (None, "", ENGLISH):
                raise
            self._tell_once(asked, fallback, error)
            return Choice(self._enter(stack, fallback, language), fallback=True)

    def _enter(self, stack: ExitStack, spec: str, language: str | None) -> Transcriber:
        spec = resolve_transcriber(spec)
        transcriber = stack.enter_context(self._pool.borrow(spec))
        known = transcriber.capabilities.languages
        if language and known is not None and language not in known:
            raise EngineUnavailable(spec=spec, reason=f'it does not know the language "{language}"')
        return transcriber

    def _load(self, spec: str) -> Transcriber:
        transcriber = open_transcriber(spec)
        transcriber.at_once = self._at_once
        transcriber.load()
        return transcriber

    def _tell_once(self, asked: str, fallback: str, error: EngineUnavailable) -> None:
        if asked not in self._told:
            self._told.add(asked)
            logger.warning("%s. Using %s instead; redo it later with: audio-storage retranscribe", error, fallback)


def check_spec(spec: str) -> None:
    """Raise `UnknownSpec` for a recogniser that does not exist, before any work is done."""
    if not spec:
        raise UnknownSpec(kind="transcriber", spec=spec, known="a Whisper size or an engine")
    resolve_transcriber(spec)
