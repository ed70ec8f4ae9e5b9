"""Verifying the files of an archive, and what random damage ends in."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import audio_storage_system
from audio_storage_system import AudioStorageSystem
from audio_storage_system.archive.opening import bring_in_order
from audio_storage_system.cli.app import main
from audio_storage_system.clock import utc_now
from audio_storage_system.errors import InvalidInput, NotFound
from audio_storage_system.integrity import Severity
from audio_storage_system.pipeline import adopt_orphans
from audio_storage_system.testing import scripted
from audio_storage_system.transcribers import TRANSCRIBERS
from damages import TRUTH, blob_of, everything, found, harm

pytestmark = pytest.mark.usefixtures("scripted_engine", "quickly")


def test_files_that_are_gone_cut_or_changed_are_named(filled: AudioStorageSystem) -> None:
    first, second = blob_of(filled, 1), blob_of(filled, 2)
    content = bytearray(first.read_bytes())
    content[len(content) // 2] ^= 1
    first.write_bytes(content)
    second.write_bytes(second.read_bytes()[:-1])
    assert [(f.what, f.ids) for f in found(filled.verify(), "files")] == [
        ("their files have another size than they were stored with", (2,))
    ]
    second.unlink()
    done = filled.verify(deep=True, repair=True)
    assert {(f.what, f.ids) for f in found(done, "files")} == {
        ("their files have other bytes than they were stored with", (1,)),
        ("their files are missing", (2,)),
    }
    assert not done.clean and not any(f.repaired for f in found(done, "files"))
    assert found(filled.verify(deep=True, after=1), "files")[0].ids == (2,)


def test_a_file_behind_a_planted_link_is_not_followed(filled: AudioStorageSystem, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(blob_of(filled, 1).read_bytes())
    blob_of(filled, 1).unlink()
    blob_of(filled, 1).symlink_to(secret)
    [finding] = found(filled.verify(deep=True), "files")
    assert "behind a link" in finding.what and finding.ids == (1,)


def test_files_without_a_recording_are_named(filled: AudioStorageSystem, demo: Path) -> None:
    stray = filled.home / "audio_files" / "2026" / "stray.wav"
    stray.parent.mkdir(parents=True, exist_ok=True)
    stray.write_bytes(b"not ours")
    [finding] = found(filled.verify(), "orphans")
    assert finding.ids == ("audio_files/2026/stray.wav",) and finding.severity is Severity.WARNING


def test_files_of_no_recording_are_moved_aside_and_put_back(filled: AudioStorageSystem, demo: Path) -> None:
    audio, derived = (
        "audio_files/2026/11/audio_20261122_120000.flac",
        "transcripts/2026/11/transcript_20200101_120000.json",
    )
    young = "audio_files/2026/11/audio_20261122_130000.flac"
    for key in (audio, derived, young):
        place = filled.home / key
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes((demo / "meeting.flac").read_bytes())
        if key != young:
            os.utime(place, (1, 1))
    before = len(filled.list_recordings())
    done = filled.verify(repair=True)
    [finding] = found(done, "orphans")
    assert finding.ids == (young,) and not finding.repaired, "it may be being stored"
    os.utime(filled.home / young, (1, 1))
    assert filled.verify(repair=True).clean and filled.verify().findings == ()
    kept = {key.split("/", 2)[2]: key for key in filled.quarantine.list()}
    assert kept.keys() == {audio, derived, young} and not (filled.home / audio).exists()
    bring_in_order(filled._archive)
    adopt_orphans(filled._archive.database, filled._archive.blobs, owner_id=1)
    assert len(filled.list_recordings()) == before, "what is in quarantine is no recording"
    assert filled.quarantine.restore(kept[audio]) == audio
    assert {one.file_path for one in filled.list_recordings()} >= {audio}
    filled.quarantine.restore(kept[young])
    assert len(filled.list_recordings()) == before + 1, "the same bytes are one recording"
    assert filled.quarantine.list() == [kept[derived]] and found(filled.verify(), "orphans") == []
    for bad in ("metadata.json", "quarantine/20261122/metadata.json", "quarantine/x/audio_files/../../metadata.json"):
        with pytest.raises((InvalidInput, NotFound)):
            filled.quarantine.restore(bad)


def test_the_quarantine_on_the_command_line(filled: AudioStorageSystem, capsys: pytest.CaptureFixture[str]) -> None:
    key = "quarantine/20261122/copies/2026/x.flac"
    filled._archive.blobs.put(key, b"stray")
    at = ["--archive", str(filled.home), "--json"]
    assert main(["quarantine", "list", *at]) == 0
    assert json.loads(capsys.readouterr().out) == {"quarantine": [key]}
    assert main(["quarantine", "restore", key, *at]) == 0
    assert json.loads(capsys.readouterr().out) == {"restored": {key: "copies/2026/x.flac"}}
    assert filled.quarantine.list() == []
    assert main(["quarantine", "restore", "audio_files/x", *at]) != 0
    capsys.readouterr()
    filled._archive.blobs.put("quarantine/20251122/copies/2026/x.flac", b"stray")
    os.utime(filled.home / "quarantine/20251122/copies/2026/x.flac", (1.7e9, 1.7e9))
    filled._archive.blobs.put(f"quarantine/{utc_now():%Y%m%d}/copies/y.flac", b"stray")
    assert main(["quarantine", "empty", *at]) == 0
    assert json.loads(capsys.readouterr().out) == {"removed": ["quarantine/20251122/copies/2026/x.flac"]}
    assert main(["quarantine", "empty", "--older-than", "0", *at]) == 0
    assert json.loads(capsys.readouterr().out) == {"removed": []}, "the day is not over"
    assert main(["quarantine", "empty", "--older-than", "-1", *at]) == 2


def test_a_deletion_cut_short_is_finished(filled: AudioStorageSystem) -> None:
    path = blob_of(filled, 2)
    content = path.read_bytes()
    filled.delete(2)
    path.write_bytes(content)
    harm(filled, "UPDATE tombstones SET completed = (1 = 0)")
    [finding] = filled.verify().findings
    assert finding.check == "unfinished deletions" and finding.ids == (2,)
    assert filled.verify(repair=True).clean and not path.exists()
    assert filled.verify().findings == ()


def test_a_lost_marker_is_written_again(filled: AudioStorageSystem) -> None:
    marker = filled.home / "metadata.json"
    before = json.loads(marker.read_text())
    marker.unlink()
    [finding] = filled.verify().findings
    assert finding.check == "marker" and finding.repairable
    assert filled.verify(repair=True).clean
    assert json.loads(marker.read_text()) == before
    marker.write_text("{")
    assert filled.verify(repair=True).clean
    assert json.loads(marker.read_text()) == before


def test_the_marker_of_another_archive_is_never_overwritten(filled: AudioStorageSystem) -> None:
    marker = filled.home / "metadata.json"
    other = marker.read_text().replace(json.loads(marker.read_text())["archive_id"], "0" * 36)
    marker.write_text(other)
    [finding] = filled.verify(repair=True).findings
    assert finding.check == "marker" and finding.severity is Severity.ERROR and not finding.repaired
    assert marker.read_text() == other


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed archive on SQLite, to be copied and damaged."""
    home, demo = tmp_path_factory.mktemp("verify") / "archive", Path(audio_storage_system.__file__).parent / "demo"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(cast(dict[str, str], TRANSCRIBERS.builtin), scripted.SPEC, scripted.FACTORY)
        with AudioStorageSystem(home, transcriber="scripted", sidecars=True) as storage:
            storage.add(demo / "call.flac", metadata={"rank": 3, "when": 1.5, "none": None})
            storage.add(demo / "voice_note.flac", metadata={"seen": True})
    return home


