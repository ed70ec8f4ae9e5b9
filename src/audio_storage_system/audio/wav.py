"""The head of a WAV file with 16-bit samples: RIFF, or RF64 (EBU Tech 3306) where 32 bits cannot hold the sizes."""

from __future__ import annotations

import os
import re
import struct
from dataclasses import dataclass
from typing import BinaryIO

SAMPLE_BYTES = 2
LARGEST_RIFF = 0xFFFFFFFF
_UNKNOWN = 0xFFFFFFFF
_PLAIN = struct.Struct("<4sI4s4sIHHIIHH4sI")
_RATES = range(1_000, 768_001)

# Compressed sound passes for 16-bit samples in the "WAV" files of some CDs, and ffmpeg tells. Its marks are sought in
# so many bytes after the silence at the beginning: several of its frames.
_LOOK, _SILENCE = 1 << 14, 1 << 17
_MARKS_ANYWHERE = (
    b"\x7f\xfe\x80\x01",  # DTS, in its four byte orders, and its high-definition kind
    b"\xfe\x7f\x01\x80",
    b"\x1f\xff\xe8\x00",
    b"\xff\x1f\x00\xe8",
    b"\x64\x58\x20\x25",
    b"\x72\xf8\x1f\x4e",  # IEC 61937: whatever goes over S/PDIF
    b"\xf8\x72\x6f\xba",  # TrueHD
)
_MARK_AT_START = re.compile(rb"(?:\x0b\x77|\x77\x0b|\xff[\xe0-\xff]|\x56[\xe0-\xff])")  # AC-3, MPEG, AAC


@dataclass(frozen=True, slots=True)
class PlainWav:
    """A WAV file of 16-bit samples with nothing else in it, and with all that its header promises."""

    sample_rate: int
    channels: int
    frames: int


def read_plain_wav(file: BinaryIO) -> PlainWav | None:
    """What a seekable file is, when it is certain to be such a WAV file; `None` sends it to ffmpeg.

    Neither more chunks nor more or less sound than promised, one or two channels, no other sound's mark in it.
    """
    file.seek(0, os.SEEK_END)
    size = file.tell()
    file.seek(0)
    head = file.read(_PLAIN.size)
    if len(head) < _PLAIN.size or not head.startswith(b"RIFF"):
        return None
    riff, riff_size, wave, fmt, fmt_size, pcm, channels, rate, per_second, per_frame, bits, data, data_size = (
        _PLAIN.unpack(head)
    )
    named = (riff, wave, fmt, fmt_size, pcm, bits, data) == (b"RIFF", b"WAVE", b"fmt ", 16, 1, 16, b"data")
    agrees = per_frame == channels * SAMPLE_BYTES and per_second == per_frame * rate
    whole = riff_size + 8 == size == data_size + _PLAIN.size
    if not (named and agrees and whole and channels in (1, 2) and rate in _RATES and data_size % per_frame == 0):
        return None
    return None if _looks_compressed(file.read(_SILENCE)) else PlainWav(rate, channels, data_size // per_frame)


def _looks_compressed(samples: bytes) -> bool:
    sound = samples.lstrip(b"\0")[:_LOOK]
    return any(mark in sound for mark in _MARKS_ANYWHERE) or _MARK_AT_START.match(sound) is not None


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
