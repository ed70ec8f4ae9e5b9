"""An archive for audio in voice-to-LLM work: store, transcribe, embed and find what was said.

    from audio_storage_system import AudioStorageSystem

    storage = AudioStorageSystem(storage_backend="sqlite")
    audio_id = storage.add("meeting.m4a", metadata={"user": "john"})
    for hit in storage.search_similar_audio("what did we decide?", limit=5):
        print(f"{hit['similarity']:.3f} {hit['transcription']}")

Importing this is cheap: the parts are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from audio_storage_system.audio.waveform import Waveform
    from audio_storage_system.backup import restore_backup
    from audio_storage_system.clock import Cancellation
    from audio_storage_system.diagnosis import diagnose, known_models
    from audio_storage_system.errors import AudioStorageSystemError
    from audio_storage_system.search import ContextPack, Hit, SearchResults
    from audio_storage_system.system import Added, AudioStorageSystem, load_audio
    from audio_storage_system.transfer import CopyReport, copy_archive

__version__ = "0.1.0"

__all__ = [
    "Added",
    "AudioStorageSystem",
    "AudioStorageSystemError",
    "Cancellation",
    "ContextPack",
    "CopyReport",
    "Hit",
    "SearchResults",
    "Waveform",
    "__version__",
    "copy_archive",
    "diagnose",
    "known_models",
    "load_audio",
    "restore_backup",
]

_HOMES = {
    "Added": "system",
    "AudioStorageSystem": "system",
    "AudioStorageSystemError": "errors",
    "Cancellation": "clock",
    "ContextPack": "search",
    "CopyReport": "transfer",
    "Hit": "search",
    "SearchResults": "search",
    "Waveform": "audio.waveform",
    "copy_archive": "transfer",
    "diagnose": "diagnosis",
    "known_models": "diagnosis",
    "load_audio": "system",
    "restore_backup": "backup",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
