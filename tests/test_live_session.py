"""Live sessions: what they take and refuse, and how they are resumed."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audio_storage_system import AudioStorageSystem
from audio_storage_system.errors import (
    Conflict,
    InvalidInput,
    NotFound,
    SessionHeld,
    UnknownSpec,
)
from audio_storage_system.live import Ended, Event, Final
from audio_storage_system.records import Outcome
from audio_storage_system.testing.scripted import ScriptedTranscriber
from catalogues import ON_SQLITE
from living import begin, finals, kinds, pause, sentences, speak, speech, stored
from working import work

pytestmark = ON_SQLITE


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
