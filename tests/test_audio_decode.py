"""Decoding: the right samples at the right second, from any format, at flat memory."""

from __future__ import annotations

import io
import json
import tracemalloc
import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audio_storage_system.audio import Waveform, decode_span, load_audio, probe, resample, speech_windows, stream
from audio_storage_system.errors import NotAudio
from sounds import RATE, Samples, encoded, integers, noise, silence, tone, wav

FORMATS = [
    ("wav", "pcm_s16le"),
    ("w64", "pcm_s24le"),
    ("aiff", "pcm_s16be"),
    ("caf", "pcm_f32le"),
    ("au", "pcm_mulaw"),
    ("flac", "flac"),
    ("mp3", "libmp3lame"),
    ("adts", "aac"),
    ("ipod", "aac"),
    ("ipod", "alac"),
    ("matroska", "flac"),
    ("mpegts", "aac"),
]


def file(data: bytes) -> io.BytesIO:
    return io.BytesIO(data)


def onset(samples: Samples) -> float:
    """The second at which silence ends."""
    return float(np.flatnonzero(np.abs(samples) > 0.05)[0]) / RATE


def level(samples: Samples, hertz: float, rate: int = RATE) -> float:
    """The amplitude of one frequency."""
    times = np.arange(len(samples)) / rate
    return float(2 * np.abs(np.mean(samples * np.exp(-2j * np.pi * hertz * times))))


@pytest.mark.parametrize(("container", "codec"), FORMATS)
def test_every_format_gives_its_sound_back(container: str, codec: str) -> None:
    data = encoded(tone(3.0), container, codec)
    audio = load_audio(file(data))
    assert isinstance(audio, Waveform)
    assert audio.dtype == np.float32
    assert audio.sample_rate == RATE
    assert audio.duration == pytest.approx(3.0, abs=0.15)  # AAC and MP3 pad
    assert level(audio[RATE : 2 * RATE], 440) == pytest.approx(0.3, abs=0.02)


