"""An archive as its users see it: storing, transcribing, embedding, versions, deletion, and what goes wrong."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest

from audio_storage_system import AudioStorageSystem, load_audio
from audio_storage_system.errors import (
    DuplicateRecording,
    EmbedderMissing,
    InvalidInput,
    InvalidMetadata,
    InvalidVector,
    NotAudio,
    NotFound,
    ServiceFailed,
    TooLarge,
    TranscriptionFailed,
    UnknownSpec,
)
from audio_storage_system.records import Outcome
from audio_storage_system.testing.scripted import ScriptedTranscriber
from audio_storage_system.transcribers import Window
from builders import Talk, fill
from catalogues import database_url, plain_sql
from sounds import concatenated

pytestmark = pytest.mark.usefixtures("scripted_engine")


def rows(storage: AudioStorageSystem, query: str, *values: object) -> list[tuple[object, ...]]:
    """Plain SQL, as the guide has it."""
    return plain_sql(storage.home, query, *values)


# Storing


def test_the_bytes_are_kept_unchanged_under_a_dated_name(storage: AudioStorageSystem, call: Path) -> None:
    moment = datetime(2026, 11, 22, 13, 0, 5, tzinfo=timezone(timedelta(hours=1)))
    audio_id = storage.add(call, recorded_at=moment)
    recording = storage.get_recording(audio_id)
    assert recording.file_path == "audio_files/2026/11/audio_20261122_120005.flac"
    assert (storage.home / recording.file_path).read_bytes() == call.read_bytes()
    assert recording.file_hash == hashlib.sha256(call.read_bytes()).hexdigest()
    assert (recording.recorded_at, recording.recorded_offset_minutes) == (moment, 60)
    assert recording.original_name == "call.flac"
    with storage.open_audio(audio_id) as file:
        assert file.read() == call.read_bytes()


def test_names_never_collide(storage: AudioStorageSystem, demo: Path) -> None:
    moment = datetime(2026, 11, 22, 12, tzinfo=UTC)
    paths = {
        storage.get_recording(storage.add(path, recorded_at=moment)).file_path for path in sorted(demo.glob("*.flac"))
    }
    assert len(paths) == 3 and all(path.startswith("audio_files/2026/11/audio_20261122_120000") for path in paths)


def test_adding_the_same_bytes_again_is_the_same_recording(storage: AudioStorageSystem, call: Path) -> None:
    first = storage.add(call, metadata={"user": "john", "n": 1})
    again = storage.add(call, metadata={"user": "anna", "session": "s"})
    assert (again, first.duplicate, again.duplicate) == (first, False, True)
    assert storage.get_recording(first).metadata == {"user": "john", "n": 1, "session": "s"}
    storage.add(call, metadata={"user": "anna"}, on_duplicate="update")
    assert storage.get_recording(first).metadata["user"] == "anna"
    with pytest.raises(DuplicateRecording, match=f"recording {int(first)}"):
        storage.add(call, on_duplicate="error")
    assert len(storage.transcripts(first)) == 1
    assert len(list((storage.home / "audio_files").rglob("*.flac"))) == 1


def test_metadata_keeps_its_types_and_its_plain_sql(storage: AudioStorageSystem, call: Path) -> None:
    values = {"user": "john", "n": 1, "ok": True, "at": datetime(2026, 1, 2, tzinfo=UTC), "none": None}
    audio_id = storage.add(call, metadata=values)
    assert storage.get_recording(audio_id).metadata == values
    found = rows(
        storage,
        "SELECT af.id FROM audio_files af JOIN metadata m ON af.id = m.audio_file_id WHERE m.key='user' AND m.value=?",
        "john",
    )
    a_week_ago = "now() - interval '7 days'" if database_url(storage.home) else "datetime('now', '-7 days')"
    recent = rows(storage, f"SELECT id FROM audio_files WHERE created_at > {a_week_ago}")  # noqa: S608
    assert found == recent == [(int(audio_id),)]
    storage.set_metadata(audio_id, {"user": "anna"})
    storage.remove_metadata(audio_id, "none", "absent")
    assert storage.get_recording(audio_id).metadata["user"] == "anna"
    assert "none" not in storage.get_recording(audio_id).metadata


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda folder: folder / "missing.wav", InvalidInput),
        (lambda folder: folder, InvalidInput),
        (lambda folder: _file(folder / "empty.wav", b""), NotAudio),
        (lambda folder: _file(folder / "text.mp3", b"To be, or not to be"), NotAudio),
    ],
)
def test_what_is_no_audio_leaves_nothing_behind(
    storage: AudioStorageSystem, tmp_path: Path, make: object, error: type[Exception]
) -> None:
    with pytest.raises(error):
        storage.add(make(tmp_path))  # type: ignore[operator]
    assert storage.list_recordings() == []
    assert not [path for path in (storage.home / "audio_files").rglob("*") if path.is_file()]


def _file(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_requests_that_cannot_work_are_refused_before_anything_is_stored(
    storage: AudioStorageSystem, call: Path
) -> None:
    with pytest.raises(UnknownSpec, match="faster-whisper"):
        storage.add(call, whisper_model="no-such-engine")
    with pytest.raises(InvalidMetadata):
        storage.add(call, metadata={"user": object()})
    assert storage.list_recordings() == []


def test_files_over_the_limit_are_refused(tmp_path: Path, call: Path) -> None:
    with AudioStorageSystem(tmp_path / "small", max_file_bytes=1000) as storage:
        with pytest.raises(TooLarge, match="1,000 bytes"):
            storage.add(call)
        assert storage.list_recordings() == []


def test_two_processes_adding_one_file_make_one_recording(home: Path, call: Path) -> None:
    AudioStorageSystem(home).close()
    code = "import sys; from audio_storage_system import AudioStorageSystem as A; print(int(A(sys.argv[1]).store_audio_file(sys.argv[2])))"  # noqa: E501
    command = [sys.executable, "-W", "ignore", "-c", code, str(home), str(call)]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    answers = {child.communicate()[0].strip() for child in children}
    with AudioStorageSystem(home) as storage:
        assert answers == {str(storage.list_recordings()[0].id)} and len(storage.list_recordings()) == 1
    assert len(list((home / "audio_files").rglob("*.flac"))) == 1


def test_damage_is_told_and_the_rest_is_kept(
    storage: AudioStorageSystem, tmp_path: Path, call: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = bytearray(call.read_bytes())
    content[-2000:-1000] = bytes(1000)
    audio_id = storage.add(_file(tmp_path / "damaged.flac", bytes(content)))
    assert any("damaged" in warning for warning in storage.get_recording(audio_id).warnings)
    assert any("damaged.flac" in record.message for record in caplog.records)
    assert storage.transcripts(audio_id)[0].transcription


# Transcribing


def test_a_transcript_says_where_it_comes_from(storage: AudioStorageSystem, call: Path) -> None:
    added = storage.add(call)
    [transcript] = storage.transcripts(added)
    assert (transcript.id, transcript.active, added.outcome) == (added.transcript_id, True, Outcome.OK)
    assert (transcript.engine, transcript.whisper_model, transcript.language) == ("scripted", "scripted", "en")
    assert transcript.confidence == pytest.approx(0.9)
    assert transcript.processing_time is not None and transcript.processing_time > 0
    segments = storage.segments(transcript.id)
    assert transcript.transcription == " ".join(segment.text for segment in segments)
    assert all(word.end > word.start for segment in segments for word in segment.words)


def test_some_segments_of_a_transcript(storage: AudioStorageSystem) -> None:
    fill(storage._archive, [Talk([f"number {number}" for number in range(10)])])  # each from 10 n to 10 n + 9
    [said] = storage.transcripts(1)
    every = storage.segments(said.id)
    assert storage.segments(said.id, start=19, end=40) == every[2:4], "what ends or begins there is not in between"
    assert storage.segments(said.id, start=18.5, end=40.5) == every[1:5]
    assert storage.segments(said.id, start=85) == every[8:]
    assert storage.segments(said.id, after=every[3].id or 0, limit=2) == every[4:6]
    assert storage.segments(said.id, start=15, after=every[0].id or 0, limit=100) == every[1:]
    assert storage.segments(said.id, limit=0) == []
    with pytest.raises(InvalidInput):
        storage.segments(said.id, limit=-1)


def test_silence_is_a_result(storage: AudioStorageSystem, tmp_path: Path) -> None:
    added = storage.add(silence(tmp_path / "silence.wav", 25))
    assert added.outcome is Outcome.SILENCE
    assert storage.transcripts(added)[0].transcription == ""
    kinds = rows(storage, "SELECT embedding_type, passage_id, start_seconds, end_seconds FROM embeddings ORDER BY id")
    assert kinds == [("audio", None, 0.0, 10.0), ("audio", None, 10.0, 20.0), ("audio", None, 20.0, 25.0)]


def silence(path: Path, seconds: int) -> Path:
    """Very faint noise: silence as a device records it."""
    import wave

    samples = np.random.default_rng(0).integers(-2, 3, 16_000 * seconds).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(samples.tobytes())
    return path


def test_new_versions_leave_old_ones_and_can_be_switched(storage: AudioStorageSystem, call: Path) -> None:
    added = storage.add(call)
    second = storage.generate_transcript(added, whisper_model="scripted:differently")
    storage.generate_embeddings(added, second)
    assert [version.active for version in storage.transcripts(added)] == [False, True]
    assert storage.search_similar_audio("differently", mode="keyword")[0].transcript_id == second
    assert added.transcript_id is not None
    storage.activate_transcript(added.transcript_id)
    assert [version.active for version in storage.transcripts(added)] == [True, False]
    assert not storage.search_similar_audio("differently", mode="keyword").hits
    assert storage.search_similar_audio("second spoken").hits[0].transcript_id == added.transcript_id


@pytest.mark.parametrize(
    ("error", "outcome", "retryable"),
    [
        (ServiceFailed(service="s", reason="429"), Outcome.SERVICE_FAILED, True),
        (MemoryError(), Outcome.OUT_OF_MEMORY, True),
        (RuntimeError("decoder broke"), Outcome.FAILED, False),
    ],
)
def test_a_failure_is_an_outcome_with_a_reason(
    storage: AudioStorageSystem, call: Path, error: BaseException, outcome: Outcome, retryable: bool
) -> None:
    def fail(window: Window) -> None:
        raise error

    ScriptedTranscriber.before = fail  # type: ignore[assignment]
    with pytest.raises(TranscriptionFailed, match="was stored"):
        storage.add(call)
    [recording] = storage.list_recordings()
    [version] = storage.transcripts(recording.id)
    assert (version.outcome, version.active, version.as_dict()["retryable"]) == (outcome, False, retryable)
    assert version.reason
    ScriptedTranscriber.before = None
    assert storage.add(call).outcome is Outcome.OK


def test_an_interrupted_transcription_goes_on_where_it_stopped(
    storage: AudioStorageSystem, tmp_path: Path, demo: Path
) -> None:
    long = concatenated(tmp_path / "long.wav", [demo / "meeting.flac"] * 6)
    heard: list[float] = []

    def interrupt(window: Window) -> None:
        heard.append(window.start)
        if len(heard) == 4:
            raise KeyboardInterrupt

    ScriptedTranscriber.before = interrupt  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        storage.add(long)
    [recording] = storage.list_recordings()
    [running] = storage.transcripts(recording.id)
    assert running.outcome is None and len(storage.segments(running.id)) == 2  # the batch of two that was finished
    ScriptedTranscriber.before = lambda window: heard.append(window.start)  # type: ignore[assignment]
    added = storage.add(long)
    assert added.transcript_id == running.id
    assert (
        sorted(set(heard)) == sorted(s.start for s in storage.segments(running.id))
        and len(heard) == len(set(heard)) + 2
    )
    undisturbed = storage.generate_transcript(added, whisper_model="scripted:")
    assert [s.text for s in storage.segments(undisturbed)] == [s.text for s in storage.segments(running.id)]
    assert passages(storage, undisturbed) == passages(storage, running.id)


def passages(storage: AudioStorageSystem, transcript_id: int) -> list[tuple[object, ...]]:
    query = "SELECT sequence, start_seconds, end_seconds, text FROM passages WHERE transcript_id = ? ORDER BY sequence"
    return rows(storage, query, transcript_id)


def test_without_weights_the_bundled_recogniser_stands_in(
    tmp_path: Path, call: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with AudioStorageSystem(tmp_path / "a") as storage:
        added = storage.add(call, whisper_model="base")
        [version] = storage.transcripts(added)
        assert (version.whisper_model, version.engine, version.flags) == ("base", "pocketsphinx", ("fallback",))
        assert storage.search_similar_audio(version.transcription)[0].flags == ("fallback",)
        assert len([r for r in caplog.records if "instead" in r.message]) == 1
        assert json.loads(storage.export(added, "json"))["flags"] == ["fallback"]
        assert "NOTE quality: fallback" in storage.export(added, "vtt")
        with pytest.raises(TranscriptionFailed):
            storage.generate_transcript(added, whisper_model="base", language="de")
        assert storage.transcripts(added)[-1].outcome is Outcome.ENGINE_UNAVAILABLE
        assert storage.transcripts(added)[0].active


def test_without_a_fallback_missing_weights_are_an_error(tmp_path: Path, call: Path) -> None:
    with AudioStorageSystem(tmp_path / "a", transcriber_fallback="") as storage:
        with pytest.raises(TranscriptionFailed, match="base"):
            storage.add(call, whisper_model="base")
        assert len(storage.list_recordings()) == 1


def test_every_format_exports_the_version_asked_for(storage: AudioStorageSystem, demo: Path) -> None:
    added, other = storage.add(demo / "call.flac"), storage.add(demo / "meeting.flac")
    second = storage.generate_transcript(added, whisper_model="scripted:differently")
    for name in ("srt", "vtt", "txt", "tsv", "json"):
        assert "differently" in storage.export(added, name)
        assert "differently" not in storage.export(added, name, added.transcript_id)
    with pytest.raises(NotFound):
        storage.export(other, "srt", second)
    with pytest.raises(UnknownSpec, match="srt"):
        storage.export(added, "docx")


# Embedding and searching


def test_all_three_kinds_of_embedding_are_made_once(storage: AudioStorageSystem, call: Path) -> None:
    added = storage.add(call)
    count = """SELECT embedding_type, count(*), count(DISTINCT passage_id) FROM embeddings
               WHERE passage_id IS NOT NULL GROUP BY 1 ORDER BY 1"""
    [(passages_made,)] = rows(storage, "SELECT count(*) FROM passages")
    assert rows(storage, count) == [
        (kind, passages_made, passages_made) for kind in ("audio", "combined", "transcript")
    ]
    assert storage.generate_embeddings(added) == 0
    for data, dimension in rows(storage, "SELECT embedding_data, embedding_dimension FROM embeddings"):
        vector = np.frombuffer(data, "<f4")  # type: ignore[call-overload]
        assert len(vector) == dimension and np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_what_sounds_alike_is_found(storage: AudioStorageSystem, demo: Path) -> None:
    ids = {path.name: storage.add(path) for path in sorted(demo.glob("*.flac"))}
    for name, audio_id in ids.items():
        assert storage.search_similar_audio(audio=demo / name, by="audio")[0].audio_id == audio_id
        assert storage.search_similar_audio(audio=load_audio(demo / name), by="combined")[0].audio_id == audio_id
    with pytest.raises(InvalidInput):
        storage.search_similar_audio("words", by="audio")
    with pytest.raises(InvalidInput):
        storage.search_similar_audio()


def test_a_users_function_opens_a_space_of_its_own(storage: AudioStorageSystem, demo: Path) -> None:
    storage.add(demo / "call.flac")

    def letters(text: str) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return np.array([text.lower().count(c) + 1 for c in "abcdefghij"])

    storage.generate_text_embedding = letters  # type: ignore[assignment]
    found = storage.search_similar_audio("spoken")
    assert "no vector" in found.warnings[0] and found[0].audio_id == 1
    added = storage.add(demo / "meeting.flac")
    hit = next(hit for hit in storage.search_similar_audio("spoken", limit=50) if hit.audio_id == added)
    assert -1 <= hit.similarity <= 1
    storage.generate_embeddings(1)
    assert storage.search_similar_audio("spoken").warnings == ()
    spaces = {
        s["model"]: s["dimension"] for s in storage.stats()["spaces"] if s["kind"] == "transcript" and s["active"]
    }
    assert list(spaces.values()) == [10] and next(iter(spaces)).startswith("user:")
    assert storage.generate_text_embedding("abc").shape == (10,)


def test_an_archive_whose_function_is_missing_searches_by_words(storage: AudioStorageSystem, call: Path) -> None:
    storage.use_embedder(lambda text: [1.0, len(text)], name="two")
    storage.add(call)
    with AudioStorageSystem(storage.home, transcriber="scripted") as other:
        found = other.search_similar_audio("spoken")
        assert found.hits and "use_embedder" in found.warnings[0]
        with pytest.raises(EmbedderMissing, match="user:two"):
            other.search_similar_audio("spoken", mode="semantic")
        other.use_embedder(lambda text: [1.0, len(text)], name="two")
        assert other.search_similar_audio("spoken", mode="semantic").hits


@pytest.mark.parametrize("answer", [[np.nan, 1.0], [0.0, 0.0], [], [[1.0]], "text", [1.0] * 3])
def test_functions_that_answer_nonsense_are_refused_and_nothing_is_kept(
    storage: AudioStorageSystem, call: Path, answer: object
) -> None:
    answers = iter([[1.0, 2.0], [1.0, 2.0], *[answer] * 50])  # the first call asks for the dimension
    storage.use_embedder(lambda text: next(answers), name="odd")  # type: ignore[arg-type, return-value]
    storage.generate_text_embedding("fixes two dimensions")
    with pytest.raises(InvalidVector):
        storage.add(call)
    assert rows(storage, "SELECT count(*) FROM embeddings WHERE model_name = 'user:odd'") == [(0,)]
    assert len(storage.list_recordings()) == 1


def test_a_context_pack_cites_what_it_holds(storage: AudioStorageSystem, demo: Path) -> None:
    storage.add(demo / "call.flac", recorded_at=datetime(2026, 11, 22, 12, tzinfo=UTC))
    pack = storage.context_pack("spoken", max_tokens=200)
    assert pack.text.startswith("[1] call.flac, 2026-11-22 12:0") and pack.tokens <= 200
    assert pack.citations[0].audio_id == 1 and pack.citations[0].text in pack.text
    assert json.loads(json.dumps(pack.as_dict()))["citations"][0]["number"] == 1
    assert storage.context_pack("spoken", max_tokens=3).citations == ()
