"""Live sessions: what is written is on the disk, understood, found, and complete in the end."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from audio_storage_system import AudioStorageSystem
from audio_storage_system.errors import NotFound, StillRecording
from audio_storage_system.records import Outcome
from living import RATE, begin, finals, sentences, speak, stored
from working import work

pytestmark = pytest.mark.usefixtures("scripted_engine")


def test_it_is_a_recording_from_the_first_second_and_found_while_it_goes_on(storage: AudioStorageSystem) -> None:
    with begin(storage, metadata={"room": "blue"}) as session:
        [recording] = storage.list_recordings(where={"room": "blue"})
        assert (recording.id, recording.status) == (session.audio_id, "recording")
        assert recording.file_hash == f"pending:{session.id}"
        speak(session, sentences(2))
        first, second = finals(session, 2)
        assert first.segments and first.searchable and second.start > first.end
        hits = storage.search_similar_audio(f'"{second.text}"', mode="keyword")
        assert [(hit.audio_id, hit.transcript_id) for hit in hits] == [(session.audio_id, second.transcript_id)]
        assert storage.search_similar_audio(second.text, mode="semantic")[0].start == second.segments[0].start
        [version] = storage.transcripts(session.audio_id)
        assert (version.outcome, version.active, version.flags) == (None, False, ("live",))
    report = session.finish()
    assert (report.audio_id, report.missing_seconds, report.gaps) == (session.audio_id, 0.0, ())
    assert "0.00 s missing" in str(report)
    [recording] = storage.list_recordings()
    assert (recording.id, recording.status, recording.metadata) == (session.audio_id, "stored", {"room": "blue"})
    assert recording.duration == pytest.approx(6.0)
    assert np.array_equal(stored(storage, recording.id), sentences(2))
    [version] = storage.transcripts(recording.id)
    assert (version.id, version.outcome, version.active) == (report.transcript_id, Outcome.OK, True)
    assert version.transcription == f"{first.text} {second.text}"
    assert not list((storage.home / "spool").iterdir())
    assert storage.verify(deep=True).findings == ()


def test_the_whole_model_then_makes_a_version_that_replaces_the_live_one(storage: AudioStorageSystem) -> None:
    with begin(storage, whisper_model="scripted:large", language="en") as session:
        speak(session, sentences(2))
    report = session.finish()
    assert report.job_id is not None
    assert storage.jobs.get(report.job_id).options == {"whisper_model": "scripted:large", "language": "en"}
    work(storage)
    live, whole = storage.transcripts(session.audio_id)
    assert (live.id, live.active, whole.active) == (report.transcript_id, False, True)
    assert whole.whisper_model == "scripted:large" and whole.flags == ()
    assert {hit.transcript_id for hit in storage.search_similar_audio("spoken", mode="keyword")} == {whole.id}
    work(storage)
    assert len(storage.transcripts(session.audio_id)) == 2
    assert storage.verify().findings == ()


def test_a_session_goes_on_where_it_was_left(storage: AudioStorageSystem) -> None:
    sound = sentences(3)
    cut = len(sound) // 2 + 123
    session = begin(storage, metadata={"room": "blue"}, resume_seconds=60)
    speak(session, sound[:cut])
    [first] = finals(session, 1)
    position = session.suspend()
    assert position == pytest.approx(cut / RATE)
    again = storage.live(resume=session.id)
    assert (again.id, again.audio_id) == (session.id, session.audio_id)
    assert (again.seconds, again.position) == (position, position)
    speak(again, sound[cut:])
    later = finals(again, 2)
    report = again.finish()
    assert np.array_equal(stored(storage, session.audio_id), sound)
    assert report.missing_seconds == 0
    [version] = storage.transcripts(session.audio_id)
    assert version.transcription == " ".join(final.text for final in (first, *later))
    starts = [segment.start for segment in storage.segments(version.id)]
    assert starts == sorted(starts) and len(starts) == 3
    assert storage.verify().findings == ()


def test_nobody_removes_or_uses_what_is_still_coming_in(storage: AudioStorageSystem, tmp_path: Path) -> None:
    with begin(storage) as session:
        speak(session, sentences(1))
        finals(session, 1)
        audio_id = session.audio_id
        uses = [
            lambda: storage.delete(audio_id),
            lambda: storage.trash.put(audio_id),
            lambda: storage.open_audio(audio_id),
            lambda: storage.generate_transcript(audio_id),
            lambda: storage.generate_embeddings(audio_id),
            lambda: storage.retranscribe([audio_id]),
        ]
        for use in uses:
            with pytest.raises(StillRecording):
                use()
        storage.retention.add("at once", 0.0)
        assert storage.retention.run().receipts == []
        assert storage.cleanup_old_files(0) == []
        storage.reembed(kind="audio")
        assert storage.verify(deep=True).findings == ()
        assert storage.export(audio_id, "txt")
        storage.set_metadata(audio_id, {"seen": True})
        assert storage.stats()["recordings"] == 1
        assert not any(found.startswith("pending") for found in storage.known_hashes())
        storage.retention.remove("at once")
    assert storage.get_recording(audio_id).metadata == {"seen": True}
    storage.delete(audio_id)


def test_a_suspended_session_is_left_alone_for_its_time_then_completed(home: Path) -> None:
    with AudioStorageSystem(home, transcriber="scripted") as storage:
        session = begin(storage, resume_seconds=60)
        speak(session, sentences(1))
        finals(session, 1)
        session.suspend()
        with AudioStorageSystem(home) as other:
            assert other.recovered == []
        spool, then = home / "spool" / session.id, time.time() - 61
        for path in (*spool.iterdir(), spool):
            os.utime(path, (then, then))
        with AudioStorageSystem(home) as other:
            assert [found.audio_id for found in other.recovered] == [session.audio_id]
        with pytest.raises(NotFound):
            storage.live(resume=session.id)
        [version] = storage.transcripts(session.audio_id)
        assert (version.outcome, version.active) == (Outcome.OK, True)
        assert [job.audio_id for job in storage.jobs.find()] == [session.audio_id]
        assert storage.get_recording(session.audio_id).status == "stored"
