"""Text embedders through sentence-transformers, any model of the hub or a folder. An extra: it brings torch."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from audio_storage_system.embedders.base import Matrix, TextEmbedder, Vector, unit_rows
from audio_storage_system.embedders.folders import folder_name, model_folder
from audio_storage_system.embedders.hub import announce_download
from audio_storage_system.embedders.texts import readable
from audio_storage_system.errors import EngineUnavailable, MissingExtra, UnknownSpec
from audio_storage_system.hub import first_line

EXTRA = "sentence-transformers"
EXAMPLES = (
    "sentence-transformers:all-MiniLM-L6-v2, sentence-transformers:all-mpnet-base-v2, "
    "sentence-transformers:paraphrase-multilingual-MiniLM-L12-v2, any such model of the hub, or a folder"
)
WEIGHT_FILES = ("*.safetensors", "*.json", "*.txt", "*.model")
OWN_ORGANISATION = "sentence-transformers"  # where a name without a slash is looked for


class SentenceTransformersEmbedder(TextEmbedder):
    """One sentence-transformers model, loaded on first use. Safe to use from several threads.

    Raises `MissingExtra` at once where the package is absent; `UnknownSpec` or `EngineUnavailable` on first use.
    """

    max_batch = 256

    def __init__(self, argument: str) -> None:
        if importlib.util.find_spec("sentence_transformers") is None:
            raise MissingExtra(what="text embedder sentence-transformers", extra=EXTRA)
        if not argument:
            raise UnknownSpec(kind="text embedder", spec="sentence-transformers:", known=EXAMPLES)
        self.spec = f"sentence-transformers:{argument}"
        self.folder = model_folder(argument)
        self.model = f"sentence-transformers:{folder_name(self.folder)}" if self.folder else self.spec
        self.repository = argument if "/" in argument else f"{OWN_ORGANISATION}/{argument}"
        self._lock = threading.Lock()
        self._loaded: Any = None
        self._dimension = 0

    @property
    def dimension(self) -> int:
        """Learned from the model's first vector."""
        return self._dimension or len(self.embed("dimension"))

    def embed_batch(self, texts: Sequence[str]) -> Matrix:
        """Unit rows; the model itself cuts a text that is longer than its window."""
        if not texts:
            return np.empty((0, self.dimension), np.float32)
        return self._rows(texts, "document")

    def embed_query(self, text: str) -> Vector:
        """With the model's own query prompt where it has one."""
        row: Vector = self._rows([text], "query")[0]
        return row

    def _rows(self, texts: Sequence[str], prompt: str) -> Matrix:
        model = self._model()
        vectors = model.encode(
            [readable(text) for text in texts],
            prompt_name=prompt if prompt in model.prompts else None,
            show_progress_bar=False,
        )
        rows = unit_rows(vectors, model=self.model, dimension=self._dimension or None)
        self._dimension = rows.shape[1]
        return rows

    def _model(self) -> Any:
        with self._lock:
            if self._loaded is None:
                self._loaded = self._load(str(self.folder)) if self.folder else self._by_name()
            return self._loaded

    def _by_name(self) -> Any:
        try:
            return self._load(self.repository)
        except EngineUnavailable:
            announce_download(self.repository, WEIGHT_FILES, spec=self.spec, examples=EXAMPLES)
        return self._load(self.repository, local_files_only=False)

    def _load(self, model: str, *, local_files_only: bool = True) -> Any:
        from sentence_transformers import SentenceTransformer

        try:
            return SentenceTransformer(model, local_files_only=local_files_only)
        except Exception as error:  # torch, transformers and the hub's client have no common class of errors
            raise EngineUnavailable(spec=self.spec, reason=first_line(error)) from error
