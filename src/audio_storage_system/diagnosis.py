"""What works on this machine: engines, models, devices; and how to get the rest. Nothing here loads a model or asks the
network."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from audio_storage_system.audio import microphone
from audio_storage_system.embedders import TEXT_EMBEDDERS
from audio_storage_system.embedders.fastembed import EXAMPLES
from audio_storage_system.errors import MicrophoneUnavailable
from audio_storage_system.transcribers import TRANSCRIBERS, WHISPER_SIZES
from audio_storage_system.transcribers.weights import missing_files, repository_of

LOW_DISK_BYTES = 2 * 1024**3
# What the weights take on disk, in MB, as published in CTranslate2's 16-bit format.
WHISPER_MB = {
    "tiny": 75,
    "base": 145,
    "small": 484,
    "medium": 1530,
    "large": 3090,
    "turbo": 1620,
    "distil-small": 332,
    "distil-medium": 789,
    "distil-large": 1510,
}


# What an archive can use instead of SQLite and a folder: the extra, what it is for, the package and its distribution.
BACKENDS = (
    ("postgres", "catalogue and vectors on PostgreSQL", "psycopg", "psycopg"),
    ("cloud", "audio on S3, Google Cloud Storage or Azure", "obstore", "obstore"),
    ("chroma", "vectors in Chroma", "chromadb", "chromadb"),
    ("qdrant", "vectors in Qdrant", "qdrant_client", "qdrant-client"),
    ("lancedb", "vectors in LanceDB", "lancedb", "lancedb"),
    ("pinecone", "vectors in Pinecone", "pinecone", "pinecone"),
)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at: whether it can be used, what was found, and how to get it otherwise."""

    area: str
    name: str
    usable: bool
    detail: str
    remedy: str = ""

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Model:
    """Something that transcribes or embeds. `megabytes`: what its weights take, where that is known; `here`: no
    download is needed."""

    kind: str
    spec: str
    megabytes: float | None
    here: bool
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def diagnose(home: Path) -> list[Check]:
    """Look at everything that an archive in the folder `home` could use."""
    return [*_transcribers(), *_embedders(), *_backends(), *_devices(), *_machine(home)]


def known_models() -> list[Model]:
    """Every recogniser and embedder by its spec."""
    return [
        *_whisper_models(),
        *_other_transcribers(),
        *_text_embedders(),
        _model("audio embedder", "acoustic", 0, True),
    ]


def _model(kind: str, spec: str, megabytes: float | None, here: bool, note: str = "") -> Model:
    return Model(kind, spec, megabytes, here, note or ("bundled" if here and not megabytes else ""))


def _transcribers() -> Iterator[Check]:
    area = "transcriber"
    here = [size for size in _by_weight(WHISPER_SIZES) if _cached_whisper(size)]
    detail = f"faster-whisper {_version('faster-whisper')}; weights here: {', '.join(here) or 'none'}"
    remedy = (
        "" if here else 'The first use with network downloads them ("base": 145 MB); or give faster-whisper:FOLDER.'
    )
    yield Check(area, "faster-whisper", bool(here), detail, remedy)
    installed = find_spec("pocketsphinx") is not None
    detail = f"pocketsphinx {_version('pocketsphinx')}, English, bundled; the fallback: many mistakes on real speech"
    yield Check(area, "pocketsphinx", installed, detail, "" if installed else "pip install pocketsphinx")
    yield _openai(area, "openai:whisper-1")
    yield from _third_parties(area, TRANSCRIBERS.schemes(), ("faster-whisper", "pocketsphinx", "openai"))


def _embedders() -> Iterator[Check]:
    area = "text embedder"
    installed = find_spec("wordllama") is not None
    yield Check(area, "wordllama", installed, f"wordllama {_version('wordllama')}, 256 dimensions, bundled")
    here = [name for name in EXAMPLES if _cached(name)]
    remedy = "" if here else f"audio-storage init --text-embedder fastembed:{EXAMPLES[0]} downloads it once."
    yield Check(area, "fastembed", bool(here), f"models here: {', '.join(here) or 'none'}", remedy)
    torch = find_spec("sentence_transformers") is not None
    remedy = "" if torch else 'pip install "audio-storage-system[sentence-transformers]"'
    yield Check(area, "sentence-transformers", torch, _version("sentence-transformers"), remedy)
    yield _openai(area, "openai:text-embedding-3-small")
    known = ("wordllama", "fastembed", "sentence-transformers", "openai")
    yield from _third_parties(area, TEXT_EMBEDDERS.schemes(), known)
    yield Check("audio embedder", "acoustic", True, "bundled: how a voice or a sound is coloured")


