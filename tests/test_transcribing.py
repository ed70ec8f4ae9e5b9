"""Transcribing with somebody listening, again, into English, and without keeping anything."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from audio_storage_system import AudioStorageSystem
from audio_storage_system.errors import InvalidVector, NotAudio, NotFound, TooLarge, UnknownSpec, Unsupported
from audio_storage_system.records import EmbeddingKind, Segment
from audio_storage_system.testing.tiny_whisper import build_tiny_whisper
from audio_storage_system.transcribers import Window
from catalogues import ON_SQLITE
from working import hear, talk

pytestmark = pytest.mark.usefixtures("scripted_engine")
# Where the kind of catalogue makes no difference.


class Stop(Exception):
    """What a listener raises who has heard enough."""


@pytest.fixture
def long(tmp_path: Path) -> Path:
    """Five windows of speech, which the engine takes two at a time."""
    return talk(tmp_path / "long.wav", seed=1, windows=5)


def test_segments_are_told_each_once_as_they_are_kept(storage: AudioStorageSystem, long: Path) -> None:
    audio_id = storage.store_audio_file(long)
    told: list[list[Segment]] = []

    def listen(kept: Sequence[Segment]) -> None:
        [version] = storage.transcripts(audio_id)
        assert storage.segments(version.id)[-1] == kept[-1]
        told.append(list(kept))

    made = storage.generate_transcript(audio_id, on_segments=listen)
    assert [len(part) for part in told] == [2, 2, 1]
    assert [segment for part in told for segment in part] == storage.segments(made)


def test_who_goes_on_with_a_version_is_told_all_of_it(storage: AudioStorageSystem, long: Path) -> None:
    audio_id = storage.store_audio_file(long)

    def stop(kept: Sequence[Segment]) -> None:
        raise Stop

    with pytest.raises(Stop):
        storage.generate_transcript(audio_id, on_segments=stop)
    [running] = storage.transcripts(audio_id)
    assert running.outcome is None
    told: list[Segment] = []
    made = storage.generate_transcript(audio_id, on_segments=told.extend)
    assert made == running.id
    assert told == storage.segments(made) and len(told) == 5


def test_a_version_that_is_there_is_used_again(storage: AudioStorageSystem, long: Path) -> None:
    audio_id = storage.store_audio_file(long)
    first = storage.generate_transcript(audio_id)

    def fail(window: Window) -> None:
        raise AssertionError("it was heard again")

    hear(fail)
    told: list[Segment] = []
    again = storage.generate_transcript(audio_id, reuse=True, on_segments=told.extend)
    hear(None)
    assert (again, again.decision) == (first, None)
    assert told == storage.segments(first)
    others = [
        storage.generate_transcript(audio_id, reuse=True, **asked)
        for asked in ({"language": "fr"}, {"prompt": "Ada"}, {"whisper_model": "scripted:other"})
    ]
    others.append(storage.generate_transcript(audio_id))
    assert len({first, *others}) == 5, "what was asked for otherwise, or without reuse, is another version"


def test_nothing_is_kept_of_what_is_only_transcribed(storage: AudioStorageSystem, long: Path) -> None:
    kept_before = storage.stats()
    told: list[Segment] = []
    seconds: list[float] = []
    heard = storage.transcribe(long, on_segments=told.extend, progress=lambda done, total: seconds.append(done))
    stored = storage.add(long)
    assert stored.transcript_id is not None
    same = [(s.start, s.end, s.text, s.words) for s in storage.segments(stored.transcript_id)]
    assert [(s.start, s.end, s.text, s.words) for s in heard.segments] == same
    assert tuple(told) == heard.segments
    assert heard.transcription == storage.get_transcript(stored.transcript_id).transcription
    assert heard.duration == pytest.approx(storage.get_recording(stored).duration, abs=0.01)
    assert (heard.language, heard.engine, heard.flags) == ("en", "scripted", ())
    assert seconds == sorted(seconds) and seconds[-1] == pytest.approx(heard.duration)
    assert kept_before["recordings"] == 0 and storage.stats()["recordings"] == 1


@ON_SQLITE
def test_a_stream_is_transcribed_and_stays_open(storage: AudioStorageSystem, long: Path) -> None:
    with io.BytesIO(long.read_bytes()) as file:
        file.seek(100)
        assert len(storage.transcribe(file, name="call.wav").segments) == 5
        assert not file.closed


def test_what_cannot_be_transcribed_says_why(tmp_path: Path, long: Path) -> None:
    with AudioStorageSystem(tmp_path / "archive", transcriber="scripted", max_file_bytes=4_000_000) as storage:
        with pytest.raises(NotAudio, match=r"notes\.txt"):
            storage.transcribe(io.BytesIO(b"no sound at all"), name="notes.txt")
        with pytest.raises(TooLarge):
            storage.transcribe(io.BytesIO(bytes(4_000_001)))
        with pytest.raises(UnknownSpec):
            storage.transcribe(long, whisper_model="no-such-engine")
        with pytest.raises(Unsupported, match="scripted cannot translate"):
            storage.transcribe(long, translate=True)


@ON_SQLITE
def test_what_the_engine_cannot_do_leaves_no_version(storage: AudioStorageSystem, long: Path) -> None:
    audio_id = storage.store_audio_file(long)
    with pytest.raises(Unsupported):
        storage.generate_transcript(audio_id, translate=True)
    assert storage.transcripts(audio_id) == []


@ON_SQLITE
def test_a_translation_is_a_version_that_search_does_not_follow(
    storage: AudioStorageSystem, tmp_path: Path, call: Path
) -> None:
    model = f"faster-whisper:{build_tiny_whisper(tmp_path / 'model', 'good day', multilingual=True, language='de')}"
    audio_id = storage.store_audio_file(call)
    said = storage.generate_transcript(audio_id, whisper_model=model)
    translated = storage.generate_transcript(audio_id, whisper_model=model, translate=True, reuse=True)
    versions = {version.id: version for version in storage.transcripts(audio_id)}
    assert (versions[said].language, versions[translated].language) == ("de", "en")
    assert versions[said].active and not versions[translated].active
    assert versions[translated].parameters["task"] == "translate"
    assert storage.generate_transcript(audio_id, whisper_model=model, translate=True, reuse=True) == translated
    assert storage.transcribe(call, whisper_model=model, translate=True).language == "en"


@ON_SQLITE
def test_many_texts_get_the_vectors_that_each_gets(storage: AudioStorageSystem) -> None:
    texts = [f"text number {number}" for number in range(300)]
    rows = storage.generate_text_embeddings(texts)
    assert rows.shape == (300, len(storage.generate_text_embedding("one")))
    for number in (0, 255, 256, 299):
        np.testing.assert_allclose(rows[number], storage.generate_text_embedding(texts[number]), atol=1e-6)
    [space] = [space for space in storage.embedding_spaces() if space.active and space.kind is EmbeddingKind.TRANSCRIPT]
    np.testing.assert_array_equal(storage.generate_text_embeddings(texts[:2], space=space.model), rows[:2])
    assert storage.generate_text_embeddings([]).shape == (0, rows.shape[1])
    with pytest.raises(NotFound):
        storage.generate_text_embeddings(texts, space="no such model")


@ON_SQLITE
def test_a_function_of_the_user_embeds_them_too(storage: AudioStorageSystem) -> None:
    storage.generate_text_embedding = lambda text: [float(len(text)), 1.0]
    np.testing.assert_allclose(storage.generate_text_embeddings(["abc"]), [[0.948683, 0.316228]], atol=1e-5)
    storage.generate_text_embedding = lambda text: [0.0, 0.0]
    with pytest.raises(InvalidVector):
        storage.generate_text_embeddings(["abc"])