COLUMNS = [
    *(("transcripts", "outcome"), ("transcripts", "transcription"), ("segments", "text"), ("segments", "sequence")),
    *(("passages", "text"), ("passages", "sequence"), ("passages", "owner_id"), ("embeddings", "embedding_dimension")),
    *(("embeddings", "model_name"), ("metadata", "value"), ("metadata", "value_type"), ("metadata", "value_number")),
    *(("audio_files", "file_hash"), ("audio_files", "file_size"), ("audio_files", "file_path")),
    *(("passages_fts", "words"), ("index_cursors", "position"), ("embedding_spaces", "active")),
]
VALUES = st.sampled_from(["0", "1", "7", "-1", "NULL", "'x'", "''", "'ok'", "x'00'", "1e400", "'['"])
DAMAGE = st.lists(st.tuples(st.sampled_from(COLUMNS), VALUES, st.booleans()), min_size=1, max_size=4)
GONE = st.lists(st.sampled_from(["segments", "passages", "embeddings", "metadata", "passages_fts"]), max_size=2)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=DAMAGE, gone=GONE, files=st.sampled_from(["", "marker", "cut", "stray"]))
def test_random_damage_is_never_repaired_into_loss(
    template: Path, tmp_path_factory: pytest.TempPathFactory, changes: list[Any], gone: list[str], files: str
) -> None:
    home = tmp_path_factory.mktemp("damaged") / "archive"
    shutil.copytree(template, home)
    damage(home, changes, gone, files)
    with AudioStorageSystem(home, transcriber="scripted") as storage:
        before, audio = everything(storage), sounds(home)
        done = storage.verify(deep=True, repair=True)
        after = everything(storage)
        for table in TRUTH:
            if table == "embeddings":  # what is no vector may go: it is made again
                assert set(after[table]) <= set(before[table])
                assert len(after[table]) == len(before[table]) or found(done, "vectors")
            elif table == "metadata":  # the number follows from the value
                assert [row[:4] for row in after[table]] == [row[:4] for row in before[table]]
            else:
                assert after[table] == before[table]
        assert sounds(home) == audio
    shutil.rmtree(home.parent)


def damage(home: Path, changes: list[Any], gone: list[str], files: str) -> None:
    with closing(sqlite3.connect(home / "audio_storage.db")) as file:
        for (table, column), value, every in changes:
            with contextlib.suppress(sqlite3.IntegrityError):
                where = "" if every else " WHERE rowid = 1"
                file.execute(f"UPDATE {table} SET {column} = {value}{where}")  # noqa: S608
        for table in gone:
            file.execute(f"DELETE FROM {table} WHERE rowid = 1")  # noqa: S608
        file.commit()
    sound = next((home / "audio_files").rglob("*.flac"))
    if files == "marker":
        (home / "metadata.json").unlink()
    elif files == "cut":
        sound.write_bytes(sound.read_bytes()[:-10])
    elif files == "stray":
        (sound.parent / "stray.wav").write_bytes(b"stray")


def sounds(home: Path) -> dict[str, bytes]:
    """Every file of audio, wherever it was put."""
    return {path.name: path.read_bytes() for path in home.rglob("*") if path.suffix in (".flac", ".wav")}
