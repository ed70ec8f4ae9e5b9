"""Live sockets of a real server with two web processes: what is killed, stopped or cut loses nothing that was safe."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, WebSocketException

import audio_storage_system
from audio_storage_system import AudioStorageSystem, load_audio
from sounds import integers, noise
from talking import Talk, stored, talking
from test_server import children_of, running

RATE = 16_000
BLOCK = RATE // 10
NOTE = Path(audio_storage_system.__file__).parent / "demo" / "voice_note.flac"
# Two sentences.
SPOKEN = integers(np.asarray(load_audio(NOTE))[: round(8.2 * RATE)]).tobytes() + bytes(RATE)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes as Linux shows them")


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[AudioStorageSystem]:
    with AudioStorageSystem(tmp_path / "archive") as storage:
        yield storage


def serve(archive: AudioStorageSystem, workers: int = 2) -> Any:
    return running("--archive", str(archive.home), "--workers", str(workers), "--no-worker")


def frames(seconds: float) -> int:
    return round(seconds * RATE)


def in_time(talk: Talk, sound: bytes, seconds: float) -> int:
    """Send sound as it is spoken, for so long; how many bytes."""
    begun, sent = time.monotonic(), 0
    while time.monotonic() - begun < seconds and sent < len(sound):
        talk.connection.send(sound[sent : sent + BLOCK * 2])
        sent += BLOCK * 2
        time.sleep(max(0.0, begun + sent / 2 / RATE - time.monotonic()))
    return sent


def test_a_session_goes_on_in_whichever_process(archive: AudioStorageSystem) -> None:
    """The system shares connections out between both processes, until the server stops; then another one goes on."""
    sound, draw, query = integers(noise(12)).tobytes(), random.Random(2), dict[str, Any](sample_rate=RATE)
    with serve(archive) as (process, url):
        for turn in range(10):
            with talking(url, **query) as talk:
                started = talk.until("started")
                query = {"session": started["session_id"]}
                rest = sound[frames(started["position"]) * 2 :]
                talk.sound(rest[: draw.randint(BLOCK, 3 * RATE)], (draw.randint(100, 9_000),))
                if turn < 9:
                    talk.reset() if turn % 2 else talk.connection.close()
                    continue
                talk.until_safe(started["position"] + 0.01)
                process.send_signal(signal.SIGTERM)
                with pytest.raises(ConnectionClosed) as closed:
                    talk.until("nothing")
                assert closed.value.rcvd is not None and closed.value.rcvd.code == 1012
        assert process.wait(60) == 0
    with serve(archive, workers=1) as (_, url), talking(url, **query) as talk:
        position = talk.until("started")["position"]
        assert position > started["position"]
        talk.sound(sound[frames(position) * 2 :])
        ended = talk.finish()
    assert ended["missing_seconds"] == 0.0
    assert stored(archive, ended["audio_id"]).tobytes() == sound


def test_killed_at_any_moment_it_loses_less_than_a_second_and_no_finished_piece(archive: AudioStorageSystem) -> None:
    """Web processes that are killed are started again; in the end their parent dies as well, and another server goes
    on."""
    draw, finals, safe, query = random.Random(3), [], 0, dict[str, Any](sample_rate=RATE)
    with serve(archive) as (process, url):
        for turn in range(3):
            with talking(url, **query) as talk:
                started = talk.until("started")
                query, begun = {"session": started["session_id"]}, started["position"]
                assert frames(begun) >= safe
                rest = SPOKEN[frames(begun) * 2 :]
                sent = in_time(talk, rest, draw.uniform(1.0, 3.5))
                talk.until_taken()
                talk.sound(rest[sent : sent + RATE])
                for victim in [*children_of(process.pid), *([process.pid] if turn == 2 else [])]:
                    os.kill(victim, signal.SIGKILL)
                with pytest.raises((WebSocketException, OSError)):
                    talk.until("nothing")
            safe = max([frames(begun) + sent // 2, *(frames(told["position"]) for told in talk.of("position"))])
            finals += talk.of("final")
    with serve(archive, workers=1) as (_, url), talking(url, **query) as talk:
        position = talk.until("started")["position"]
        assert frames(position) >= safe
        talk.sound(SPOKEN[frames(position) * 2 :])
        ended = talk.finish()
        finals += talk.of("final")
    assert (ended["audio_id"], ended["missing_seconds"]) == (started["audio_id"], 0.0)
    assert stored(archive, ended["audio_id"]).tobytes() == SPOKEN
    [version] = archive.transcripts(ended["audio_id"])
    kept = archive.segments(version.id)
    for final in finals:
        assert [one.text for one in kept if final["start"] <= one.start < final["end"]] == [final["text"]]


def test_killed_and_never_gone_on_with_it_is_a_recording_all_the_same(
    archive: AudioStorageSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDIO_STORAGE_LIVE_RESUME_SECONDS", "1")
    sound = integers(noise(4)).tobytes()
    with serve(archive) as (process, url), talking(url, sample_rate=RATE) as talk:
        audio_id = talk.until("started")["audio_id"]
        talk.sound(sound[: 3 * RATE * 2])
        talk.until_taken()
        talk.sound(sound[3 * RATE * 2 :])
        for child in children_of(process.pid):
            os.kill(child, signal.SIGKILL)
        end = time.monotonic() + 40
        while archive.get_recording(audio_id).status != "stored":
            assert time.monotonic() < end
            time.sleep(0.2)
        kept = stored(archive, audio_id).tobytes()
        assert sound.startswith(kept) and len(kept) / 2 / RATE >= 3.0
