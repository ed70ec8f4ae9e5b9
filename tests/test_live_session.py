"""Live sessions: what they take and refuse, how they are resumed, and what happens where recognition does not."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audio_storage_system import AudioStorageSystem
from audio_storage_system.archive import underway
from audio_storage_system.audio.spool import Spool
from audio_storage_system.errors import (
    Conflict,
    InvalidInput,
    NotFound,
    SessionHeld,
    StillRecording,
    StorageFailed,
    UnknownSpec,
)
from audio_storage_system.live import Ended, Event, Final, Lag, LiveSession, Unheard
from audio_storage_system.records import Outcome
from audio_storage_system.testing.scripted import ScriptedTranscriber
from living import blocks, finals, kinds, pause, sentences, speak, speech, stored

pytestmark = pytest.mark.usefixtures("scripted_engine")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "archive"


@pytest.fixture
def storage(home: Path) -> Iterator[AudioStorageSystem]:
    with AudioStorageSystem(home, transcriber="scripted") as opened:
        yield opened


def begin(storage: AudioStorageSystem, **options: Any) -> LiveSession:
    return storage.live(transcriber="scripted", **options)


def work(storage: AudioStorageSystem) -> None:
    storage.worker(concurrency=1).run_until_idle(threading.Event())


def test_the_fallback_also_makes_a_whole_version_where_there_is_no_other(home: Path) -> None:
    with AudioStorageSystem(home, transcriber_fallback="scripted") as storage:  # Whisper has no weights here
        with begin(storage) as session:
            speak(session, sentences(1))
        work(storage)
        live, whole = storage.transcripts(session.audio_id)
    assert (whole.active, whole.flags, live.active) == (True, ("fallback",), False)


def test_events_tell_what_happens_to_the_reader_and_to_the_caller(storage: AudioStorageSystem) -> None:
    told: list[Event] = []

    def tell(event: Event) -> None:
        told.append(event)
        raise RuntimeError("nobody's fault but the caller's")

    session = begin(storage, on_event=tell)
    reader = threading.Thread(target=lambda: read.extend(session.events()))
    read: list[Event] = []
    reader.start()
    speak(session, sentences(2))
    report = session.finish()
    reader.join(10)
    assert kinds(read) == kinds(told) == ["speech_started", "final"] * 2 + ["ended"]
    assert read[-1] == Ended(report)
    assert list(session.events()) == []
    final = next(event for event in read if isinstance(event, Final))
    assert final.as_dict()["segments"][0]["text"] == final.text


def test_a_reader_that_waits_in_vain_goes_on(storage: AudioStorageSystem) -> None:
    with begin(storage) as session:
        began = time.monotonic()
        assert list(session.events(timeout=0.1)) == []
        assert time.monotonic() - began < 5


@pytest.mark.parametrize("kind", ["bytes", "float", "int16", "memoryview"])
def test_samples_may_come_in_many_forms(storage: AudioStorageSystem, kind: str) -> None:
    sound = speech(1.0)
    forms: dict[str, Any] = {
        "bytes": sound.tobytes(),
        "memoryview": memoryview(sound.tobytes()),
        "int16": sound,
        "float": (sound / 32767).astype(np.float32),
    }
    with begin(storage) as session:
        session.write(forms[kind])
    assert np.abs(stored(storage, session.audio_id).astype(int) - sound).max() <= 1


def test_any_rate_and_several_channels_are_stored_as_they_are_and_understood(storage: AudioStorageSystem) -> None:
    left = np.repeat(sentences(1), 3)  # 48 kHz
    sound = np.stack([left, left // 2], axis=1)
    with begin(storage, sample_rate=48_000, channels=2) as session:
        for begin_ in range(0, len(sound), 4801):
            session.write(sound[begin_ : begin_ + 4801])
        [final] = finals(session, 1)
    recording = storage.get_recording(session.audio_id)
    assert (recording.sample_rate, recording.channels) == (48_000, 2)
    assert np.array_equal(stored(storage, recording.id), sound.reshape(-1))
    assert 1.5 < final.end - final.start < 3


@pytest.mark.parametrize(
    ("sound", "reason"),
    [
        (b"\0\0\0", "whole"),
        (np.zeros((4, 2), np.int16), "shape"),
        (np.zeros(4, np.int64), "int64"),
        (np.array([np.nan], np.float32), "no numbers"),
        ("text", "bytes or an array"),
    ],
)
def test_what_is_no_sound_is_refused_and_harms_nothing(storage: AudioStorageSystem, sound: Any, reason: str) -> None:
    with begin(storage) as session:
        session.write(speech(0.5))
        with pytest.raises(InvalidInput, match=reason):
            session.write(sound)
        session.write(speech(0.5))
    assert session.finish().seconds == 1.0


@pytest.mark.parametrize(
    "options",
    [
        {"sample_rate": 0},
        {"sample_rate": 10**9},
        {"channels": 0},
        {"channels": 99},
        {"resume_seconds": float("nan")},
        {"metadata": {"": 1}},
    ],
)
def test_what_no_session_can_be_is_refused_and_leaves_nothing(
    storage: AudioStorageSystem, options: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInput):
        begin(storage, **options)
    assert storage.list_recordings() == []
    assert not list((storage.home / "spool").glob("*"))


def test_an_unknown_engine_is_refused_before_anything_is_recorded(storage: AudioStorageSystem) -> None:
    for options in ({"transcriber": "nobody"}, {"whisper_model": "nobody"}):
        with pytest.raises(UnknownSpec):
            storage.live(**options)  # type: ignore[arg-type]
    assert storage.list_recordings() == []


def test_a_session_into_which_nothing_came_leaves_nothing(storage: AudioStorageSystem) -> None:
    with begin(storage) as session:
        pass
    report = session.finish()
    assert (report.audio_id, report.seconds, str(report)) == (None, 0.0, "Nothing was recorded")
    assert storage.list_recordings() == [] and not list((storage.home / "spool").iterdir())


def test_silence_is_a_result(storage: AudioStorageSystem) -> None:
    with begin(storage) as session:
        speak(session, pause(3.0))
    [version] = storage.transcripts(session.audio_id)
    assert (version.outcome, version.transcription) == (Outcome.SILENCE, "")


def test_what_was_lost_before_it_came_is_in_the_report(storage: AudioStorageSystem) -> None:
    with begin(storage) as session:
        session.write(speech(1.0))
        session.skip(0.25)
        session.write(speech(1.0))
    report = session.finish()
    assert (report.seconds, report.missing_seconds) == (2.0, 0.25)
    assert [(gap.start, gap.end) for gap in report.gaps] == [(1.0, 1.25)]


def test_after_the_end_nothing_can_be_written(storage: AudioStorageSystem) -> None:
    with begin(storage) as session:
        session.write(speech(0.5))
    for late in (lambda: session.write(speech(0.5)), lambda: session.skip(1), session.flush, session.suspend):
        with pytest.raises(Conflict, match="has ended"):
            late()


def test_closing_the_archive_ends_its_sessions(home: Path) -> None:
    with AudioStorageSystem(home, transcriber="scripted") as storage:
        ended = begin(storage)
        ended.write(speech(1.0))
        left = begin(storage.as_user(storage.users.add("ann").name), resume_seconds=60)
        left.write(speech(0.5))
    with AudioStorageSystem(home, transcriber="scripted") as storage:
        assert storage.get_recording(ended.audio_id).status == "stored"
        assert storage.get_recording(left.audio_id).status == "recording"
        with begin(storage, resume=left.id) as again:
            assert (again.audio_id, again.seconds) == (left.audio_id, 0.5)


# Suspended and resumed


def test_what_was_not_understood_before_is_after(storage: AudioStorageSystem) -> None:
    stuck = threading.Event()
    ScriptedTranscriber.before = lambda window: stuck.wait(30) and None  # type: ignore[assignment]
    session = begin(storage, resume_seconds=60)
    speak(session, sentences(2))
    threading.Timer(0.2, stuck.set).start()
    session.suspend()
    again = storage.live(resume=session.id)
    again.finish()
    assert len(storage.segments(storage.transcripts(session.audio_id)[0].id)) == 2


def test_a_session_is_one_writers_only(storage: AudioStorageSystem) -> None:
    with begin(storage, resume_seconds=60) as session:
        session.write(speech(0.5))
        with pytest.raises(SessionHeld):
            storage.live(resume=session.id)
        session.suspend()
        with pytest.raises(Conflict, match="resume it"):
            session.finish()
        with storage.live(resume=session.id):
            with pytest.raises(SessionHeld):
                storage.live(resume=session.id)
    with pytest.raises(NotFound):
        storage.live(resume=session.id)


@pytest.mark.parametrize("name", ["", "..", "../spool", "f" * 32, "F" * 32, "x" * 32, "/etc", "f" * 31])
def test_there_is_no_session_of_another_name(storage: AudioStorageSystem, name: str) -> None:
    with pytest.raises(NotFound, match="live session"):
        storage.live(resume=name)


def test_who_may_not_change_a_recording_cannot_go_on_with_it(storage: AudioStorageSystem) -> None:
    ann, ben = (storage.as_user(storage.users.add(name).name) for name in ("ann", "ben"))
    session = ann.live(transcriber="scripted", resume_seconds=60)
    session.write(speech(0.5))
    session.suspend()
    with pytest.raises(NotFound, match="live session"):
        ben.live(resume=session.id)
    assert ben.list_recordings() == []
    with ann.live(resume=session.id) as again:
        again.write(speech(0.5))
    assert storage.get_recording(again.audio_id).owner_id == storage.users.get("ann").id


def test_a_worker_completes_what_nobody_resumes(storage: AudioStorageSystem) -> None:
    session = begin(storage)
    speak(session, sentences(1))
    session.suspend()
    work(storage)
    assert storage.get_recording(session.audio_id).status == "stored"


# Recognition that is late, fails, or is not there


def test_slow_recognition_keeps_nobody_from_writing_and_says_so(storage: AudioStorageSystem) -> None:
    ScriptedTranscriber.before = lambda window: time.sleep(0.5)  # type: ignore[assignment]
    told: list[Event] = []
    session = begin(storage, on_event=told.append)
    began = time.monotonic()
    speak(session, sentences(4))
    assert time.monotonic() - began < 1.5
    report = session.finish()
    assert (report.seconds, report.missing_seconds) == (12.0, 0.0)
    lags = [event.seconds for event in told if isinstance(event, Lag)]
    assert max(lags) >= 3 and lags[-1] == 0
    assert len(storage.segments(storage.transcripts(session.audio_id)[0].id)) == 4


def test_what_is_not_understood_in_time_is_left_to_the_whole_model(storage: AudioStorageSystem) -> None:
    stuck = threading.Event()
    heard: list[float] = []

    def before(window: Any) -> None:
        heard.append(window.start)
        if len(heard) == 2:
            stuck.wait(30)

    ScriptedTranscriber.before = before  # type: ignore[assignment]
    session = begin(storage)
    speak(session, sentences(3))
    threading.Timer(0.6, stuck.set).start()
    session.finish(wait=0.1)
    [version] = storage.transcripts(session.audio_id)
    assert version.outcome is Outcome.OK and len(storage.segments(version.id)) < 3
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
    assert any(isinstance(event, Unheard) for event in session.events(5))
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
    assert isinstance(list(session.events(10))[-1], Ended)
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
    time.sleep(0.2)
    report = session.finish(wait=0)
    for thread in threads:
        thread.join(10)
    assert report.seconds == pytest.approx(len(written) * 0.1) and report.missing_seconds == 0
    assert storage.get_recording(session.audio_id).duration == pytest.approx(report.seconds)


def broken(*given: Any) -> Any:
    raise StorageFailed(reason="a bad moment")