def _backends() -> Iterator[Check]:
    for extra, purpose, package, distribution in BACKENDS:
        installed = find_spec(package) is not None
        remedy = "" if installed else f'pip install "audio-storage-system[{extra}]"'
        yield Check("backend", extra, installed, f"{purpose}; {distribution} {_version(distribution)}", remedy)


def _openai(area: str, spec: str) -> Check:
    key, address = os.environ.get("OPENAI_API_KEY"), os.environ.get("OPENAI_BASE_URL")
    detail = f"OPENAI_API_KEY is {'set' if key else 'not set'}, the server is {'your own' if address else 'OpenAI'}"
    remedy = "" if key or address else "Set OPENAI_API_KEY, or OPENAI_BASE_URL for a server of your own."
    return Check(area, spec, bool(key or address), detail, remedy)


def _third_parties(area: str, schemes: list[str], ours: tuple[str, ...]) -> Iterator[Check]:
    for scheme in schemes:
        if scheme not in ours:
            yield Check(area, scheme, True, "from another package")


def _devices() -> Iterator[Check]:
    try:
        for device in microphone.list_devices():
            name = f"{device.index}: {device.name}" + (" (default)" if device.default else "")
            yield Check("microphone", name, True, f"{device.sample_rate} Hz, {device.channels} channel(s)")
    except MicrophoneUnavailable as error:
        yield Check("microphone", "none", False, "no sound can be recorded here", str(error.details["reason"]))
    gpus = _gpus()
    detail = f"{gpus} that faster-whisper can use" if gpus else "none; faster-whisper runs on the processor, 8-bit"
    yield Check("gpu", "CUDA", gpus > 0, detail)


def _machine(home: Path) -> Iterator[Check]:
    import av

    yield Check("decoder", "ffmpeg", True, f"PyAV {av.__version__}, {len(av.codecs_available)} codecs")
    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    writable = os.access(existing, os.W_OK)
    detail = f"{free / 1e9:.1f} GB free at {existing}" + ("" if writable else ", which cannot be written")
    remedy = "" if free > LOW_DISK_BYTES else "Free some space: an hour of 16 kHz sound takes 115 MB."
    yield Check("disk", str(existing), writable and free > LOW_DISK_BYTES, detail, remedy)


def _whisper_models() -> Iterator[Model]:
    for size in _by_weight(WHISPER_SIZES):
        note = "English only" if size.endswith(".en") else ""
        yield _model("transcriber", f"faster-whisper:{size}", _whisper_mb(size), _cached_whisper(size), note)


def _other_transcribers() -> Iterator[Model]:
    yield _model(
        "transcriber", "pocketsphinx", 0, find_spec("pocketsphinx") is not None, "bundled, English, a fallback"
    )
    reachable = _openai("transcriber", "").usable
    for name in ("whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe"):
        yield _model("transcriber", f"openai:{name}", None, reachable, "sends sound to a server")


def _text_embedders() -> Iterator[Model]:
    from fastembed import TextEmbedding

    yield _model("text embedder", "wordllama", 0, find_spec("wordllama") is not None, "bundled, 256 dimensions")
    for known in sorted(TextEmbedding.list_supported_models(), key=lambda known: known["size_in_GB"]):
        here = _cached(known["sources"]["hf"] or known["model"])
        note = f"{known['dim']} dimensions"
        yield _model("text embedder", f"fastembed:{known['model']}", known["size_in_GB"] * 1000, here, note)
    installed = find_spec("sentence_transformers") is not None
    yield _model("text embedder", "sentence-transformers:MODEL", None, installed, "any model or folder; an extra")
    reachable = _openai("text embedder", "").usable
    yield _model("text embedder", "openai:text-embedding-3-small", None, reachable, "sends text to a server")


def _by_weight(sizes: frozenset[str]) -> list[str]:
    return sorted(sizes, key=lambda size: (_whisper_mb(size), size))


def _whisper_mb(size: str) -> int:
    family = "turbo" if size.endswith("turbo") else max((f for f in WHISPER_MB if size.startswith(f)), key=len)
    return WHISPER_MB[family]


def _cached_whisper(size: str) -> bool:
    return any(
        not missing_files({file.name for file in folder.iterdir()}) for folder in _snapshots(repository_of(size))
    )


def _cached(repository: str) -> bool:
    return any(next(folder.rglob("*.onnx"), None) for folder in _snapshots(repository))


def _snapshots(repository: str) -> list[Path]:
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}" / "snapshots"
    return [place for place in folder.glob("*") if place.is_dir()]


def _gpus() -> int:
    import ctranslate2

    return int(ctranslate2.get_cuda_device_count())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