def test_all_the_real_recordings_decode_to_their_length(test_data: Path) -> None:
    for line in (test_data / "speech" / "manifest.jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        path = test_data / "speech" / entry["path"]
        with stream(path) as blocks:
            duration = sum(map(len, blocks)) / RATE
            assert blocks.warnings == [], entry["path"]
        assert duration == pytest.approx(entry["duration_s"], abs=0.03), entry["path"]


def test_blocks_are_small_mono_float_and_add_up_to_the_whole() -> None:
    data = wav(noise(5.3))
    blocks = list(stream(file(data)))
    assert all(block.dtype == np.float32 and block.ndim == 1 and len(block) <= RATE for block in blocks)
    assert np.array_equal(np.concatenate(blocks), integers(noise(5.3)) / np.float32(32768))


def test_a_binary_stream_stays_open_and_is_read_from_its_beginning() -> None:
    source = file(wav(tone(1.0)))
    source.seek(500)
    assert load_audio(source).duration == 1.0
    assert not source.closed


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_resampling_keeps_length_and_tone_and_makes_no_aliases(rate: int) -> None:
    assert load_audio(file(wav(tone(2.0, rate=rate), rate))).duration == pytest.approx(2.0, abs=1e-3)
    assert level(load_audio(file(wav(tone(2.0, rate=rate), rate))), 440) == pytest.approx(0.3, abs=0.01)
    if rate > 24_000:
        inaudible = load_audio(file(wav(tone(2.0, 11_000, rate), rate)))
        assert float(np.sqrt(np.mean(inaudible[1000:-1000] ** 2))) < 1e-4


def test_resample_changes_only_the_rate() -> None:
    audio = Waveform(tone(1.0, rate=44_100), 44_100)
    assert resample(audio, RATE).duration == pytest.approx(1.0, abs=1e-3)
    assert resample(audio, RATE).sample_rate == RATE
    assert resample(audio, 44_100) is audio


@pytest.mark.parametrize("channels", [1, 2, 3, 6, 8])
def test_no_channel_is_lost_or_favoured(channels: int) -> None:
    frequencies = [300.0 + 150 * number for number in range(channels)]
    mixed = load_audio(file(wav(np.stack([tone(2.0, hertz) for hertz in frequencies], axis=1))))
    levels = [level(mixed, hertz) for hertz in frequencies]
    assert levels == pytest.approx([0.3 / channels] * channels, rel=0.02)


@pytest.mark.parametrize("order", [[1, -1], [-1, 1], [0.5, -1], [0, 1, -1], [1, -1, 1, -1]])
def test_channels_of_opposite_polarity_do_not_cancel(order: list[float]) -> None:
    voice = noise(3.0) * np.repeat([0.1, 1, 0.3], RATE).astype(np.float32)
    mixed = load_audio(file(wav(voice[:, None] * np.array(order, np.float32))))
    assert float(np.abs(np.corrcoef(mixed, voice)[0, 1])) > 0.99
    assert float(np.std(mixed)) == pytest.approx(float(np.std(voice)) * np.mean(np.abs(order)), rel=0.02)


def test_two_speakers_on_two_channels_are_both_kept() -> None:
    left, right = np.concatenate([noise(2.0), silence(2.0)]), np.concatenate([silence(2.0), noise(2.0, seed=1)])
    mixed = load_audio(file(wav(np.stack([left, right], axis=1))))
    assert np.allclose(mixed, (left + right) / 2, atol=1e-4)


def test_sound_after_a_damaged_frame_keeps_its_second() -> None:
    data = bytearray(encoded(np.concatenate([noise(5.0, level=0.01), tone(2.0)]), "flac", "flac"))
    middle = len(data) // 4
    data[middle : middle + 64] = bytes(64)
    with stream(file(bytes(data))) as blocks:
        audio = np.concatenate(list(blocks))
        assert "missing at 1.08 s" in blocks.warnings[0]
    assert onset(audio) == pytest.approx(5.0, abs=0.005)
    assert len(audio) / RATE == pytest.approx(7.0, abs=0.01)


@pytest.mark.parametrize("drop", [range(20, 21), range(30, 50)])
def test_what_was_lost_becomes_silence_of_its_length(drop: range) -> None:
    data = encoded(np.concatenate([noise(5.0, level=0.01), tone(2.0)]), "matroska", "flac", drop=drop)
    with stream(file(data)) as blocks:
        audio = np.concatenate(list(blocks))
        assert any("missing" in warning for warning in blocks.warnings)
    assert onset(audio) == pytest.approx(5.0, abs=0.002)
    lost = len(drop) * 1152  # samples of one FLAC packet
    assert np.count_nonzero(audio[: 5 * RATE] == 0) == pytest.approx(lost, abs=200)


def test_one_wrong_timestamp_moves_nothing() -> None:
    data = encoded(np.concatenate([noise(5.0, level=0.01), tone(2.0)]), "matroska", "flac", misdated=10)
    audio = load_audio(file(data))
    assert onset(audio) == pytest.approx(5.0, abs=0.002)
    assert audio.duration == pytest.approx(7.0, abs=0.01)


@pytest.mark.parametrize(("container", "codec", "rate"), [("wav", "pcm_s16le", 44_100), ("flac", "flac", 48_000)])
@pytest.mark.parametrize("span", [(0.0, 1.0), (2.25, 4.5), (3.999, 4.001), (5.0, 99.0), (8.0, 9.0)])
def test_a_part_equals_that_part_of_the_whole(container: str, codec: str, rate: int, span: tuple[float, float]) -> None:
    data = encoded(noise(6.0, rate), container, codec, rate=rate)
    whole = load_audio(file(data))
    part = decode_span(file(data), *span)
    expected = whole[round(span[0] * RATE) : round(span[1] * RATE)]
    assert len(part) == len(expected)
    assert np.allclose(part, expected, atol=2e-5)


@pytest.mark.parametrize(("container", "codec"), [("ipod", "aac"), ("mp3", "libmp3lame"), ("adts", "aac")])
def test_a_part_of_a_lossy_file_is_cut_at_the_right_second(container: str, codec: str) -> None:
    data = encoded(np.concatenate([silence(5.0), tone(2.0)]), container, codec)
    whole = load_audio(file(data))
    part = decode_span(file(data), 3.5, 6.5)
    assert part.duration == pytest.approx(3.0)
    assert onset(part) + 3.5 == pytest.approx(onset(whole), abs=0.001)


def test_not_a_number_and_too_loud_samples_are_tamed() -> None:
    buffer = io.BytesIO()
    samples = tone(1.0)
    samples[100:110], samples[200:210], samples[300:310] = np.nan, np.inf, 1e30
    samples[400:410] = np.array([0x7FA00000], np.uint32).view(np.float32)  # a NaN that signals
    with wave.open(buffer, "wb") as plain:
        plain.setnchannels(1)
        plain.setsampwidth(4)
        plain.setframerate(RATE)
        plain.writeframes(samples.astype("<f4").tobytes())
    data = bytearray(buffer.getvalue())
    data[20:22] = (3).to_bytes(2, "little")  # WAVE_FORMAT_IEEE_FLOAT
    audio = load_audio(file(bytes(data)))
    assert np.isfinite(audio).all()
    assert float(np.abs(audio).max()) <= 1.0
    assert level(audio, 440) == pytest.approx(0.3, abs=0.02)


def test_a_playlist_cannot_make_it_read_another_file(tmp_path: Path) -> None:
    (tmp_path / "secret.wav").write_bytes(wav(tone(2.0)))
    text = f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:2.0,\n{tmp_path}/secret.wav\n#EXT-X-ENDLIST\n"
    (tmp_path / "list.m3u8").write_text(text)
    (tmp_path / "list.ffconcat").write_text("ffconcat version 1.0\nfile secret.wav\n")
    for name in ("list.m3u8", "list.ffconcat"):
        with pytest.raises(NotAudio):
            load_audio(tmp_path / name)
        with pytest.raises(NotAudio):
            probe(tmp_path / name)


def test_a_name_that_looks_like_a_protocol_is_only_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("concat:a|b.wav").write_bytes(wav(tone(1.0)))
    assert load_audio("concat:a|b.wav").duration == 1.0


def test_a_missing_file_is_an_operating_system_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_audio(tmp_path / "none.wav")


ORIGINALS = [encoded(tone(1.0), container, codec) for container, codec in FORMATS]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    number=st.integers(0, len(ORIGINALS) - 1),
    changes=st.lists(st.tuples(st.integers(0, 400) | st.integers(0, 40_000), st.integers(0, 255)), max_size=30),
    end=st.none() | st.integers(0, 40_000),
)
def test_damage_anywhere_is_audio_or_a_clear_error(
    number: int, changes: list[tuple[int, int]], end: int | None
) -> None:
    data = bytearray(ORIGINALS[number])
    for place, value in changes:
        data[place % len(data)] = value
    try:
        info = probe(file(bytes(data[:end])))
        audio = load_audio(file(bytes(data[:end])))
    except NotAudio as error:
        assert "is not audio that can be read: " in str(error)
    else:
        assert info.duration is not None
        assert info.duration > 0
        assert np.isfinite(audio).all()


def test_memory_stays_flat_over_a_long_recording(tmp_path: Path) -> None:
    minutes, path = 10, tmp_path / "long.wav"
    with wave.open(str(path), "wb") as long:
        long.setnchannels(2)
        long.setsampwidth(2)
        long.setframerate(RATE)
        for minute in range(minutes):
            long.writeframes(integers(np.repeat(noise(60.0, seed=minute), 2)).tobytes())
    list(speech_windows(stream(file(wav(noise(3.0))))))  # the model is loaded
    tracemalloc.start()
    windows = speech_windows(stream(path))
    list(windows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert windows.duration == minutes * 60
    assert peak < 12_000_000  # the whole would take 38 MB
