"""A busy day of the server: many search, some upload, some speak, all at once, and nothing goes wrong."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import random
import threading
import time
import wave
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from websockets.sync.client import connect

from audio_storage_system import AudioStorageSystem
from test_server import running

SECONDS, SEARCHERS, UPLOADERS, SPEAKERS = 120.0, 50, 5, 3
QUESTIONS = ["my heating is broken", "the budget for next year", "new building", "engineers", "please call before"]
RATE, PIECE_SECONDS = 16_000, 0.1


class Day:
    """What everybody does until the time is up, and what came of it."""

    def __init__(self, url: str, seconds: float) -> None:
        self.url, self.until = url, time.monotonic() + seconds
        self.done: Counter[str] = Counter()
        self.failures: list[str] = []
        self.uploaded: dict[int, str] = {}

    def goes_on(self) -> bool:
        return time.monotonic() < self.until

    def search(self, number: int) -> None:
        draw = random.Random(number)
        with httpx.Client(base_url=self.url, timeout=60) as client:
            while self.goes_on():
                answer = client.get("/api/v1/search", params={"text": draw.choice(QUESTIONS), "limit": 5})
                assert answer.status_code == 200, answer.text
                assert answer.json()["hits"]
                self.done["searches"] += 1

    def upload(self, number: int) -> None:
        with httpx.Client(base_url=self.url, timeout=60) as client:
            for turn in itertools.takewhile(lambda _: self.goes_on(), itertools.count()):
                content = noise(number * 10_000 + turn)
                answer = client.post("/api/v1/recordings", files={"file": (f"{number}-{turn}.wav", content)})
                assert answer.status_code == 201, answer.text
                self.uploaded[answer.json()["audio_id"]] = hashlib.sha256(content).hexdigest()
                self.done["uploads"] += 1
                time.sleep(0.5)

    def speak(self, sound: bytes) -> None:
        address = self.url.replace("http", "ws") + f"/api/v1/live?encoding=pcm16&sample_rate={RATE}"
        while self.goes_on():
            with connect(address, max_size=None) as socket, ThreadPoolExecutor(1) as reader:
                reading = reader.submit(lambda socket: [json.loads(message) for message in socket], socket)
                size, began = int(RATE * PIECE_SECONDS) * 2, time.monotonic()
                for turn, start in enumerate(range(0, len(sound), size), 1):
                    socket.send(sound[start : start + size])
                    time.sleep(max(0.0, began + turn * PIECE_SECONDS - time.monotonic()))
                socket.send(json.dumps({"type": "finish"}))
                events = reading.result()
            ended = next(event for event in events if event["type"] == "ended")
            assert ended["missing_seconds"] == 0
            assert abs(ended["seconds"] - len(sound) / 2 / RATE) < 0.001
            self.done["finals"] += sum(event["type"] == "final" for event in events)
            self.done["sessions"] += 1

    def start(self, task: Callable[..., None], *given: object) -> threading.Thread:
        thread = threading.Thread(target=self._watched, args=(task, *given))
        thread.start()
        return thread

    def _watched(self, task: Callable[..., None], *given: object) -> None:
        try:
            task(*given)
        except Exception as error:
            self.failures.append(f"{task.__name__}: {type(error).__name__}: {error}")


def noise(seed: int) -> bytes:
    """Two seconds that no other seed gives."""
    with io.BytesIO() as file:
        with wave.open(file, "wb") as sound:
            sound.setparams((1, 2, RATE, 0, "NONE", ""))
            sound.writeframes(np.random.default_rng(seed).integers(-300, 300, 2 * RATE, np.int16).tobytes())
        return file.getvalue()


def spoken(path: Path) -> bytes:
    """A recording as 16-bit samples at `RATE`."""
    from audio_storage_system import load_audio

    return (load_audio(path, RATE) * 32767).astype("<i2").tobytes()


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_everybody_at_once(tmp_path: Path, demo: Path) -> None:
    place = tmp_path / "archive"
    with AudioStorageSystem(place, transcriber="pocketsphinx") as storage:
        for path in sorted(demo.glob("*.flac")):
            storage.add(path)
    with running("--archive", str(place), "--workers", "2") as (_, url):
        httpx.get(f"{url}/health/ready", timeout=60).raise_for_status()
        day = Day(url, SECONDS)
        threads = [day.start(day.search, number) for number in range(SEARCHERS)]
        threads += [day.start(day.upload, number) for number in range(UPLOADERS)]
        threads += [day.start(day.speak, spoken(demo / "meeting.flac")) for _ in range(SPEAKERS)]
        for thread in threads:
            thread.join(SECONDS + 300)
        assert day.failures == []
        for audio_id, sha256 in day.uploaded.items():
            content = httpx.get(f"{url}/api/v1/recordings/{audio_id}/audio", timeout=60).content
            assert hashlib.sha256(content).hexdigest() == sha256
    assert day.done["sessions"] >= SPEAKERS
    assert day.done["finals"] > 0
