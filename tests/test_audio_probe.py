"""Probing: what a file is, believed only as far as its bytes bear it out."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audio_storage_system.audio import load_audio, probe
from audio_storage_system.audio.wav import wav_header
from audio_storage_system.errors import NotAudio
from sounds import RATE, encoded, noise, tone, wav


@pytest.mark.parametrize(
    ("container", "codec", "media_type", "name"),
    [
        ("wav", "pcm_s16le", "audio/wav", "pcm_s16le"),
        ("flac", "flac", "audio/flac", "flac"),
        ("mp3", "libmp3lame", "audio/mpeg", "mp3"),
        ("ipod", "aac", "audio/mp4", "aac"),
        ("adts", "aac", "audio/aac", "aac"),
        ("aiff", "pcm_s16be", "audio/aiff", "pcm_s16be"),
        ("matroska", "flac", "audio/x-matroska", "flac"),
        ("au", "pcm_s16be", "audio/basic", "pcm_s16be"),
    ],
)
def test_type_codec_rate_and_length_are_told(container: str, codec: str, media_type: str, name: str) -> None:
    info = probe(io.BytesIO(encoded(tone(4.0), container, codec)))
    assert (info.media_type, info.codec, info.sample_rate, info.channels) == (media_type, name, RATE, 1)
    assert info.duration == pytest.approx(4.0, abs=0.1)
    assert info.warnings == ()


@pytest.mark.parametrize(("container", "media_type"), [("ogg", "audio/ogg"), ("webm", "audio/webm")])
def test_opus_is_known_by_its_container(container: str, media_type: str) -> None:
    info = probe(io.BytesIO(encoded(tone(4.0, rate=48_000), container, "libopus", rate=48_000)))
    assert (info.media_type, info.codec) == (media_type, "opus")
    assert info.duration == pytest.approx(4.0, abs=0.02)


def test_real_recordings_are_described_as_their_manifest_does(test_data: Path) -> None:
    for line in (test_data / "speech" / "manifest.jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        info = probe(test_data / "speech" / entry["path"])
        assert (info.sample_rate, info.channels) == (entry["sample_rate"], entry["channels"])
        assert info.duration == pytest.approx(entry["duration_s"], abs=0.03), entry["path"]
        assert info.warnings == (), entry["path"]


def test_the_time_of_recording_comes_from_the_file() -> None:
    data = encoded(tone(1.0), "ipod", "aac", creation_time="2024-03-05T14:00:00+02:00")
    assert probe(io.BytesIO(data)).recorded_at == datetime(2024, 3, 5, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize("moment", [datetime(1970, 1, 1, tzinfo=UTC), datetime.now(UTC) + timedelta(days=9)])
def test_an_impossible_time_of_recording_is_none(moment: datetime) -> None:
    data = encoded(tone(1.0), "matroska", "flac", creation_time=moment.isoformat())
    assert probe(io.BytesIO(data)).recorded_at is None
    assert probe(io.BytesIO(wav(tone(1.0)))).recorded_at is None


@pytest.mark.parametrize("seconds", [0.5, 0.99995, 1.0, 1.00005, 2.00001, 7.0])
@pytest.mark.parametrize("rate", [1_000, 8_000, 11_025, 16_000, 44_100, 48_000, 192_000])
@pytest.mark.parametrize(
    "sound", [noise, tone, lambda seconds, rate: np.full(round(seconds * rate), -1 / 32767, np.float32)]
)
def test_a_plain_wave_file_is_described_as_one_with_a_further_chunk(
    seconds: float, rate: int, sound: Callable[..., Any]
) -> None:
    """The first is known by its header alone, the second goes through ffmpeg."""
    plain = wav(sound(seconds, rate=rate), rate=rate)
    assert probe(io.BytesIO(plain)) == probe(io.BytesIO(_with_chunk(plain)))


def _with_chunk(plain: bytes) -> bytes:
    whole = plain[:36] + b"JUNK" + struct.pack("<I", 4) + bytes(4) + plain[36:]
    return whole[:4] + struct.pack("<I", len(whole) - 8) + whole[8:]


@pytest.mark.parametrize(
    ("container", "codec", "name"), [("ac3", "ac3", "ac3"), ("mp2", "mp2", "mp2"), ("spdif", "ac3", "ac3")]
)
def test_compressed_sound_under_the_header_of_plain_samples_is_told(container: str, codec: str, name: str) -> None:
    data = encoded(noise(4.0, rate=48_000), container, codec, rate=48_000)
    data = data[: len(data) // 4 * 4]
    info = probe(io.BytesIO(wav_header(48_000, 2, len(data) // 4) + data))
    assert (info.codec, info.duration) == (name, pytest.approx(4.0, abs=0.05))


@pytest.mark.parametrize("size", [0, 100, 0x7FFFFFF0, 0xFFFFFFFF])
def test_a_wave_header_is_not_believed_beyond_its_bytes(size: int) -> None:
    data = bytearray(wav(noise(3.0)))
    data[40:44] = struct.pack("<I", size)
    info = probe(io.BytesIO(data))
    there = load_audio(io.BytesIO(data)).duration
    assert info.duration == pytest.approx(there, abs=0.001)
    assert there == pytest.approx(50 / RATE if size == 100 else 3.0, abs=0.001)


@pytest.mark.parametrize(
    ("container", "codec"), [("flac", "flac"), ("mp3", "libmp3lame"), ("matroska", "flac"), ("adts", "aac")]
)
def test_a_file_cut_in_half_has_the_length_that_is_left(container: str, codec: str) -> None:
    data = encoded(noise(8.0), container, codec)
    half = data[: len(data) // 2]
    info = probe(io.BytesIO(half))
    assert info.duration == pytest.approx(4.0, abs=0.3)
    assert info.duration == pytest.approx(load_audio(io.BytesIO(half)).duration, abs=0.001)
    assert info.warnings


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        ("Ein Gedicht.\nMit Zeilen, Umläuten und Ende.\n".encode() * 300, "it is a text file"),
        (wav(tone(0.0)), "it holds no sound"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20, "it has no audio track"),
        (bytes(range(256)) * 20, "no known audio format was recognised"),
        (b"RIFF\x24\x00\x00\x00WAVEfmt ", "its header is damaged, or the file is cut off"),
        (encoded(tone(4.0), "ipod", "aac")[:4000], "its header is damaged, or the file is cut off"),
    ],
)
def test_what_is_no_audio_is_refused_with_a_plain_reason(data: bytes, reason: str) -> None:
    with pytest.raises(NotAudio, match=reason) as caught:
        probe(io.BytesIO(data), name="holiday.mp3")
    assert str(caught.value).startswith("holiday.mp3 is not audio")


@pytest.mark.parametrize(("place", "value", "reason"), [(24, 900_000, "sample rate"), (22, 5_000, "channels")])
def test_a_header_with_impossible_numbers_is_refused(place: int, value: int, reason: str) -> None:
    data = bytearray(wav(tone(1.0)))
    data[place : place + (4 if place == 24 else 2)] = value.to_bytes(4 if place == 24 else 2, "little")
    with pytest.raises(NotAudio, match=f"impossible .*{reason}|damaged|no sound"):
        probe(io.BytesIO(data))


def test_the_file_is_named_without_its_folder(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    with pytest.raises(NotAudio, match=r"^empty\.wav is not audio"):
        probe(tmp_path / "empty.wav")
