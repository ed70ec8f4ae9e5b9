"""Speech recognisers by spec string: `faster-whisper:<size|repo|folder>`, `pocketsphinx`, `openai:<model>`."""

from audio_storage_system.registry import Registry, split_spec
from audio_storage_system.transcribers.base import (
    SAMPLE_RATE,
    Capabilities,
    Listener,
    TranscribeOptions,
    Transcriber,
    Window,
    WindowResult,
)
from audio_storage_system.transcribers.weights import WHISPER_SIZES

_HERE = "audio_storage_system.transcribers"

TRANSCRIBERS = Registry(
    kind="transcriber",
    family="transcribers",
    builtin={
        "faster-whisper": f"{_HERE}.faster_whisper:FasterWhisperTranscriber",
        "pocketsphinx": f"{_HERE}.pocketsphinx:PocketSphinxTranscriber",
        "openai": f"{_HERE}.openai:OpenAITranscriber",
    },
)


def resolve_transcriber(spec: str) -> str:
    """The full spec for what a caller wrote: a bare Whisper size means `faster-whisper:<size>`.

    Raises `UnknownSpec` for anything that is neither a size nor a registered engine.
    """
    if spec in WHISPER_SIZES:
        return f"faster-whisper:{spec}"
    TRANSCRIBERS.load(spec)
    return spec


def open_transcriber(spec: str) -> Transcriber:
    """The transcriber for `spec`, not loaded yet."""
    spec = resolve_transcriber(spec)
    transcriber: Transcriber = TRANSCRIBERS.load(spec)(split_spec(spec)[1])
    return transcriber


def is_remote(spec: str) -> bool:
    """Whether a service over the network transcribes for `spec`. Raises as `resolve_transcriber`."""
    return bool(getattr(TRANSCRIBERS.load(resolve_transcriber(spec)), "remote", False))


__all__ = [
    "SAMPLE_RATE",
    "TRANSCRIBERS",
    "WHISPER_SIZES",
    "Capabilities",
    "Listener",
    "TranscribeOptions",
    "Transcriber",
    "Window",
    "WindowResult",
    "is_remote",
    "open_transcriber",
    "resolve_transcriber",
]
