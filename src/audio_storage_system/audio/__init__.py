"""Sound: what a file is, its samples, where somebody speaks, and pieces that a recogniser can take."""

from audio_storage_system.audio.activity import speech_spans
from audio_storage_system.audio.decode import AudioStream, decode_span, load_audio, resample, stream
from audio_storage_system.audio.encode import write_copy
from audio_storage_system.audio.peaks import peaks
from audio_storage_system.audio.probe import probe
from audio_storage_system.audio.waveform import Waveform
from audio_storage_system.audio.windows import SpeechWindow, SpeechWindows, speech_windows

__all__ = [
    "AudioStream",
    "SpeechWindow",
    "SpeechWindows",
    "Waveform",
    "decode_span",
    "load_audio",
    "peaks",
    "probe",
    "resample",
    "speech_spans",
    "speech_windows",
    "stream",
    "write_copy",
]
