"""Transcripts that exist already: what is read, how they are paired with their audio, and what they become."""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audio_storage_system import AudioStorageSystem
from audio_storage_system.catalogue import transcripts
from audio_storage_system.cli.pairs import find_pairs
from audio_storage_system.errors import InvalidInput, NotFound, StorageFull, TooLarge
from audio_storage_system.formats import Document, reading, write
from audio_storage_system.formats.reading import read_file
from audio_storage_system.records import Outcome, Segment, Word
from batch import Command, commands, make, recording, start

SRT = """1
00:00:00,000 --> 00:00:02,000
[Ann]: good morning

2
00:00:04,000 --> 00:00:06,000
[Bob]: the train is late
"""


@pytest.fixture
def storage(home: Path) -> Iterator[AudioStorageSystem]:
    with AudioStorageSystem(home) as storage:
        yield storage


@pytest.fixture
def meeting(tmp_path: Path) -> Path:
    """A recording of 8 s, and beside it `meeting.srt`."""
    path = tmp_path / "meeting.wav"
    path.write_bytes(recording(1, 8.0))
    (tmp_path / "meeting.srt").write_text(SRT)
    return path


# --- reading ---------------------------------------------------------------------------------------------------------


def put(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.srt", "1\n00:00:01,000 --> 00:00:02,000\nfine\n\n2\n00:00:xx,0 --> 00:00:04,0\nbad\n", "Line 6 has times"),
        ("a.vtt", "WEBVTT\n\n00:01.000 -> 00:02.000\nhi\n\n00:61:1:1 --> 5\nbad\n", "Line 6 has times"),
        ("a.tsv", "start\tend\ttext\n0\t10\tfine\nzero\tten\tbad\n", "line 3 has no times"),
        ("a.json", '{"segments": [\n{"start": 0, "end": 1, "text": "a"},\n]}', "line 3, column 1"),
        ("a.json", '{"segments": [{"start": 0, "end": 1, "text": "a"}, {"start": 0}]}', "segment 2 cannot be read"),
        ("a.json", '{"segments": {"a": 1}}', "no list of segments"),
        ("a.json", '{"title": "no transcript"}', "no list of segments"),
        ("a.json", "[1, 2]", "it is no object"),
        ("a.srt", "", "It is empty"),
        ("a.vtt", b"\xef\xbb\xbf \r\n", "It is empty"),
        ("a.srt", "just words\n", "no line in it has times"),
        ("a.docx", "words", "is no transcript that can be read"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_says_where_it_fails(tmp_path: Path, name: str, content: Any, reason: str) -> None:
    with pytest.raises(InvalidInput, match=name) as failure:
        read_file(put(tmp_path, name, content))
    assert reason in failure.value.message


def test_a_file_that_is_gone_or_enormous_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInput, match="There is no file"):
        read_file(tmp_path / "a.srt")
    with (tmp_path / "a.srt").open("wb") as file:
        file.truncate(100 << 20)
    with pytest.raises(TooLarge, match=r"67,108,864 bytes"):
        read_file(tmp_path / "a.srt")


@pytest.mark.parametrize(
    ("encoding", "warned"),
    [("utf-8", False), ("utf-8-sig", False), ("utf-16", False), ("cp1252", True)],
)
def test_encodings_and_line_ends(tmp_path: Path, encoding: str, warned: bool) -> None:
    text = "1\n00:00:01,000 --> 00:00:02,000\nZwölf Äpfel\n"
    file = read_file(put(tmp_path, "a.srt", text.replace("\n", "\r\n").encode(encoding)))
    assert file.segments == (Segment(1.0, 2.0, "Zwölf Äpfel"),)
    assert [warning.split(" is")[0] for warning in file.warnings] == (["line 3"] if warned else [])


def test_cues_out_of_order_are_put_in_order_and_told_and_overlaps_stay(tmp_path: Path) -> None:
    text = "00:05.000 --> 00:09.000\nlate\n\n00:01.000 --> 00:06.000\nearly\n"
    file = read_file(put(tmp_path, "a.vtt", "WEBVTT\n\n" + text))
    assert [(s.start, s.end, s.text) for s in file.segments] == [(1.0, 6.0, "early"), (5.0, 9.0, "late")]
    assert "1 of 2 cues begin before" in file.warnings[0]


def test_whisper_cpp_and_what_no_catalogue_takes(tmp_path: Path) -> None:
    item = {"timestamps": {"from": "00:00:01,000"}, "offsets": {"from": 1000, "to": 2500}, "text": " a\u0000b\ud800"}
    data = {"model": {"type": "base"}, "result": {"language": "en"}, "transcription": [item]}
    file = read_file(put(tmp_path, "a.json", json.dumps(data)))
    assert file.segments == (Segment(1.0, 2.5, " ab"),)
    assert (file.language, file.model, file.format) == ("en", "base", "json")


def test_very_many_words_beside_the_segments_are_dealt_out_in_no_time(tmp_path: Path) -> None:
    many = 20_000
    words = [{"word": "w", "start": n / 10, "end": n / 10 + 0.05} for n in range(many)]
    segments = [{"start": n, "end": n + 1, "text": "t"} for n in range(many // 10)]
    file = read_file(put(tmp_path, "a.json", json.dumps({"segments": segments, "words": words})))
    assert {len(segment.words) for segment in file.segments} == {10}


seconds = st.integers(0, 7_999).map(lambda value: value / 1000)
spoken = st.lists(st.text(st.sampled_from("abzÄß字,.!?'-09"), min_size=1, max_size=6), min_size=1, max_size=4).map(
    " ".join
)


@st.composite
def documents(draw: st.DrawFn) -> Document:
    def segment(start: float, length: float, text: str, speaker: str | None) -> Segment:
        return Segment(start, round(start + length, 3), text, speaker=speaker)

    names = st.none() | st.sampled_from(["Ann", "Bob O'Neil", "SPEAKER_01"])
    made = draw(st.lists(st.builds(segment, seconds, seconds, spoken, names), min_size=1, max_size=8))
    return Document(tuple(sorted(made, key=lambda item: item.start)), language="en")


@pytest.mark.parametrize("name", ["srt", "vtt", "tsv", "json"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=documents())
def test_what_we_export_is_read_back_as_it_was(tmp_path: Path, name: str, document: Document) -> None:
    file = read_file(put(tmp_path, f"a.{name}", write(name, document)))
    assert file.segments == document.segments
    assert not file.warnings


# --- what it becomes -------------------------------------------------------------------------------------------------


def plain(segments: list[Segment]) -> list[Segment]:
    return [replace(segment, id=None) for segment in segments]


def test_an_import_is_a_version_that_is_searched_and_says_where_it_came_from(
    storage: AudioStorageSystem, meeting: Path
) -> None:
    made = storage.import_transcript(meeting, meeting.with_suffix(".srt"), language="en", metadata={"kind": "meeting"})
    assert (made.duplicate, made.known, made.active, made.segments, made.warnings) == (False, False, True, 2, ())
    version = storage.get_transcript(made.transcript_id)
    assert (version.engine, version.whisper_model, version.outcome) == ("import", "import", Outcome.OK)
    assert (version.language, version.transcription) == ("en", "good morning the train is late")
    assert version.parameters["format"] == "srt"
    assert version.parameters["file"] == "meeting.srt"
    assert len(version.parameters["sha256"]) == 64
    assert plain(storage.segments(version.id)) == [
        Segment(0.0, 2.0, "good morning", speaker="Ann"),
        Segment(4.0, 6.0, "the train is late", speaker="Bob"),
    ]
    hit = storage.search_similar_audio("train", limit=1)[0]
    assert (hit.audio_id, hit["similarity"] > 0) == (made.audio_id, True)
    assert storage.get_recording(made.audio_id).metadata == {"kind": "meeting"}
    assert {space["embeddings"] > 0 for space in storage.stats()["spaces"]} == {True}


def test_scores_words_and_model_of_a_json_are_kept(storage: AudioStorageSystem, meeting: Path) -> None:
    words = [{"word": " good", "start": 0.0, "end": 0.4, "probability": 0.9}]
    segment = {"start": 0.0, "end": 1.0, "text": " good", "avg_logprob": -0.25, "words": words, "speaker": "S1"}
    data = {"segments": [segment], "language": "English", "model": "large-v3"}
    made = storage.import_transcript(meeting, put(meeting.parent, "m.json", json.dumps(data)))
    version = storage.get_transcript(made.transcript_id)
    assert (version.whisper_model, version.language, version.parameters["model"]) == ("large-v3", "en", "large-v3")
    assert plain(storage.segments(version.id)) == [
        Segment(0.0, 1.0, " good", (Word(0.0, 0.4, " good", 0.9),), "S1", avg_logprob=-0.25)
    ]


def test_importing_again_makes_nothing_new_whatever_the_file_is_called(
    storage: AudioStorageSystem, meeting: Path
) -> None:
    first = storage.import_transcript(meeting, meeting.with_suffix(".srt"))
    before = storage.stats()
    again = storage.import_transcript(first.audio_id, put(meeting.parent, "other.srt", SRT))
    assert (again.transcript_id, again.known, again.duplicate) == (first.transcript_id, True, True)
    assert storage.stats() == before


def test_an_import_becomes_active_only_where_there_is_none_or_when_asked(
    storage: AudioStorageSystem, meeting: Path
) -> None:
    first = storage.import_transcript(meeting, meeting.with_suffix(".srt"))
    other = put(meeting.parent, "other.srt", SRT.replace("train", "bus"))
    second = storage.import_transcript(meeting, other)
    assert not second.active
    assert storage.search_similar_audio("bus", mode="keyword").total == 0
    third = storage.import_transcript(meeting, other, activate=True)
    assert (third.transcript_id, third.known, third.active) == (second.transcript_id, True, True)
    assert storage.search_similar_audio("bus", mode="keyword").total == 1
    assert not storage.get_transcript(first.transcript_id).active
    never = storage.import_transcript(meeting, put(meeting.parent, "n.srt", SRT + "\n"), activate=False)
    assert not never.active


@pytest.mark.parametrize("name", ["srt", "vtt", "tsv", "json"])
def test_an_export_imported_again_is_the_same_transcript(storage: AudioStorageSystem, meeting: Path, name: str) -> None:
    first = storage.import_transcript(meeting, meeting.with_suffix(".srt"))
    file = put(meeting.parent, f"export.{name}", storage.export(first.audio_id, name))
    second = storage.import_transcript(first.audio_id, file, activate=True)
    assert plain(storage.segments(second.transcript_id)) == plain(storage.segments(first.transcript_id))
    assert storage.export(first.audio_id, "srt") == storage.export(first.audio_id, "srt", first.transcript_id)


def test_times_beyond_the_end_and_endless_cues_are_kept_and_told(storage: AudioStorageSystem, meeting: Path) -> None:
    text = "00:01.000 --> 99:00:00.000\nshown for ever\n\n10:00:00.000 --> 10:00:01.000\nnever heard\n"
    made = storage.import_transcript(meeting, put(meeting.parent, "a.vtt", "WEBVTT\n\n" + text))
    assert "1 cues lie beyond its end" in made.warnings[0]
    ends = [segment.end for segment in storage.segments(made.transcript_id)]
    assert ends == [99 * 3600.0, 36_001.0]
    assert storage.search_similar_audio("heard", mode="keyword").total == 1


def test_a_file_in_which_nothing_is_said_is_silence(storage: AudioStorageSystem, meeting: Path) -> None:
    made = storage.import_transcript(meeting, put(meeting.parent, "a.vtt", "WEBVTT\n\n"))
    assert storage.get_transcript(made.transcript_id).outcome is Outcome.SILENCE


def test_what_cannot_be_read_stores_nothing(storage: AudioStorageSystem, meeting: Path) -> None:
    with pytest.raises(InvalidInput):
        storage.import_transcript(meeting, put(meeting.parent, "a.srt", "nothing"))
    with pytest.raises(NotFound):
        storage.import_transcript(17, meeting.with_suffix(".srt"))
    assert storage.stats()["recordings"] == storage.stats()["transcripts"] == 0


def long_srt(cues: int) -> str:
    def cue(number: int) -> str:
        minutes, seconds = divmod(number * 7 // 4, 60)  # pauses now and then
        clock = f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
        return f"{clock}.000 --> {clock}.900\nword{number} and more\n"

    return "WEBVTT\n\n" + "\n".join(map(cue, range(cues)))


def test_an_import_cut_short_is_finished_by_the_next_without_double_or_gap(
    storage: AudioStorageSystem, meeting: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file, commit, calls = put(tmp_path, "long.vtt", long_srt(1500)), transcripts.commit_window, iter(range(10_000))

    def sometimes(*arguments: Any) -> list[Segment]:
        if next(calls) == 900:
            raise StorageFull(place="here")
        return commit(*arguments)

    monkeypatch.setattr(transcripts, "commit_window", sometimes)
    with pytest.raises(StorageFull):
        storage.import_transcript(meeting, file, generate_embeddings=False)
    version = storage.transcripts(1)[0]
    assert 0 < len(storage.segments(version.id)) < 1500
    made = storage.import_transcript(meeting, file, generate_embeddings=False)
    assert (made.transcript_id, made.known, made.active) == (version.id, False, True)
    texts = [segment.text for segment in storage.segments(version.id)]
    assert texts == [f"word{number} and more" for number in range(1500)]
    other = storage.import_transcript(
        meeting, put(tmp_path, "whole.vtt", long_srt(1500) + "\n"), generate_embeddings=False
    )
    assert passages(storage, other.transcript_id) == passages(storage, version.id)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent differently there")
def test_an_import_killed_is_finished_by_the_same_command(meeting: Path, tmp_path: Path) -> None:
    file, place, cues = put(tmp_path, "long.vtt", long_srt(6000)), tmp_path / "local", 6000
    words = ("transcripts", "import", file, "--audio", meeting, "--no-embeddings", "--archive", place)
    process = start(*words)
    deadline = time.monotonic() + 60
    while not kept(place) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert 0 < kept(place) <= cues
    again = start(*words)
    out, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert out.splitlines()[-1] in ("1 imported", "0 imported, 1 imported before")
    with AudioStorageSystem(place, create=False) as storage:
        (version,) = storage.transcripts(1)
        texts = [segment.text for segment in storage.segments(version.id)]
    assert version.active
    assert texts == [f"word{number} and more" for number in range(cues)]


def kept(place: Path) -> int:
    """How many segments are committed."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"file:{place}/audio_storage.db?mode=ro", uri=True)) as it:
        return int(it.execute("select count(*) from segments").fetchone()[0])
    return 0


def passages(storage: AudioStorageSystem, transcript_id: int) -> list[tuple[Any, ...]]:
    from audio_storage_system.catalogue.passages import of_transcript

    with storage._archive.database.read() as connection:
        return [(item.sequence, item.start, item.end, item.text) for item in of_transcript(connection, transcript_id)]


# --- pairing ---------------------------------------------------------------------------------------------------------


def pairs(folder: Path, *arguments: str, **given: Any) -> dict[str, Any]:
    found = find_pairs(arguments or [str(folder)], folder / "archive", **given)
    return {
        "pairs": [
            (p.transcript.name, p.audio.name if isinstance(p.audio, Path) else p.audio, p.language) for p in found.pairs
        ],
        "failed": [code for _, code, _ in found.failed],
        "alone": [path.name for path in (*found.without_audio, *found.without_transcript)],
        "passed_over": [(path.name, other.name) for path, other in found.passed_over],
    }


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_names_make_pairs(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp3", "a.srt", "b.wav", "b.en.vtt", "b.pt-BR.vtt", "c.m4a", "c.m4a.json", "v1.2.wav", "v1.2.tsv")
    touch(tmp_path, "sub/a.wav", "lonely.srt", "silent.wav", "archive/x.wav", "archive/x.srt", ".hidden.srt")
    found = pairs(tmp_path)
    assert found["pairs"] == [
        ("a.srt", "a.mp3", None),
        ("b.en.vtt", "b.wav", "en"),
        ("b.pt-BR.vtt", "b.wav", "pt"),
        ("c.m4a.json", "c.m4a", None),
        ("v1.2.tsv", "v1.2.wav", None),
    ]
    assert found["alone"] == ["lonely.srt", "silent.wav", "a.wav"]
    assert not found["failed"]


def test_of_all_formats_of_one_transcript_a_folder_gives_the_best_and_names_the_others(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav", "a.srt", "a.json", "a.vtt")
    found = pairs(tmp_path)
    assert found["pairs"] == [("a.json", "a.wav", None)]
    assert found["passed_over"] == [("a.srt", "a.json"), ("a.vtt", "a.json")]
    named = pairs(tmp_path, str(tmp_path / "a.srt"), str(tmp_path / "a.vtt"))
    assert [transcript for transcript, *_ in named["pairs"]] == ["a.srt", "a.vtt"]


def test_what_is_named_and_has_no_partner_or_two_is_a_failure(tmp_path: Path) -> None:
    touch(tmp_path, "a.srt", "b.srt", "b.mp3", "b.wav", "c.docx")
    named = [str(tmp_path / name) for name in ("a.srt", "b.srt", "c.docx", "none.srt", "*.nothing")]
    assert pairs(tmp_path, *named)["failed"] == ["invalid_input", "not_found", "not_found", "no_audio", "ambiguous"]
    assert pairs(tmp_path, named[0], audio=17)["pairs"] == [("a.srt", 17, None)]
    assert pairs(tmp_path, str(tmp_path / "b.mp3"))["failed"] == ["ambiguous"]


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, scripted_engine: object) -> Command:
    return commands(tmp_path / "local", monkeypatch, capsys)


def test_a_folder_is_imported_and_again_and_what_has_no_partner_is_told(run: Command, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    make(folder, "a.wav", "b.wav", "c.wav", "d.wav")
    put(folder, "a.srt", SRT)
    put(folder, "b.de.vtt", "WEBVTT\n\n00:00.000 --> 00:00.900\n<v Ann>Guten Tag\n")
    put(folder, "c.json", "{}")
    put(folder, "alone.srt", SRT)
    dry = run("transcripts", "import", folder, "--dry-run", "--json")
    assert [item["segments"] for item in dry.data["would_import"]] == [2, 1]
    assert not (tmp_path / "local").exists()
    answer = run("transcripts", "import", folder, "--json", "-m", "project=move")
    assert answer.code == 1
    done = {Path(item["transcript"]).name: item for item in answer.data["imported"]}
    assert {name: (item["language"], item["active"]) for name, item in done.items()} == {
        "a.srt": (None, True),
        "b.de.vtt": ("de", True),
    }
    assert [(Path(f["path"]).name, f["code"]) for f in answer.data["failed"]] == [("c.json", "invalid_input")]
    assert [Path(path).name for path in answer.data["without_audio"]] == ["alone.srt"]
    assert [Path(path).name for path in answer.data["without_transcript"]] == ["d.wav"]
    (folder / "c.json").unlink()
    again = run("transcripts", "import", folder)
    assert again.code == 0
    assert again.out.splitlines()[-1].startswith("0 imported, 2 imported before, 1 without a recording, 2 without")
    assert run("metadata", "get", 1, "project").out == "move\n"
    assert run("search", "Guten Tag", "--json").data["hits"][0]["original_name"] == "b.wav"


def test_one_transcript_for_a_named_recording_and_for_a_stored_one(run: Command, tmp_path: Path) -> None:
    (audio,) = make(tmp_path / "audio", "a.wav")
    first, second = put(tmp_path, "one.srt", SRT), put(tmp_path, "two.srt", SRT + "\n")
    assert run("transcripts", "import", first, "--audio-id", 1).code != 0, "there is no archive yet"
    assert run("transcripts", "import", first, "--audio", audio, "--json").data["imported"][0]["active"]
    answer = run("transcripts", "import", second, "--audio-id", 1, "--activate", "--json")
    assert answer.data["imported"][0]["transcript_id"] == 2
    assert [v["active"] for v in run("transcripts", "list", 1, "--json").data["transcripts"]] == [False, True]
    missing = run("transcripts", "import", second, "--audio-id", 7, "--json")
    assert missing.data["failed"][0]["code"] == "not_found"
    assert run("transcripts", "import", first, "--audio", audio, "--audio-id", 1).code == 2


def test_the_limit_of_a_transcript_is_stated() -> None:
    assert reading.MAX_BYTES == 64 << 20
