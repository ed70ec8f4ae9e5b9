"""Live sessions while something fails, is late, or is done to them by others."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audio_storage_system import AudioStorageSystem
from audio_storage_system.archive import underway
from audio_storage_system.audio.spool import Spool
from audio_storage_system.errors import (
    Conflict,
    NotFound,
    StillRecording,
    StorageFailed,
)
from audio_storage_system.live import Ended, Event, Final, Lag, Unheard
from audio_storage_system.records import Outcome
from audio_storage_system.testing.scripted import ScriptedTranscriber
from catalogues import ON_SQLITE
from living import begin, blocks, finals, sentences, speak, speech, stored
from working import work

pytestmark = ON_SQLITE


# Recognition that is late, fails, or is not there


def test_slow_recognition_keeps_nobody_from_writing_and_says_so(storage: AudioStorageSystem) -> None:
    spoken = threading.Event()
    ScriptedTranscriber.before = lambda window: spoken.wait(60) and None  # type: ignore[assignment]
    told: list[Event] = []
    session = begin(storage, on_event=told.append)
    began = time.monotonic()
    speak(session, sentences(4))
    assert time.monotonic() - began < 30
    spoken.set()
    report = session.finish()
    assert (report.seconds, report.missing_seconds) == (12.0, 0.0)
    lags = [event.seconds for event in told if isinstance(event, Lag)]
    assert max(lags) >= 3 and lags[-1] == 0
    assert len(storage.segments(storage.transcripts(session.audio_id)[0].id)) == 4


def test_what_is_not_understood_in_time_is_left_to_the_whole_model(storage: AudioStorageSystem) -> None:
    second = threading.Event()
    heard: list[float] = []

    def before(window: Any) -> None:
        heard.append(window.start)
        if len(heard) == 2:
            second.set()
            assert session._recognition._stopping.wait(60)

    ScriptedTranscriber.before = before  # type: ignore[assignment]
    session = begin(storage)
    speak(session, sentences(3))
    assert second.wait(60)
    session.finish(wait=0.1)
    [version] = storage.transcripts(session.audio_id)
    assert version.outcome is Outcome.OK and len(storage.segments(version.id)) == 1
    ScriptedTranscriber.before = None
    work(storage)
    assert len(storage.segments(storage.transcripts(session.audio_id)[-1].id)) >= 1


def test_a_piece_that_fails_once_is_heard_again(storage: AudioStorageSystem) -> None:
    fail = iter([True, False, False])

    def before(window: Any) -> None:
        if next(fail, False):
            raise RuntimeError("a bad moment")

    ScriptedTranscriber.before = before  # type: ignore[assignment]
    with begin(storage) as session:
        speak(session, sentences(2))
    assert len(storage.segments(storage.transcripts(session.audio_id)[0].id)) == 2


def test_an_engine_that_always_fails_costs_the_text_and_not_the_sound(storage: AudioStorageSystem) -> None:
    def before(window: Any) -> None:
        raise RuntimeError("broken")

    ScriptedTranscriber.before = before  # type: ignore[assignment]
    told: list[Event] = []
    with begin(storage, on_event=told.append) as session:
        speak(session, sentences(4))
    [unheard] = [event.as_dict() for event in told if isinstance(event, Unheard)]
    assert (unheard["code"], unheard["retryable"]) == ("transcription_failed", False) and "broken" in unheard["message"]
    assert np.array_equal(stored(storage, session.audio_id), sentences(4))
    [version] = storage.transcripts(session.audio_id)
    assert version.outcome is Outcome.FAILED and not version.active


def test_an_engine_that_is_not_to_be_had_costs_the_text_and_not_the_sound(home: Path) -> None:
    told: list[Event] = []
    with AudioStorageSystem(home, transcriber="scripted") as storage:
        with storage.live(transcriber="tiny", language="de", on_event=told.append) as session:
            speak(session, sentences(1))
        assert [event.type for event in told] == ["unheard", "ended"]
        assert told[0].as_dict()["code"] == "weights_unavailable"
        assert storage.get_recording(session.audio_id).status == "stored"


def test_what_cannot_be_embedded_is_found_by_its_words(storage: AudioStorageSystem) -> None:
    def embed(text: str) -> np.ndarray[Any, Any]:
        if "is spoken" in text:
            raise RuntimeError("no embedding today")
        return np.arange(1.0, 9.0)

    storage.use_embedder(embed, "moody")
    with begin(storage) as session:
        speak(session, sentences(1))
        [final] = finals(session, 1)
        assert not final.searchable
        [hit] = storage.search_similar_audio("spoken", mode="keyword")
        assert hit.transcription == final.text


# What others do with a recording that is still being made


def test_a_recording_whose_machine_is_gone_can_be_removed_and_stays_so(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import timedelta

    from audio_storage_system.catalogue import recordings

    with AudioStorageSystem(home, transcriber="scripted") as storage:
        session = begin(storage, resume_seconds=60)
        speak(session, sentences(1))
        session.suspend()
        with pytest.raises(StillRecording):
            storage.delete(session.audio_id)
        monkeypatch.setattr(recordings, "SIGN_OF_LIFE", timedelta(seconds=-1))
        storage.delete(session.audio_id)
        with pytest.raises(NotFound):
            storage.live(resume=session.id)
    monkeypatch.setattr("audio_storage_system.audio.spool.Spool.idle_seconds", 99.0)
    with AudioStorageSystem(home) as storage:
        assert (storage.recovered, storage.list_recordings()) == ([], [])
        assert not list((storage.home / "spool").iterdir())


def test_a_session_whose_recording_is_removed_ends_its_text(
    storage: AudioStorageSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import timedelta

    from audio_storage_system.catalogue import recordings

    session = begin(storage)
    speak(session, sentences(1))
    finals(session, 1)
    monkeypatch.setattr(recordings, "SIGN_OF_LIFE", timedelta(seconds=-1))
    storage.delete(session.audio_id)
    speak(session, sentences(1))
    assert any(isinstance(event, Unheard) for event in session.events(60))
    with pytest.raises(NotFound):
        session.finish()
    assert storage.list_recordings() == []


def test_block_by_block_it_is_the_same(storage: AudioStorageSystem) -> None:
    texts = []
    for size in (160, 7001):
        with begin(storage) as session:
            for block in blocks(sentences(2), size):
                session.write(block)
        segments = storage.segments(storage.transcripts(session.audio_id)[0].id)
        texts.append([(segment.start, segment.end, segment.text) for segment in segments])
    assert texts[0] == texts[1]


# Ends that fail


def test_a_session_whose_bytes_are_stored_already_gives_way(storage: AudioStorageSystem) -> None:
    session = begin(storage, resume_seconds=60)
    speak(session, sentences(1))
    session.suspend()
    copy = storage.home / "spool" / ("a" * 32)
    shutil.copytree(storage.home / "spool" / session.id, copy)
    storage.live(resume=session.id).finish()
    underway.enter(storage._archive, Spool(copy), 1, {"room": "blue"})
    with storage.live(resume="a" * 32) as again:
        pass
    report = again.finish()
    assert (report.duplicate, report.audio_id) == (True, session.audio_id)
    assert [recording.id for recording in storage.list_recordings()] == [session.audio_id]
    assert len(list(storage._archive.blobs.keys("audio_files"))) == 1
    assert storage.verify(deep=True).clean


def test_a_session_that_could_not_be_completed_is_when_it_is_asked_again(
    storage: AudioStorageSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = begin(storage)
    speak(session, sentences(1))
    with monkeypatch.context() as patch:
        patch.setattr(type(storage._archive.blobs), "publish", broken)
        with pytest.raises(StorageFailed):
            session.finish()
    assert storage.get_recording(session.audio_id).status == "recording"
    report = session.finish()
    assert (report.audio_id, report.missing_seconds) == (session.audio_id, 0.0)
    assert np.array_equal(stored(storage, session.audio_id), sentences(1))


@pytest.mark.parametrize("target", ["audio.spool.Spool.discard", "jobs.board.Jobs.submit"])
def test_what_fails_after_it_is_complete_takes_nothing_away(
    storage: AudioStorageSystem, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    session = begin(storage)
    speak(session, sentences(1))
    with monkeypatch.context() as patch:
        patch.setattr(f"audio_storage_system.{target}", broken)
        with contextlib.suppress(StorageFailed):
            session.finish()
    report = session.finish()
    assert (report.audio_id, report.seconds) == (session.audio_id, 3.0)
    assert [job.id for job in storage.jobs.find()] == [report.job_id]
    assert np.array_equal(stored(storage, session.audio_id), sentences(1))
    assert storage.verify(deep=True).clean and not list((storage.home / "spool").iterdir())


def test_a_disk_that_refuses_the_last_piece_costs_no_more(
    storage: AudioStorageSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = begin(storage)
    speak(session, speech(1.3))
    with monkeypatch.context() as patch:
        patch.setattr("audio_storage_system.audio.spool.SpoolWriter._finish_piece", broken)
        with pytest.raises(StorageFailed):
            session.finish()
    assert session.finish().seconds == 1.3


def test_what_the_disk_refuses_is_missing_in_the_report(
    storage: AudioStorageSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    with begin(storage) as session:
        session.write(speech(1.0))
        with monkeypatch.context() as patch:
            patch.setattr("audio_storage_system.audio.spool._OpenPiece.append", broken)
            with pytest.raises(StorageFailed):
                session.write(speech(0.5))
        session.write(speech(1.0))
    report = session.finish()
    assert (report.seconds, report.missing_seconds) == (2.0, 0.5)


def test_who_is_told_something_may_end_the_session(storage: AudioStorageSystem) -> None:
    reports: list[Any] = []

    def tell(event: Event) -> None:
        if isinstance(event, Final):
            reports.append(session.finish())

    session = begin(storage, on_event=tell)
    with contextlib.suppress(Conflict):  # ended while there was more to say
        speak(session, sentences(2))
    assert isinstance(list(session.events(60))[-1], Ended)
    assert reports == [session.finish()]
    assert stored(storage, session.audio_id).size


def test_many_may_write_while_one_ends_it(storage: AudioStorageSystem) -> None:
    session = begin(storage)
    written: list[int] = []

    def write() -> None:
        with contextlib.suppress(Conflict):
            while True:
                session.write(speech(0.1))
                written.append(1)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    while not written:
        time.sleep(0.01)
    report = session.finish(wait=0)
    for thread in threads:
        thread.join(60)
    assert report.seconds == pytest.approx(len(written) * 0.1) and report.missing_seconds == 0
    assert storage.get_recording(session.audio_id).duration == pytest.approx(report.seconds)


def broken(*given: Any) -> Any:
    raise StorageFailed(reason="a bad moment")
