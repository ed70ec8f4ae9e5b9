"""Text embedders that run on ONNX through fastembed: small, quick, no torch.

The argument is a model that fastembed knows (`BAAI/bge-small-en-v1.5`) or a folder with an ONNX model and its
tokenizer, as exporting from sentence-transformers leaves it. Weights are looked for in `FASTEMBED_CACHE_PATH` or the
Hugging Face cache. fastembed itself retries for 40 s when it cannot download, so whether it can is decided first.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audio_storage_system.embedders.base import Matrix, TextEmbedder, Vector, unit_rows
from audio_storage_system.embedders.folders import folder_name, model_folder
from audio_storage_system.embedders.hub import announce_download
from audio_storage_system.embedders.texts import never_blank
from audio_storage_system.errors import EngineUnavailable, UnknownSpec
from audio_storage_system.hub import first_line

log = logging.getLogger(__name__)

EXAMPLES = (
    "sentence-transformers/all-MiniLM-L6-v2",
    "BAAI/bge-small-en-v1.5",
    "BAAI/bge-base-en-v1.5",
    "nomic-ai/nomic-embed-text-v1.5",
    "intfloat/multilingual-e5-large",
    "minishlab/potion-base-8M",
)
TOKENIZER_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


class FastEmbedEmbedder(TextEmbedder):
    """One fastembed model, loaded on first use. Safe to use from several threads.

    Raises `UnknownSpec` for a name that fastembed does not know, `EngineUnavailable` (within seconds) when the weights
    are neither here nor to be had, both on first use.
    """

    max_batch = 256

    def __init__(self, argument: str) -> None:
        if not argument:
            raise UnknownSpec(kind="text embedder", spec="fastembed:", known=_listed(EXAMPLES))
        self.argument = argument
        self.spec = f"fastembed:{argument}"
        self.folder = model_folder(argument)
        self.model = f"fastembed:{folder_name(self.folder)}" if self.folder else self.spec
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
        return self._rows(self._model().embed, texts)

    def embed_query(self, text: str) -> Vector:
        row: Vector = self._rows(self._model().query_embed, [text])[0]
        return row

    def _rows(self, embed: Callable[[list[str]], Iterable[npt.ArrayLike]], texts: Sequence[str]) -> Matrix:
        vectors = np.array(list(embed([never_blank(text) for text in texts])))
        rows = unit_rows(vectors, model=self.model, dimension=self._dimension or None)
        self._dimension = rows.shape[1]
        return rows

    def _model(self) -> Any:
        with self._lock:
            if self._loaded is None:
                self._loaded = self._from_folder(self.folder) if self.folder else self._by_name()
            return self._loaded

    def _from_folder(self, folder: Path) -> Any:
        from fastembed import TextEmbedding
        from fastembed.common.model_description import ModelSource

        if self.model not in {known["model"] for known in TextEmbedding.list_supported_models()}:
            TextEmbedding.add_custom_model(
                model=self.model,
                pooling=_pooling(folder),
                normalization=True,
                sources=ModelSource(url=folder.as_uri()),
                dim=0,  # nothing asks fastembed for it
                model_file=self._model_file(folder),
            )
        return self._load(specific_model_path=str(folder))

    def _model_file(self, folder: Path) -> str:
        found = sorted(folder.glob("*.onnx")) or sorted(folder.glob("onnx/*.onnx"))
        if not found:
            raise EngineUnavailable(spec=self.spec, reason=f"there is no .onnx file in {folder}")
        plain = [path for path in found if path.name == "model.onnx"]
        return (plain or found)[0].relative_to(folder).as_posix()

    def _by_name(self) -> Any:
        from fastembed import TextEmbedding

        known = {model["model"].lower(): model for model in TextEmbedding.list_supported_models()}
        description = known.get(self.argument.lower())
        if description is None:
            names = [model["model"] for model in known.values()]
            raise UnknownSpec(kind="text embedder", spec=self.spec, known=_suggestions(self.argument, names))
        cache = os.environ.get("FASTEMBED_CACHE_PATH") or _hub_cache()
        try:
            return _quietly(lambda: self._fastembed(cache_dir=cache, local_files_only=True))
        except ValueError as error:
            log.debug("%s is not in %s: %s", self.spec, cache, error)
        files = (*TOKENIZER_FILES, description["model_file"], *description["additional_files"])
        announce_download(description["sources"]["hf"], files, spec=self.spec, examples=_listed(EXAMPLES))
        return self._load(cache_dir=cache)

    def _load(self, **options: Any) -> Any:
        try:
            return self._fastembed(**options)
        except Exception as error:  # fastembed, onnxruntime and tokenizers have no common class of errors
            raise EngineUnavailable(spec=self.spec, reason=first_line(error)) from error

    def _fastembed(self, **options: Any) -> Any:
        from fastembed import TextEmbedding

        return TextEmbedding(self.model if self.folder else self.argument, **options)


def _pooling(folder: Path) -> Any:
    """How the folder's model makes one vector of many, as sentence-transformers writes it; else the mean."""
    from fastembed.common.model_description import PoolingType

    path = folder / "1_Pooling" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if config.get("pooling_mode_cls_token") or config.get("pooling_mode") == "cls":
        return PoolingType.CLS
    if config.get("pooling_mode_lasttoken") or config.get("pooling_mode") == "lasttoken":
        return PoolingType.LAST_TOKEN
    return PoolingType.MEAN


def _hub_cache() -> str:
    from huggingface_hub import constants

    return constants.HF_HUB_CACHE


def _quietly(call: Callable[[], Any]) -> Any:
    """`call` without fastembed's own log lines: what it reports as an error is only a model not downloaded yet."""
    from loguru import logger

    logger.disable("fastembed")
    try:
        return call()
    finally:
        logger.enable("fastembed")


def _suggestions(name: str, names: Sequence[str]) -> str:
    close = get_close_matches(name, names, n=3, cutoff=0.5)
    return _listed([*close, *(example for example in EXAMPLES if example not in close)])


def _listed(names: Iterable[str]) -> str:
    return ", ".join([*(f"fastembed:{name}" for name in names), "or a folder with an ONNX model"])
