"""The commands, in this process: what they print, what they leave, how they exit. Words are heard by a scripted engine
except where meaning matters."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from audio_storage_system import AudioStorageSystem
from audio_storage_system.errors import StorageFull
from audio_storage_system.testing.scripted import ScriptedTranscriber
from batch import Command

pytestmark = pytest.mark.usefixtures("scripted_engine")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "archive"


# add


def test_add_stores_transcribes_and_says_so(run: Command, note: Path, home: Path) -> None:
    answer = run("add", note, "--json", "-m", "user=john", "-m", "session=1", "-m", 'code="1"')
    (added,) = answer.data["added"]
    assert answer.code == 0
    assert added["audio_id"] == 1
    assert added["original_name"] == "voice_note.flac"
    assert added["path"] == str(note)
    assert not added["duplicate"]
    assert added["outcome"] == "ok"
    assert "[1/1] voice_note.flac: transcribed" in answer.err
    with AudioStorageSystem(home, create=False) as storage:
        assert storage.get_recording(1).metadata == {"user": "john", "session": 1, "code": "1"}
        assert {space["embeddings"] > 0 for space in storage.stats()["spaces"]} == {True}


def test_adding_again_skips_what_is_stored(run: Command, note: Path) -> None:
    run("add", note)
    answer = run("add", note)
    assert answer.code == 0
    assert "voice_note.flac  transcribed (stored before)" in answer.out
    assert "0 added, 1 stored before" in answer.out


def test_add_goes_on_after_a_bad_file_and_says_at_the_end_what_failed(run: Command, note: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.wav").write_bytes(b"")
    shutil.copy(note, folder / "b.flac")
    (folder / "list.txt").write_text("nothing to hear")
    (folder / "unknown.bin").write_bytes(b"nothing to hear either")
    answer = run("add", folder, tmp_path / "missing.wav", "--json")
    assert answer.code == 1
    assert [added["original_name"] for added in answer.data["added"]] == ["b.flac"]
    assert [(Path(f["path"]).name, f["code"]) for f in answer.data["failed"]] == [
        ("missing.wav", "not_found"),
        ("a.wav", "not_audio"),
    ]
    assert answer.data["ignored"] == 2
    last_lines = answer.err.strip().splitlines()[-2:]
    assert all(line.startswith("Failed: ") for line in last_lines)


def test_a_folder_without_audio_is_a_clear_failure_and_makes_no_archive(
    run: Command, tmp_path: Path, home: Path
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").touch()
    answer = run("add", tmp_path / "in")
    assert answer.code == 1
    assert "There is no audio in the folder" in answer.err
    assert not home.exists()


def test_a_file_that_is_not_there_fails_and_makes_no_archive(run: Command, home: Path) -> None:
    answer = run("add", "nowhere.wav", "--json")
    assert answer.code == 1
    assert answer.data["failed"][0]["message"] == "There is no file nowhere.wav"
    assert not home.exists()


def test_no_transcribe_stores_the_sound_alone(run: Command, note: Path) -> None:
    added = run("add", note, "--no-transcribe", "--recorded-at", "2026-11-22T12:00:00+01:00", "--json").data["added"][0]
    assert added["outcome"] is None
    shown = run("show", 1, "--json").data
    assert shown["transcripts"] == []
    assert shown["recorded_at"].startswith("2026-11-22T11:00:00")


def test_on_duplicate_decides_about_metadata(run: Command, note: Path) -> None:
    run("add", note, "--no-transcribe", "-m", "user=john")
    run("add", note, "--no-transcribe", "-m", "user=ann")
    assert run("metadata", "get", 1, "user").out == "john\n"
    run("add", note, "--no-transcribe", "-m", "user=ann", "--on-duplicate", "update")
    assert run("metadata", "get", 1, "user").out == "ann\n"
    answer = run("add", note, "--no-transcribe", "--on-duplicate", "error", "--json")
    assert answer.code == 1
    assert answer.data["failed"][0]["code"] == "duplicate_recording"


def test_a_failed_transcription_keeps_the_sound_and_names_it(run: Command, note: Path, monkeypatch: Any) -> None:
    def fail(window: object) -> None:
        raise MemoryError("too much")

    monkeypatch.setattr(ScriptedTranscriber, "before", fail)
    answer = run("add", note, "--json")
    (failed,) = answer.data["failed"]
    assert answer.code == 1
    assert failed["code"] == "transcription_failed"
    assert failed["audio_id"] == 1
    assert failed["retryable"]
    monkeypatch.setattr(ScriptedTranscriber, "before", None)
    assert run("add", note, "--json").data["added"][0]["outcome"] == "ok"


def test_a_full_disk_ends_the_run_with_its_own_exit_code(
    run: Command, note: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    def full(*_: object, **__: object) -> None:
        raise StorageFull(place="here")

    for name in ("a", "b", "c"):
        shutil.copy(note, tmp_path / f"{name}.flac")
    monkeypatch.setattr(AudioStorageSystem, "add", full)
    answer = run("add", tmp_path / "*.flac", "--jobs", 1, "--json")
    assert answer.code == StorageFull.exit_code
    assert [failed["code"] for failed in answer.data["failed"]] == ["storage_full"]
    assert "Stopped" in answer.err


def test_several_files_are_worked_on_at_once(run: Command, demo: Path) -> None:
    answer = run("add", demo, "--jobs", 3, "--json")
    assert [added["original_name"] for added in answer.data["added"]] == [
        "call.flac",
        "meeting.flac",
        "voice_note.flac",
    ]
    assert sorted(added["audio_id"] for added in answer.data["added"]) == [1, 2, 3]


# search


@pytest.fixture
def spoken(run: Command, note: Path, demo: Path) -> Command:
    """An archive with two recordings in which `scripted` has heard something."""
    run("add", note, "-m", "kind=note", "-m", "n=1")
    run("add", demo / "call.flac", "-m", "kind=call", "-m", "n=2")
    return run


def test_search_answers_as_documented(spoken: Command) -> None:
    answer = spoken("search", "spoken second", "--json")
    data = answer.data
    assert answer.code == 0
    assert (data["query"], data["mode"], data["total"]) == ("spoken second", "hybrid", 2)
    hit = data["hits"][0]
    assert {"audio_id", "original_name", "start", "end", "transcription", "similarity", "score"} <= hit.keys()
    assert "is spoken" in hit["transcription"]


def test_hits_for_people_show_file_time_and_text(spoken: Command) -> None:
    out = spoken("search", "spoken", "--where", "kind=note").out
    assert "voice_note.flac  00:00–00:11" in out
    assert "second 0 is spoken" in out
    assert "call.flac" not in out


@pytest.mark.parametrize("condition", ["kind=call", "n>1", "n in 2,3", "original_name=call.flac", "duration>15"])
def test_conditions_limit_a_search(spoken: Command, condition: str) -> None:
    hits = spoken("search", "spoken", "--where", condition, "--json").data["hits"]
    assert [hit["original_name"] for hit in hits] == ["call.flac"]


def test_search_by_example_finds_what_sounds_alike(spoken: Command, note: Path) -> None:
    hits = spoken("search", "--like", note, "--json").data["hits"]
    assert hits[0]["original_name"] == "voice_note.flac"
    assert hits[0]["similarity"] > hits[-1]["similarity"]


def test_pack_gives_text_with_citations(spoken: Command) -> None:
    data = spoken("search", "spoken", "--pack", "--max-tokens", 500, "--json").data
    assert data["citations"][0]["number"] == 1
    assert data["text"].startswith("[1] ")
    assert spoken("search", "spoken", "--pack", "--max-tokens", 500).out.strip() == data["text"]


def test_nothing_found_is_no_error(spoken: Command) -> None:
    answer = spoken("search", "zebra", "--mode", "keyword")
    assert (answer.code, answer.out) == (0, "")
    assert "Nothing found" in answer.err


@pytest.mark.parametrize("arguments", [[], ["x", "--like", "y"], ["--pack", "--like", "y"]])
def test_a_search_for_nothing_or_for_two_things_is_refused(spoken: Command, arguments: list[str]) -> None:
    assert spoken("search", *arguments).code == 2


def test_a_deadline_ends_a_search(spoken: Command) -> None:
    answer = spoken("search", "spoken", "--deadline", 0, "--json")
    assert answer.code == 8
    assert answer.data["error"]["code"] == "deadline_exceeded"


# list, show, export, transcripts


def test_list_shows_recordings_with_what_search_follows(spoken: Command) -> None:
    (call, note) = spoken("list", "--json").data["recordings"]
    assert (call["original_name"], note["original_name"]) == ("call.flac", "voice_note.flac")
    assert call["transcript"]["engine"] == "scripted"
    assert note["metadata"] == {"kind": "note", "n": 1}
    assert [r["audio_id"] for r in spoken("list", "--where", "n<2", "--json").data["recordings"]] == [1]
    assert [r["audio_id"] for r in spoken("list", "--limit", 1, "--offset", 1, "--json").data["recordings"]] == [1]
    assert "kind=note n=1" in spoken("list").out


def test_the_fallback_is_shown_in_listings(run: Command, note: Path) -> None:
    run("init", "--transcriber-fallback", "scripted")
    run("add", note, "--whisper-model", "base")
    assert "ok [fallback]" in run("list").out
    assert "fallback" in run("list", "--json").data["recordings"][0]["transcript"]["flags"]


def test_show_gives_facts_versions_and_what_is_said(spoken: Command) -> None:
    shown = spoken("show", 1, "--json").data
    assert shown["original_name"] == "voice_note.flac"
    assert shown["transcripts"][0]["active"]
    assert "is spoken" in shown["segments"][0]["text"]
    assert "flac, 16000 Hz, 1 channel(s)" in spoken("show", 1).out


def test_export_prints_one_file(spoken: Command) -> None:
    out = spoken("export", 1, "--format", "srt").out
    assert out.startswith("1\n00:00:00,")
    assert "is spoken" in out


def test_export_writes_every_format_and_replaces_nothing_unasked(spoken: Command, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    assert spoken("export", 1, 2, "--format", "all").code == 2
    exports = spoken("export", 1, 2, "--format", "all", "-o", folder, "--json").data["exports"]
    assert len(exports) == 10
    names = {path.name for path in folder.iterdir()}
    assert {"voice_note.srt", "voice_note.json", "call.vtt", "call.txt", "call.tsv"} <= names
    assert spoken("export", 1, "-f", "txt", "-o", folder).code == 5
    assert spoken("export", 1, "-f", "txt", "-o", folder, "--force").code == 0


def test_recordings_of_one_name_become_two_files(spoken: Command, demo: Path, tmp_path: Path) -> None:
    shutil.copy(demo / "meeting.flac", tmp_path / "call.flac")
    spoken("add", tmp_path / "call.flac")
    spoken("export", 2, 3, "-f", "txt", "-o", tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"call.txt", "call-3.txt"}


def test_an_unknown_format_names_the_known_ones(spoken: Command) -> None:
    answer = spoken("export", 1, "-f", "docx", "--json")
    assert answer.code == 2
    assert "srt, vtt, txt, tsv, json" in answer.data["error"]["message"]


def test_versions_are_made_listed_shown_and_switched(spoken: Command) -> None:
    made = spoken("retranscribe", 1, "--whisper-model", "scripted:aloud", "--json")
    assert made.code == 0
    new = made.data["transcribed"][0]["transcript_id"]
    assert spoken("search", "aloud", "--mode", "keyword", "--json").data["total"] == 1
    versions = spoken("transcripts", "list", 1, "--json").data["transcripts"]
    assert [(v["transcript_id"], v["active"]) for v in versions] == [(1, False), (new, True)]
    assert spoken("transcripts", "activate", 1, "--json").data["active"]
    assert spoken("search", "aloud", "--mode", "keyword", "--json").data["total"] == 0
    assert "aloud" in spoken("transcripts", "show", new).out


def test_retranscribe_by_condition_takes_those_recordings(spoken: Command) -> None:
    made = spoken("retranscribe", "--where", "kind=call", "--whisper-model", "scripted:again", "--json").data
    assert [one["audio_id"] for one in made["transcribed"]] == [2]
    assert spoken("retranscribe").code == 2


def test_retranscribe_lets_nothing_stand_in(spoken: Command) -> None:
    answer = spoken("retranscribe", 1, 2, "--whisper-model", "base", "--jobs", 1, "--json")
    assert answer.code == 1
    assert answer.data["transcribed"] == []
    assert [failed["outcome"] for failed in answer.data["failed"]] == ["engine_unavailable"]


def test_retranscribe_gives_what_has_no_transcript_one_even_by_the_fallback(run: Command, note: Path) -> None:
    run("init", "--transcriber-fallback", "scripted")
    run("add", note, "--no-transcribe")
    made = run("retranscribe", 1, "--whisper-model", "base", "--json").data["transcribed"]
    assert [one["outcome"] for one in made] == ["ok"]
    assert run("retranscribe", 1, "--whisper-model", "base", "--json").data["transcribed"] == []


def test_a_model_that_does_not_exist_ends_the_run(run: Command, demo: Path) -> None:
    answer = run("add", demo, "--whisper-model", "nonsense", "--jobs", 1, "--json")
    assert answer.code == 2
    assert [failed["code"] for failed in answer.data["failed"]] == ["unknown_spec"]
    assert "faster-whisper, openai, pocketsphinx" in answer.err


# metadata, rm, the archive


def test_metadata_is_set_read_and_taken_away(spoken: Command) -> None:
    assert spoken("metadata", "set", 1, "user=ann", "n=3", "--json").data["metadata"] == {
        "kind": "note",
        "user": "ann",
        "n": 3,
    }
    assert spoken("metadata", "unset", 1, "user", "nothing", "--json").data["metadata"] == {"kind": "note", "n": 3}
    assert spoken("metadata", "get", 1).out == "kind=note\nn=3\n"
    assert spoken("metadata", "get", 1, "user").code == 4


def test_rm_asks_and_leaves_a_receipt(spoken: Command, home: Path) -> None:
    assert spoken("rm", 1, "--for-good").code == 2  # nobody can be asked here
    assert spoken("list", "--json").data["recordings"][1]["audio_id"] == 1
    (receipt,) = spoken("rm", 1, "--for-good", "--yes", "--json").data["deleted"]
    assert receipt["audio_id"] == 1
    assert receipt["rows"]["segments"] > 0
    assert not (home / receipt["keys"][0]).exists()
    assert spoken("show", 1, "--json").data["error"]["code"] == "not_found"


def test_stats_count(spoken: Command) -> None:
    numbers = spoken("stats", "--json").data
    assert (numbers["recordings"], numbers["outcomes"]) == (2, {"ok": 2})
    assert "recordings  2" in spoken("stats").out


def test_reindex_says_what_it_indexed(spoken: Command) -> None:
    states = spoken("reindex", "--json").data
    assert all(state["indexed"] == state["total"] > 0 for state in states.values())
    assert spoken("search", "spoken", "--json").data["total"] == 2


def test_init_keeps_its_settings_in_the_archive(run: Command, home: Path, note: Path) -> None:
    made = run("init", "--sidecars", "--language", "en", "--json").data
    assert made["created"]
    assert made["settings"] == {"sidecars": True, "language": "en"}
    assert (home / "audio-storage.toml").read_text() == 'language = "en"\nsidecars = true\n'
    run("add", note)
    assert list((home / "transcripts").rglob("*.json"))


def test_init_of_what_exists_changes_nothing(run: Command, home: Path) -> None:
    run("init")
    before = (home / "metadata.json").read_text()
    again = run("init", "--json")
    assert (again.code, again.data["created"]) == (0, False)
    assert run("init", "--sidecars").code == 5
    assert (home / "metadata.json").read_text() == before


def test_init_with_an_unknown_embedder_names_those_that_exist_and_can_be_tried_again(run: Command) -> None:
    answer = run("init", "--text-embedder", "nonsense", "--json")
    assert answer.code == 2
    assert "wordllama" in answer.data["error"]["message"]
    assert run("init", "--text-embedder", "wordllama", "--json").data["created"]


def test_doctor_looks_at_everything(run: Command, home: Path) -> None:
    checks = run("doctor", "--json").data["checks"]
    areas = {check["area"] for check in checks}
    assert areas == {
        *(
            "transcriber",
            "text embedder",
            "audio embedder",
            "backend",
            "microphone",
            "gpu",
            "decoder",
            "disk",
            "archive",
        ),
    }
    assert all(check["remedy"] for check in checks if not check["usable"] and check["area"] in ("transcriber",))
    assert not home.exists()


def test_doctor_says_whether_a_key_is_set_but_never_which(run: Command, monkeypatch: Any) -> None:
    assert "OPENAI_API_KEY is not set" in run("doctor").out
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    answer = run("doctor")
    assert "OPENAI_API_KEY is set" in answer.out
    assert "very-secret" not in answer.out + answer.err


def test_doctor_reports_an_archive_that_cannot_be_used(run: Command, home: Path) -> None:
    run("init")
    (home / "metadata.json").write_text("{}")
    answer = run("doctor", "--json")
    assert answer.code == 1
    assert [check["usable"] for check in answer.data["checks"] if check["area"] == "archive"] == [False]


def test_models_lists_specs_that_can_be_used_as_they_are(run: Command) -> None:
    models = {model["spec"]: model for model in run("models", "--json").data["models"]}
    assert models["faster-whisper:base"]["megabytes"] == 145
    assert models["faster-whisper:large-v3-turbo"]["megabytes"] == 1620
    assert models["wordllama"]["here"]
    assert models["pocketsphinx"]["here"]
    assert "fastembed:sentence-transformers/all-MiniLM-L6-v2" in models


# init


@pytest.mark.parametrize(
    "bad",
    [
        ("--vectors", "nonsense:there"),
        ("--vectors", "pinecone:"),
        ("--vectors", "qdrant+http://nobody:secret@localhost"),
        ("--blobs", "nonsense://there"),
        ("--text-embedder", "nonsense"),
        ("--audio-embedder", "nonsense"),
        ("--transcriber", "nonsense:large"),
        ("--transcriber-fallback", "nonsense"),
        ("--compress", "mp3"),
        ("--partition", "year"),
        ("--key-source", "nonsense"),
        ("--key-file", "/dev/null/key"),
    ],
)
def test_an_archive_that_cannot_be_made_leaves_nothing(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: tuple[str, str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    options = ("--encrypt", "--accept-plaintext-catalogue", "--language", "en", "--archive", tmp_path / "far" / "a")
    answer = run("init", *bad, *options)
    assert answer.code in (2, 5) and answer.err.startswith("Error"), answer
    assert "secret" not in answer.err
    assert list(tmp_path.iterdir()) == []
    assert run("init", *options).code == 0, "as if nothing had been"
