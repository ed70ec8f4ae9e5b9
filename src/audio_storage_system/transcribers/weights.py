"""Where the weights of a Whisper model are: a folder, the Hugging Face cache, or the hub, decided within seconds."""

from __future__ import annotations

import logging
from pathlib import Path

from audio_storage_system.errors import EngineUnavailable, WeightsUnavailable
from audio_storage_system.hub import first_line, model_info

log = logging.getLogger(__name__)

WHISPER_SIZES = frozenset(
    "tiny tiny.en base base.en small small.en medium medium.en large large-v1 large-v2 large-v3 large-v3-turbo turbo "
    "distil-small.en distil-medium.en distil-large-v2 distil-large-v3 distil-large-v3.5".split()
)
FILES = ["model.bin", "config.json", "tokenizer.json", "preprocessor_config.json", "vocabulary.*"]
_REQUIRED = ("model.bin", "config.json", "tokenizer.json")
_OTHER_REPOSITORIES = {
    "large": "Systran/faster-whisper-large-v3",
    "turbo": "mobiuslabsgmbh/faster-whisper-large-v3-turbo",
    "large-v3-turbo": "mobiuslabsgmbh/faster-whisper-large-v3-turbo",
    "distil-large-v3.5": "distil-whisper/distil-large-v3.5-ct2",
}


def find_weights(model: str, spec: str) -> Path:
    """The folder with the files of `model`: a folder's path, a Whisper size, or a repository on the hub.

    A download is announced with its size first. Raises `EngineUnavailable` when the files are nowhere to be had, within
    seconds when the hub cannot be reached or `HF_HUB_OFFLINE` is set.
    """
    folder = Path(model).expanduser()
    if model not in WHISPER_SIZES and folder.is_dir():
        return _complete(folder, spec)
    if folder.is_absolute() or model.startswith(("~", ".")) or model.count("/") > 1 or "\\" in model:
        raise EngineUnavailable(spec=spec, reason=f"there is no folder {folder}")
    repository = repository_of(model)
    return _cached(repository, spec) or _downloaded(repository, spec)


def repository_of(model: str) -> str:
    """The hub's name for a Whisper size; a name that has a slash already is one."""
    if "/" in model:
        return model
    if model.startswith("distil-") and model not in _OTHER_REPOSITORIES:
        return f"Systran/faster-distil-whisper-{model.removeprefix('distil-')}"
    return _OTHER_REPOSITORIES.get(model, f"Systran/faster-whisper-{model}")


def missing_files(names: set[str]) -> list[str]:
    """Which files a CTranslate2 Whisper model lacks. Without `tokenizer.json` it would be fetched from the hub."""
    missing = [name for name in _REQUIRED if name not in names]
    return missing if {"vocabulary.json", "vocabulary.txt"} & names else [*missing, "vocabulary.json"]


def _complete(folder: Path, spec: str) -> Path:
    missing = missing_files({path.name for path in folder.iterdir()})
    if missing:
        raise EngineUnavailable(
            spec=spec, reason=f"{folder} is not a CTranslate2 Whisper model: no {', '.join(missing)}"
        )
    return folder


def _cached(repository: str, spec: str) -> Path | None:
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(huggingface_hub.snapshot_download(repository, allow_patterns=FILES, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    except HFValidationError as error:
        raise EngineUnavailable(spec=spec, reason=str(error)) from error
    return None if missing_files({path.name for path in folder.iterdir()}) else folder


def _downloaded(repository: str, spec: str) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    try:
        info = model_info(repository, spec)
    except (RepositoryNotFoundError, HFValidationError) as error:
        reason = f"the hub has no {repository}: {first_line(error)}"
        raise WeightsUnavailable(spec=spec, reason=reason) from error
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
    if missing := missing_files(set(sizes)):
        reason = f"{repository} is not a Whisper model in CTranslate2's format: no {', '.join(missing)}"
        raise WeightsUnavailable(spec=spec, reason=reason)
    wanted = sum(size for name, size in sizes.items() if name in FILES or name.startswith("vocabulary."))
    log.warning("downloading %s: %.0f MB", repository, wanted / 1e6)
    try:
        folder = huggingface_hub.snapshot_download(repository, allow_patterns=FILES)
    except Exception as error:  # the hub's client raises those of its HTTP library, which differ between versions
        raise WeightsUnavailable(spec=spec, reason=f"the download of {repository} failed: {error}") from error
    return _complete(Path(folder), spec)
