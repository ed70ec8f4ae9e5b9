"""What the server tells of its own trouble: that there is some, and nothing of its folders and addresses."""

from __future__ import annotations

import errno
import logging
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import httpx
import pytest
from fastapi import FastAPI
from websockets.exceptions import ConnectionClosedError

from audio_storage_system import AudioStorageSystem
from audio_storage_system.errors import (
    AudioStorageSystemError,
    DatabaseUnavailable,
    StorageFailed,
    StorageFull,
    TranscriptionFailed,
)
from audio_storage_system.jobs.failures import give_up
from audio_storage_system.records import Outcome
from audio_storage_system.server import problems
from mcp_sessions import over_http
from serving import serving
from sounds import noise, wav
from talking import talking

INSIDE = "db.internal:5432/srv/archive"
FILE = {"file": ("a.wav", wav(noise(0.5)))}


def below(kind: type[AudioStorageSystemError]) -> Iterator[type[AudioStorageSystemError]]:
    yield kind
    for further in kind.__subclasses__():
        yield from below(further)


def names_a_place(kind: type[AudioStorageSystemError]) -> bool:
    return issubclass(kind, StorageFailed) or "{place}" in (kind.__doc__ or "")


KINDS = {kind.__name__: kind for kind in below(AudioStorageSystemError) if names_a_place(kind)}


def raised(kind: type[AudioStorageSystemError]) -> AudioStorageSystemError:
    """Such an error, whose every detail is what nobody is to know."""
    details: dict[str, Any] = defaultdict(lambda: INSIDE)
    return kind((kind.__doc__ or "").format_map(details))


def failing(app: FastAPI) -> None:
    """Routes that fail, in either part of the application."""

    def fail(name: str) -> NoReturn:
        raise raised(KINDS[name])

    def fail_transcribing(name: str) -> NoReturn:
        try:
            fail(name)
        except AudioStorageSystemError as error:
            failure = TranscriptionFailed(audio_id=7, reason=str(error))
            failure.details["outcome"] = Outcome.FAILED
            raise failure from error

    app.get("/api/v1/failing/{name}", response_model=None)(fail)
    app.get("/v1/failing/{name}", response_model=None)(fail_transcribing)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home = tmp_path_factory.mktemp("withheld") / "archive"
    with serving(lambda: AudioStorageSystem(home), failing) as address:
        yield address


@pytest.mark.parametrize("name", KINDS)
def test_errors_name_no_place(url: str, caplog: pytest.LogCaptureFixture, name: str) -> None:
    error = raised(KINDS[name])
    answer = httpx.get(f"{url}/api/v1/failing/{name}", timeout=30)
    problem = answer.json()
    assert INSIDE not in answer.text and problem["detail"]
    assert (problem["code"], problem["retryable"]) == (error.code, error.retryable)
    assert answer.status_code not in (403, 404)
    if error.http_status not in (403, 404):
        assert answer.status_code == error.http_status
    assert caplog.text.count(str(error)) == 1, "who runs the server finds it in the log"
    assert INSIDE in problems.of_error_here(error).detail, "who runs the program is told"


@pytest.mark.parametrize("name", ["StorageFull", "StorageRefused", "DatabaseUnavailable"])
def test_a_transcription_that_failed_by_them_neither(url: str, name: str) -> None:
    answer = httpx.get(f"{url}/v1/failing/{name}", timeout=30)
    assert INSIDE not in answer.text and "Recording 7 was stored" in answer.text
    assert answer.status_code == (507 if name == "StorageFull" else 503)


@pytest.mark.parametrize(("number", "status"), [(errno.ENOSPC, 507), (errno.EROFS, 503), (errno.EIO, 500)])
def test_a_disk_that_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int, status: int
) -> None:
    def link(source: Any, target: Any, **how: Any) -> NoReturn:
        raise OSError(number, os.strerror(number), str(target))

    caplog.set_level(logging.WARNING)
    with serving(lambda: AudioStorageSystem(tmp_path / "archive")) as url:
        monkeypatch.setattr(os, "link", link)
        answer = httpx.post(f"{url}/api/v1/recordings", files=FILE, timeout=30)
        monkeypatch.undo()
    assert answer.status_code == status, answer.text
    assert str(tmp_path) not in answer.text and answer.json()["code"].startswith(("storage", "archive"))
    assert str(tmp_path) in caplog.text


def unreachable(*given: Any, **further: Any) -> NoReturn:
    raise DatabaseUnavailable(place=INSIDE, reason=f"no route to {INSIDE}")


def test_over_mcp(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with over_http(url, None) as session:
        monkeypatch.setattr(AudioStorageSystem, "get_recording", unreachable)
        error = session.refused("get_recording", audio_id=1)
    assert INSIDE not in str(error) and error["code"] == "database_unavailable" and error["retryable"]


@pytest.mark.parametrize("path", ["/api/v1/live", "/v1/realtime"])
def test_over_live_sockets(url: str, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr(AudioStorageSystem, "live", unreachable)
    with talking(url, path=path, sample_rate=24_000) as talk:
        if path == "/v1/realtime":
            talk.say(type="input_audio_buffer.append", audio="AAAA")
        heard = []
        with pytest.raises(ConnectionClosedError):
            while True:
                heard.append(talk.connection.recv(30))
    assert "database_unavailable" in str(heard[-1]) and INSIDE not in str(heard)
    assert talk.connection.close_code == 4503 and INSIDE not in (talk.connection.close_reason or "")


def test_by_the_jobs(tmp_path: Path, call: Path, scripted_engine: object) -> None:
    """A job that failed keeps the whole reason, for who runs the machine."""
    with AudioStorageSystem(tmp_path / "archive", transcriber="scripted") as storage:
        job = storage.submit(call)
        with storage._archive.database.write() as connection:
            give_up(connection, job, "storage_full", str(StorageFull(place=INSIDE)))
        assert INSIDE in str(storage.jobs.get(job.id).reason)
        with serving(lambda: AudioStorageSystem(storage.home)) as url:
            job_told = httpx.get(f"{url}/api/v1/jobs/{job.id}", timeout=30)
            list_told = httpx.get(f"{url}/api/v1/jobs", timeout=30)
    assert (job_told.json()["code"], job_told.json()["state"]) == ("storage_full", "failed")
    assert "no room" in job_told.json()["reason"] and INSIDE not in job_told.text + list_told.text
