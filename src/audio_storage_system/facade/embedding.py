"""Embedding: the functions in use, and embedding everything anew with others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from audio_storage_system import pipeline
from audio_storage_system.archive import Archive, reembedding
from audio_storage_system.archive.reembedding import Plan, Reembedded
from audio_storage_system.records import Space


class Embedding:
    """How an archive turns text and sound into vectors."""

    _archive: Archive

    # Embedding functions

    @property
    def generate_text_embedding(self) -> Callable[[str], npt.NDArray[np.float32]]:
        """Text to a unit vector, with the embedder in use. Assign a function to use that one instead."""
        return lambda text: self._archive.spaces.text()[1].embed(text)

    @generate_text_embedding.setter
    def generate_text_embedding(self, function: Callable[[str], npt.ArrayLike]) -> None:
        self.use_embedder(function)

    def generate_text_embeddings(self, texts: Sequence[str], *, space: str | None = None) -> npt.NDArray[np.float32]:
        """A unit vector for each text, as rows, in the space in use or that of another model (`space`). Nothing is
        stored. Raises `InvalidVector` for a text with nothing to embed, `NotFound` for an unknown space, `Unavailable`
        where the embedder is missing."""
        _, embedder = self._archive.spaces.text(space)
        step = embedder.max_batch
        parts = [embedder.embed_batch(texts[begin : begin + step]) for begin in range(0, len(texts), step)]
        return np.concatenate(parts) if parts else np.empty((0, embedder.dimension), np.float32)

    def embedding_spaces(self) -> list[Space]:
        """The spaces of this archive, each of one kind, model and dimension; those in use are active."""
        return self._archive.spaces.known()

    @property
    def generate_audio_embedding(self) -> Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]:
        """Sound (float32 mono at 16 kHz, or a `Waveform` of any rate) to a unit vector. Assignable."""
        return lambda audio: self._archive.spaces.audio()[1].embed(pipeline.as_model_input(audio))

    @generate_audio_embedding.setter
    def generate_audio_embedding(self, function: Callable[[Any], npt.ArrayLike]) -> None:
        self._archive.access.require_admin("choose how sound is embedded")
        self._archive.spaces.use_audio(function)

    @property
    def generate_combined_embedding(self) -> Callable[[str, npt.NDArray[np.float32]], npt.NDArray[np.float32]]:
        """Words and sound to one unit vector. Assignable."""

        def combined(transcript: str, audio: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
            embedder = self._archive.spaces.combined()[1]
            row: npt.NDArray[np.float32] = embedder.embed_batch([transcript], [pipeline.as_model_input(audio)])[0]
            return row

        return combined

    @generate_combined_embedding.setter
    def generate_combined_embedding(self, function: Callable[[str, Any], npt.ArrayLike]) -> None:
        self._archive.access.require_admin("choose how words and sound are embedded")
        self._archive.spaces.use_combined(function)

    def use_embedder(self, function: Callable[[str], npt.ArrayLike], name: str | None = None) -> None:
        """Embed text with this function from now on, in a space called `user:<name>` (default: after the function)."""
        self._archive.access.require_admin("choose how text is embedded")
        self._archive.spaces.use_text(function, name)

    def reembed(
        self,
        embedder: str | None = None,
        *,
        kind: str = "transcript",
        drop_old: bool = False,
        progress: reembedding.Progress | None = None,
    ) -> Reembedded:
        """Embed everything anew: texts (`kind` transcript) or sounds (audio), with another embedder (a spec, as of
        `text_embedder`), or with the one in use, function or not: then only what lacks a vector gets one.

        The new space is filled beside the old one, which searches use until all of it is there. Run again after an
        interruption, it goes on. drop_old: free the spaces of this kind that are no longer used. `progress` is called
        with the stage, how many vectors are there, and how many there will be. Raises `UnknownSpec`, `InvalidInput`,
        `EngineUnavailable`, `EmbedderMissing`, and `Conflict` where a recording's sound cannot be read any more.
        """
        self._archive.access.require_admin("embed the archive anew")
        return reembedding.run(self._archive, embedder, kind, progress or (lambda *_: None), drop_old=drop_old)

    def plan_reembedding(self, embedder: str | None = None, *, kind: str = "transcript") -> Plan:
        """What `reembed` would do, without doing it. Raises as it does."""
        self._archive.access.require_admin("plan to embed the archive anew")
        return reembedding.plan(self._archive, embedder, kind)
