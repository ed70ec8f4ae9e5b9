"""The recognisers and embedders that clients can name: those that the operator offers.

Any other spec is refused before anything is opened: otherwise anybody could have any folder of this machine read, any
model loaded from the network, or sound sent away with the operator's account. In Python every spec works.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from audio_storage_system import AudioStorageSystem
from audio_storage_system.embedders import BUNDLED_AUDIO, BUNDLED_TEXT
from audio_storage_system.embedders.fastembed import EXAMPLES
from audio_storage_system.errors import InvalidSetting, UnknownSpec
from audio_storage_system.records import EmbeddingKind
from audio_storage_system.transcribers.weights import WHISPER_SIZES, repository_of

# OpenAI's ids mean what the archive is set to.
SPEECH = ("whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe", "gpt-4o-transcribe-diarize", "gpt-transcribe")
SPEECH_DATED = re.compile(r"gpt-[a-z0-9.-]*transcribe[a-z0-9-]*", re.ASCII)
BUNDLED = "pocketsphinx"
KNOWN = f'{BUNDLED}, a Whisper size (such as "base" or "faster-whisper:base"), {SPEECH[0]}, what openai_models names'

FASTEMBED = tuple(f"fastembed:{name}" for name in EXAMPLES)


def offered(storage: AudioStorageSystem, model: str | None) -> str | None:
    """What a client named, as the archive takes it; `None`: what the archive is set to. Raises `UnknownSpec`."""
    if not model:
        return None
    spec = transcriber(storage, model)
    is_size = model in WHISPER_SIZES and spec == f"faster-whisper:{model}"
    return model if is_size else spec  # a bare size stays what was asked for


def transcriber(storage: AudioStorageSystem, model: str) -> str | None:
    """The full spec of what transcribes for a model; `None`: what the archive is set to. Raises `UnknownSpec`."""
    settings = storage.settings
    named = named_in(settings.openai_models)
    if model in named:
        return named[model]
    if model in SPEECH or SPEECH_DATED.fullmatch(model):
        return None
    if model in SIZES:
        return f"faster-whisper:{SIZES[model]}"
    if model in (BUNDLED, settings.transcriber, settings.transcriber_fallback):
        return model
    raise UnknownSpec(kind="transcriber", spec=model[:100], known=KNOWN)


def embedder(storage: AudioStorageSystem, spec: str | None, kind: EmbeddingKind) -> str | None:
    """The spec of an embedder that a client named; `None`: the one in use. Raises `UnknownSpec`."""
    if spec is None:
        return None
    settings, is_text = storage.settings, kind is EmbeddingKind.TRANSCRIPT
    own = settings.text_embedder if is_text else settings.audio_embedder
    bundled = (BUNDLED_TEXT, *FASTEMBED) if is_text else (BUNDLED_AUDIO,)
    offered = ["auto", own, *bundled, *(space.spec for space in storage.embedding_spaces() if space.kind is kind)]
    if spec not in offered:
        known = ", ".join(bundled)
        raise UnknownSpec(kind=f"{'text' if is_text else 'audio'} embedder", spec=spec[:100], known=known)
    return spec


def named_in(setting: str) -> Mapping[str, str]:
    """What the setting `openai_models` says. Raises `InvalidSetting`."""
    pairs = [entry.strip().partition("=") for entry in setting.split(",") if entry.strip()]
    if any(not (name.strip() and spec.strip()) for name, _, spec in pairs):
        raise InvalidSetting(name="openai_models", reason="it is a list of id=transcriber, separated by commas")
    return {name.strip(): spec.strip() for name, _, spec in pairs}


def _sizes() -> Iterator[tuple[str, str]]:
    """Whisper's sizes under the names that people give them."""
    for size in sorted(WHISPER_SIZES):
        prefix = "distil-whisper/" if size.startswith("distil-") else "openai/whisper-"
        for name in (size, f"faster-whisper:{size}", f"{prefix}{size}", repository_of(size)):
            yield name, size


SIZES = dict(_sizes())
