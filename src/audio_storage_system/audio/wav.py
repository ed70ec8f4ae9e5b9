"""The head of a WAV file with 16-bit samples: RIFF, or RF64 (EBU Tech 3306) where 32 bits cannot hold the sizes."""

from __future__ import annotations

import struct

SAMPLE_BYTES = 2
LARGEST_RIFF = 0xFFFFFFFF
_UNKNOWN = 0xFFFFFFFF


def wav_header(sample_rate: int, channels: int, frames: int, recorded: str = "") -> bytes:
    """Everything before the samples of a PCM_16 file with `frames` samples per channel; they follow little-endian.

    `recorded`: when it was recorded (ASCII), kept in the file's INFO list.
    """
    frame_bytes = channels * SAMPLE_BYTES
    data_size = frames * frame_bytes
    pcm = struct.pack("<HHIIHH", 1, channels, sample_rate, sample_rate * frame_bytes, frame_bytes, 8 * SAMPLE_BYTES)
    format_chunk = struct.pack("<4sI", b"fmt ", len(pcm)) + pcm + _info(recorded)
    riff_size = len(b"WAVE") + len(format_chunk) + 8 + data_size
    if riff_size <= LARGEST_RIFF:
        return (
            struct.pack("<4sI4s", b"RIFF", riff_size, b"WAVE") + format_chunk + struct.pack("<4sI", b"data", data_size)
        )
    sizes = struct.pack("<4sIQQQI", b"ds64", 28, riff_size + 36, data_size, frames, 0)
    return (
        struct.pack("<4sI4s", b"RF64", _UNKNOWN, b"WAVE")
        + sizes
        + format_chunk
        + struct.pack("<4sI", b"data", _UNKNOWN)
    )


def _info(recorded: str) -> bytes:
    """The INFO list with the date of creation; nothing for no date."""
    if not recorded:
        return b""
    text = recorded.encode("ascii") + b"\0"
    entry = struct.pack("<4sI", b"ICRD", len(text)) + text + b"\0" * (len(text) % 2)
    return struct.pack("<4sI4s", b"LIST", 4 + len(entry), b"INFO") + entry
