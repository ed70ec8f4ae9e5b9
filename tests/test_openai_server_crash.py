"""What the OpenAI-compatible server was given outlives its process."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

import working
from audio_storage_system import AudioStorageSystem
from audio_storage_system.records import JobState
from audio_storage_system.server.openai import work
from audio_storage_system.testing.scripted import SPEC, ScriptedTranscriber
from serving import serving
from working import talk

TRANSLATES = replace(ScriptedTranscriber.capabilities, translates=True)
pytestmark = pytest.mark.usefixtures("scripted_engine")


def serve_and_hang(home: str, told: Any) -> None:
    """In a process of its own: a server whose engine never comes to an end."""
    working.register()
    ScriptedTranscriber.before = lambda window: threading.Event().wait()  # type: ignore[assignment, method-assign]
    ScriptedTranscriber.capabilities = TRANSLATES
    work.LEFT_ALONE_SECONDS = 2.0
    with serving(lambda: AudioStorageSystem(home, transcriber=SPEC, transcribe_at_once=1)) as url:
        told.send(url)
        threading.Event().wait()


def post(url: str, path: Path) -> None:
    with pytest.raises(httpx.TransportError):
        httpx.post(
            url,
            data={"model": "whisper-1", "prompt": path.stem},
            files={"file": (path.name, path.read_bytes())},
            timeout=60,
        )


@pytest.mark.parametrize("asked", ["transcriptions", "translations"])
def test_a_worker_does_what_waited_for_its_turn_when_the_server_was_killed(
    tmp_path: Path, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ScriptedTranscriber, "capabilities", TRANSLATES)
    home, paths = tmp_path / "archive", working.talks(tmp_path / "talks", [1, 1])
    ours, theirs = working.processes().Pipe()
    server = working.processes().Process(target=serve_and_hang, args=(str(home), theirs))
    server.start()
    assert ours.poll(60)
    url = f"{ours.recv()}/v1/audio/{asked}"
    with AudioStorageSystem(home, transcriber=SPEC) as storage, ThreadPoolExecutor(2) as pool:
        sent = [pool.submit(post, url, path) for path in paths]
        end = time.monotonic() + 30
        while len(storage.jobs.find()) < 2 or not any(storage.transcripts(one.id) for one in storage.list_recordings()):
            assert time.monotonic() < end
            time.sleep(0.02)
        working.kill(server)
        for one in sent:
            one.result(30)
        assert sum(len(storage.transcripts(one.id)) for one in storage.list_recordings()) == 1, "one waited"
        storage.worker(concurrency=1).run_until_idle(threading.Event())
        assert {job.state for job in storage.jobs.find()} == {JobState.DONE}
        for recording in storage.list_recordings():
            [version] = storage.transcripts(recording.id)
            assert "is spoken" in version.transcription
            assert (version.parameters.get("task") == "translate", version.active) == (
                (True, False) if asked == "translations" else (False, True)
            )
            assert version.parameters["prompt"] == Path(recording.original_name).stem, "as it was asked for"


def test_no_worker_does_again_what_the_server_has_done(tmp_path: Path) -> None:
    home, path = tmp_path / "archive", talk(tmp_path / "talk.wav", seed=1, windows=1)
    with serving(lambda: AudioStorageSystem(home, transcriber=SPEC)) as url:
        answer = httpx.post(
            f"{url}/v1/audio/transcriptions",
            data={"model": "whisper-1"},
            files={"file": ("talk.wav", path.read_bytes())},
            timeout=60,
        )
        assert answer.status_code == 200
    with AudioStorageSystem(home, transcriber=SPEC) as storage:
        [job] = storage.jobs.find()
        assert job.state is JobState.DONE
        assert sum(storage.jobs.runs.waiting().values()) == 0
