"""Announcing the download of a text embedder's weights."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from fnmatch import fnmatch

from audio_storage_system.errors import UnknownSpec
from audio_storage_system.hub import model_info

log = logging.getLogger(__name__)


def announce_download(repository: str, patterns: Iterable[str], *, spec: str, examples: str) -> None:
    """Log what is about to be downloaded and how large the files matching `patterns` are.

    Raises `UnknownSpec` (naming `examples`) where the hub has no such repository, `EngineUnavailable` when
    `HF_HUB_OFFLINE` is set or the hub does not answer within seconds.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    try:
        files = model_info(repository, spec).siblings or []
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise UnknownSpec(kind="text embedder", spec=spec, known=examples) from error
    sizes = [file.size or 0 for file in files if any(fnmatch(file.rfilename, pattern) for pattern in patterns)]
    log.warning("downloading the weights of %s from %s: %.0f MB", spec, constants.ENDPOINT, sum(sizes) / 1e6)
