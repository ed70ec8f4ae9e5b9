"""Live transcription: sound that is stored, understood and found while it is spoken."""

from audio_storage_system.live.events import (
    Ended,
    Event,
    Final,
    Lag,
    LiveReport,
    Partial,
    SpeechStarted,
    Suspended,
    Unheard,
)
from audio_storage_system.live.listening import Listening, listen
from audio_storage_system.live.session import LiveSession, Submit, Wanted, begin, check, resume

__all__ = [
    "Ended",
    "Event",
    "Final",
    "Lag",
    "Listening",
    "LiveReport",
    "LiveSession",
    "Partial",
    "SpeechStarted",
    "Submit",
    "Suspended",
    "Unheard",
    "Wanted",
    "begin",
    "check",
    "listen",
    "resume",
]
