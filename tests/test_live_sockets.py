"""Sound over a WebSocket: whatever happens to the line, what was said is on the disk, once."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed

from audio_storage_system import AudioStorageSystem, load_audio
from audio_storage_system.testing.scripted import ScriptedTranscriber
from serving import serving
from sounds import integers, noise, tone
from talking import HEARD, OFFERED, WAIT, failing, pieces_of, recorded, speechlike, stored, talking

RATE = 16_000
AS_IT_COMES: dict[str, Any] = {"sample_rate": RATE, **HEARD}

pytestmark = pytest.mark.usefixtures("scripted_engine")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AudioStorageSystem]:
    with AudioStorageSystem(tmp_path_factory.mktemp("live") / "archive") as storage:
        yield storage


@pytest.fixture(scope="module")
def url(archive: AudioStorageSystem) -> Iterator[str]:
    with serving(lambda: AudioStorageSystem(archive.home, **OFFERED, live_resume_seconds=30)) as address:
        yield address


@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (16_000, 1), (44_100, 2), (48_000, 1)])
@pytest.mark.parametrize("sizes", [(3_200,), (1, 999, 31, 2), (500_001,)])
def test_samples_arrive_as_they_are(
    archive: AudioStorageSystem, url: str, rate: int, channels: int, sizes: tuple[int, ...]
) -> None:
    sound = speechlike(1.5 if 1 in sizes else 3, rate, channels)
    with talking(url, encoding="pcm16", sample_rate=rate, channels=channels, **HEARD) as talk:
        started = talk.until("started")
        assert (started["position"], started["sample_rate"], started["channels"]) == (0.0, rate, channels)
        talk.sound(sound.tobytes(), sizes)
        ended = talk.finish()
    assert ended["audio_id"] == started["audio_id"]
    assert (ended["seconds"], ended["missing_seconds"], ended["gaps"]) == (len(sound) / rate / channels, 0.0, [])
    assert np.array_equal(stored(archive, ended["audio_id"]).reshape(-1), sound)


@pytest.mark.parametrize("encoding", ["webm", "ogg", "mp4"])
@pytest.mark.parametrize("channels", [1, 2])
def test_what_a_browser_records_arrives_decoded(
    archive: AudioStorageSystem, url: str, encoding: str, channels: int
) -> None:
    data = recorded(encoding, np.repeat(integers(tone(3)), channels), RATE, channels)
    with talking(url, encoding=encoding, **HEARD) as talk:
        for piece in pieces_of(data, seed=3):
            talk.connection.send(piece)
        started = talk.until("started")
        ended = talk.finish()
    assert started["channels"] == channels
    assert ended["seconds"] == pytest.approx(3, abs=0.1)
    sound = stored(archive, ended["audio_id"]).reshape(-1, channels)[:, 0]
    peak = np.argmax(np.abs(np.fft.rfft(sound))) / (len(sound) / started["sample_rate"])
    assert peak == pytest.approx(440, abs=2)


def test_the_first_message_can_say_what_comes(archive: AudioStorageSystem, url: str) -> None:
    with talking(url) as talk:
        talk.say(type="start", encoding="pcm16", sample_rate=8_000, metadata={"user": "john", "seats": 3})
        started = talk.until("started")
        talk.sound(speechlike(1, 8_000).tobytes())
        talk.finish()
    recording = archive.get_recording(started["audio_id"])
    assert (recording.sample_rate, recording.metadata["user"], recording.metadata["seats"]) == (8_000, "john", 3)


def test_what_is_said_is_text_while_it_is_spoken_and_found_at_once(url: str, note: Path) -> None:
    """With the bundled recogniser, at the pace of speech."""
    sound = integers(np.asarray(load_audio(note))[: 5 * RATE]).tobytes() + bytes(2 * RATE)
    with talking(url, sample_rate=RATE) as talk:
        audio_id = talk.until("started")["audio_id"]
        for start in range(0, len(sound), RATE // 5):
            talk.connection.send(sound[start : start + RATE // 5])
            time.sleep(0.1)
        final = talk.until("final")
        assert talk.of("partial"), "text comes before the end"
        assert final["searchable"] and "milk" in final["text"] and final["segments"]
        asked = {"text": "milk", "mode": "keyword"}
        hits = httpx.get(f"{url}/api/v1/search", params=asked, timeout=WAIT).json()["hits"]
        assert final["segments"][0]["start"] in [hit["start"] for hit in hits if hit["audio_id"] == audio_id]
        talk.finish()
    partials = [message["text"] for message in talk.of("partial")]
    assert partials[-1].split()[0] in final["text"]


def test_why_there_is_no_more_text_is_told_without_the_servers_own_words(
    url: str, note: Path, scripted_engine: type[ScriptedTranscriber]
) -> None:
    def fail(window: object) -> None:
        raise OSError(5, "Input/output error", "/srv/models/secret.bin")

    scripted_engine.before = fail  # type: ignore[assignment]
    with talking(url, **AS_IT_COMES) as talk:
        started = talk.until("started")
        for _ in range(4):  # one that fails once is only a bad moment
            talk.sound(integers(np.asarray(load_audio(note))[: 3 * RATE]).tobytes() + bytes(4 * RATE))
        unheard, ended = talk.until("unheard"), talk.finish()
    assert (unheard["code"], unheard["retryable"]) == ("transcription_failed", False)
    assert unheard["message"].startswith("Recording ") and "/srv" not in unheard["message"]
    assert ended["audio_id"] == started["audio_id"] and ended["missing_seconds"] == 0


def test_positions_tell_what_is_safe(url: str) -> None:
    with talking(url, **AS_IT_COMES) as talk:
        talk.sound(speechlike(4).tobytes())
        talk.until_safe(3.0)
        talk.say(type="ping")
        talk.until("pong")
    told = [message["position"] for message in talk.of("position")]
    assert told == sorted(told) and told[-1] <= 4.0


def test_a_session_goes_on_where_it_was(archive: AudioStorageSystem, url: str) -> None:
    """Cut at random moments, with what is not acknowledged sent again: the recording is exact."""
    sound, draw = speechlike(12).tobytes(), random.Random(5)
    position, audio_id, query = 0.0, 0, AS_IT_COMES
    for attempt in range(6):
        with talking(url, **query) as talk:
            started = talk.until("started")
            position = started["position"]
            query = {"session": started["session_id"]}
            audio_id = audio_id or started["audio_id"]
            assert started["audio_id"] == audio_id
            rest = sound[round(position * RATE) * 2 :]
            if attempt == 5:
                talk.sound(rest, (draw.randint(1, 9_000),))
                ended = talk.finish()
                break
            talk.sound(rest[: draw.randint(1, len(rest) // 2)], (draw.randint(100, 9_000),))
            time.sleep(draw.random() * 0.2)
            talk.reset() if attempt % 2 else talk.connection.close()
    assert position > 0
    assert (ended["audio_id"], ended["missing_seconds"]) == (audio_id, 0.0)
    assert stored(archive, audio_id).tobytes() == sound


def test_a_stream_that_cannot_be_cut_is_sent_again_from_its_beginning(archive: AudioStorageSystem, url: str) -> None:
    data = recorded("webm", integers(noise(6, seed=4)), RATE)
    with talking(url, encoding="webm", **HEARD) as talk:
        talk.connection.send(data[: len(data) // 2])
        started = talk.until("started")
        talk.until_safe(1.0)
        talk.reset()
    with talking(url, encoding="webm", session=started["session_id"], begins=0) as talk:
        assert talk.until("started")["position"] > 1.0
        talk.sound(data)
        interrupted = talk.finish()
    with talking(url, encoding="webm", **HEARD) as talk:
        talk.sound(data)
        whole = talk.finish()
    sounds = [stored(archive, ended["audio_id"]) for ended in (interrupted, whole)]
    assert np.array_equal(*sounds)


def test_what_the_client_lost_is_in_the_report(url: str) -> None:
    with talking(url, **AS_IT_COMES) as talk:
        talk.sound(speechlike(1).tobytes())
        talk.say(type="lost", seconds=2.5)
        talk.sound(speechlike(1).tobytes())
        ended = talk.finish()
    assert (ended["seconds"], ended["missing_seconds"]) == (2.0, 2.5)
    assert [(gap["start"], gap["end"]) for gap in ended["gaps"]] == [(1.0, 3.5)]


def test_a_second_socket_takes_a_session_over(archive: AudioStorageSystem, url: str) -> None:
    sound = speechlike(2).tobytes()
    with talking(url, **AS_IT_COMES) as first, talking(url, session=first.until("started")["session_id"]) as second:
        position = second.until("started")["position"]
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                first.connection.recv(10)
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 4409
        second.sound(sound[round(position * RATE) * 2 :])
        assert second.finish()["seconds"] == 2.0


def test_what_nobody_comes_back_to_is_completed(archive: AudioStorageSystem) -> None:
    sound = speechlike(2).tobytes()
    with serving(lambda: AudioStorageSystem(archive.home, **OFFERED, live_resume_seconds=1)) as url:
        with talking(url, **AS_IT_COMES) as talk:
            started = talk.until("started")
            talk.sound(sound)
            talk.until_safe(1.0)
        until = time.monotonic() + 30
        while archive.get_recording(started["audio_id"]).status != "stored":
            assert time.monotonic() < until
            time.sleep(0.2)
        with talking(url, session=started["session_id"]) as talk:
            assert failing(talk) == ("not_found", 4404)
    assert stored(archive, started["audio_id"]).tobytes() == sound


def test_twenty_at_once_keep_their_sound(archive: AudioStorageSystem, url: str) -> None:
    sounds = [integers(noise(3, seed=seed)).tobytes() for seed in range(20)]
    talks = [talking(url, **AS_IT_COMES) for _ in sounds]
    opened = [talk.__enter__() for talk in talks]
    try:
        for start in range(0, len(sounds[0]), 6_400):
            for talk, sound in zip(opened, sounds, strict=True):
                talk.connection.send(sound[start : start + 6_400])
        ends = [talk.finish() for talk in opened]
    finally:
        for context in talks:
            context.__exit__(None, None, None)
    assert [stored(archive, ended["audio_id"]).tobytes() for ended in ends] == sounds
