"""Derived copies: 16 kHz mono, lossless from there on."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from audio_storage_system.audio import load_audio, probe, write_copy
from audio_storage_system.errors import NotAudio
from sounds import RATE, encoded, noise, wav

Format = Literal["flac", "pcm16"]


@pytest.mark.parametrize(("format", "codec"), [("flac", "flac"), ("pcm16", "pcm_s16le")])
def test_a_copy_holds_the_same_sound_as_16_bit_mono(tmp_path: Path, format: Format, codec: str) -> None:
    original = encoded(noise(3.5, 44_100), "wav", "pcm_s16le", rate=44_100)
    write_copy(io.BytesIO(original), tmp_path / "copy", format)
    info = probe(tmp_path / "copy")
    assert (info.sample_rate, info.channels, info.codec) == (RATE, 1, codec)
    expected, found = load_audio(io.BytesIO(original)), load_audio(tmp_path / "copy")
    assert len(found) == len(expected)
    assert float(np.abs(found - expected).max()) < 1e-4


@pytest.mark.parametrize("format", ["flac", "pcm16"])
def test_equal_sound_gives_equal_bytes(tmp_path: Path, format: Format) -> None:
    for name in ("one", "two"):
        write_copy(io.BytesIO(wav(noise(2.0))), tmp_path / name, format)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert b"Lavf" not in (tmp_path / "one").read_bytes()


def test_flac_is_smaller_than_the_original(tmp_path: Path) -> None:
    quiet = wav(noise(5.0, level=0.01))
    write_copy(io.BytesIO(quiet), tmp_path / "copy.flac")
    assert (tmp_path / "copy.flac").stat().st_size < 0.75 * len(quiet)


def test_a_wave_copy_leaves_room_to_grow_beyond_4_gb(tmp_path: Path) -> None:
    write_copy(io.BytesIO(wav(noise(1.0))), tmp_path / "copy.wav", "pcm16")
    head = (tmp_path / "copy.wav").read_bytes()[:64]
    assert head[12:16] == b"JUNK"  # where RF64 puts its 64-bit sizes
    assert struct.unpack("<I", head[16:20])[0] >= 28


def test_nothing_is_left_when_the_source_is_no_audio(tmp_path: Path) -> None:
    with pytest.raises(NotAudio):
        write_copy(io.BytesIO(b"no sound"), tmp_path / "copy.flac")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_does_not_exist_is_an_operating_system_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_copy(io.BytesIO(wav(noise(1.0))), tmp_path / "none" / "copy.flac")
