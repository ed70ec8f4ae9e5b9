"""Compressed sound that is decoded while it comes in."""

from __future__ import annotations

import io
import threading
import time

import av
import numpy as np
import pytest

from audio_storage_system.audio.streaming import ENCODINGS, Form, Pipe, decode_stream
from audio_storage_system.errors import InvalidInput, NotAudio
from sounds import integers, tone
from talking import pieces_of, recorded

Got = list[tuple[Form, bytes]]


def decoded(data: list[bytes], encoding: str, wanted: Form | None = None) -> Got:
    """What comes of these pieces, written by another thread."""
    pipe = Pipe()
    writer = threading.Thread(target=lambda: ([pipe.write(piece) for piece in data], pipe.close()))
    writer.start()
    try:
        return list(decode_stream(pipe, encoding, wanted))
    finally:
        pipe.abandon()
        writer.join()


def sound_of(got: Got) -> np.ndarray:
    return np.frombuffer(b"".join(pcm for _, pcm in got), "<i2")


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("channels", [1, 2])
def test_it_is_what_the_whole_file_holds(encoding: str, channels: int) -> None:
    sound = np.repeat(integers(tone(3.0)), channels)
    data = recorded(encoding, sound, 16_000, channels)
    got = decoded(pieces_of(data, seed=channels), encoding)
    with av.open(io.BytesIO(data)) as container:
        frames = [frame for frame in container.decode(audio=0) if frame.samples]
    [form] = {form for form, _ in got}
    assert form == Form(frames[0].sample_rate, channels)
    assert len(sound_of(got)) == sum(frame.samples for frame in frames) * channels
    spectrum = np.abs(np.fft.rfft(sound_of(got)[::channels]))
    assert np.argmax(spectrum) / (len(sound_of(got)) / channels / form.sample_rate) == pytest.approx(440, abs=2)


def test_cuts_make_no_difference() -> None:
    data = recorded("webm", integers(tone(2.0)), 16_000)
    whole = sound_of(decoded([data], "webm"))
    for seed in range(3):
        assert np.array_equal(sound_of(decoded(pieces_of(data, seed, most=500), "webm")), whole)


def test_sound_comes_before_the_stream_ends() -> None:
    data = recorded("webm", integers(tone(4.0)), 16_000)
    pipe = Pipe()
    pipe.write(data[: len(data) // 2])
    got = decode_stream(pipe, "webm")
    seconds = 0.0
    while seconds < 1.0:  # more would wait for what has not come
        form, pcm = next(got)
        seconds += len(pcm) / form.bytes_per_second
    pipe.close()
    assert sum(len(pcm) for _, pcm in got) > 0


def test_it_comes_in_the_form_that_is_wanted() -> None:
    data = recorded("webm", integers(np.repeat(tone(2.0), 2)), 16_000, channels=2)
    got = decoded([data], "webm", Form(16_000, 1))
    assert {form for form, _ in got} == {Form(16_000, 1)}
    assert len(sound_of(got)) / 16_000 == pytest.approx(2.0, abs=0.05)
    assert np.abs(sound_of(got)).max() == pytest.approx(0.3 * 32767, rel=0.1)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("junk", [b"", b"x" * 5_000, bytes(100_000), b"\x1aE\xdf\xa3" + b"\xff" * 3_000, b"OggS" * 999])
def test_junk_is_no_sound(encoding: str, junk: bytes) -> None:
    with pytest.raises(NotAudio):
        decoded([junk], encoding)


def test_another_format_than_was_said_is_no_sound() -> None:
    with pytest.raises(NotAudio):
        decoded([recorded("ogg", integers(tone(1.0)), 16_000)], "webm")
    with pytest.raises(InvalidInput, match="webm, ogg, mp4"):
        decoded([b""], "hls")


def test_damage_costs_itself() -> None:
    data = bytearray(recorded("webm", integers(tone(6.0)), 16_000))
    data[20_000:20_400] = bytes(400)
    assert len(sound_of(decoded([bytes(data)], "webm"))) / 48_000 > 4.5


def test_a_pipe_holds_no_more_than_it_may() -> None:
    pipe = Pipe(most=1_000)
    written: list[bool] = []
    writer = threading.Thread(target=lambda: written.append(pipe.write(bytes(5_000))))
    writer.start()
    time.sleep(0.05)
    assert not written, "it waits for a reader"
    assert sum(len(pipe.read(10_000)) for _ in range(2)) <= 2_000
    pipe.abandon()
    writer.join(5)
    assert written == [False], "and hears that there is none any more"
