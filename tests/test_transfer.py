"""Copying an archive: the copy equals the original, whatever happens on the way."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from audio_storage_system import AudioStorageSystem, copy_archive
from audio_storage_system.errors import (
    ArchiveDamaged,
    ArchiveMismatch,
    ArchiveNotFound,
    Conflict,
    InvalidInput,
    NewerFormat,
)
from audio_storage_system.transfer import CopyProgress
from copying import answers, content, files, fill, scripted, sound, written

pytestmark = pytest.mark.usefixtures("scripted_engine")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive with three recordings, one of them with two versions, and one that was deleted."""
    folder = tmp_path_factory.mktemp("template")
    with scripted():
        fill(folder / "original", folder, 4)
        with AudioStorageSystem(folder / "original", transcriber="scripted") as storage:
            again = storage.generate_transcript(2, whisper_model="scripted:again")
            storage.generate_embeddings(2, again)
            storage.delete(3)
    return folder / "original"


@pytest.fixture
def original(template: Path, tmp_path: Path) -> Path:
    """The template, for one test."""
    shutil.copytree(template, tmp_path / "original")
    return tmp_path / "original"


def opened(home: Path | str) -> AudioStorageSystem:
    return AudioStorageSystem(home, create=False, transcriber="scripted")


def sql(home: Path, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(home / "audio_storage.db")) as connection:
        rows = connection.execute(statement, values).fetchall()
        connection.commit()
        return rows


# What is copied


def test_a_copy_holds_and_says_the_same(original: Path, tmp_path: Path) -> None:
    report = copy_archive(original, tmp_path / "copy")
    assert report.complete and report.problems == []
    assert report.blobs_copied == report.blobs_verified == 3
    assert report.bytes_copied == sum(path.stat().st_size for path in (original / "audio_files").rglob("*.wav"))
    assert {name: (c.source, c.destination) for name, c in report.tables.items()}["audio_files"] == (3, 3)
    assert content(tmp_path / "copy") == content(original)
    assert answers(tmp_path / "copy") == answers(original)


def test_running_it_again_writes_nothing(original: Path, tmp_path: Path) -> None:
    copy_archive(original, tmp_path / "copy")
    before = files(tmp_path / "copy")
    with written() as statements:
        report = copy_archive(original, tmp_path / "copy")
    assert statements == [] and files(tmp_path / "copy") == before
    assert report.complete and report.rows_copied == report.blobs_copied == 0


def test_nothing_is_written_to_the_source(original: Path, tmp_path: Path) -> None:
    before, held = files(original), content(original)
    copy_archive(original, tmp_path / "copy")
    assert files(original) == before and content(original) == held


def test_a_copy_is_brought_up_to_date(original: Path, tmp_path: Path) -> None:
    copy_archive(original, tmp_path / "copy")
    with opened(original) as storage:
        storage.add(sound(tmp_path / "new.wav", 99), metadata={"seed": 99})
        storage.set_metadata(1, {"seed": "changed", "more": 1.5})
        storage.remove_metadata(1, "even")
        storage.activate_transcript(2)
        storage.delete(4)
    report = copy_archive(original, tmp_path / "copy")
    assert report.complete and report.deleted == 1 and report.blobs_copied == 1
    assert content(tmp_path / "copy") == content(original)
    assert answers(tmp_path / "copy") == answers(original)
    assert not list((tmp_path / "copy" / "audio_files").rglob("*-4.wav"))


def test_the_active_version_and_the_space_in_use_move_along(original: Path, tmp_path: Path) -> None:
    copy_archive(original, tmp_path / "copy")
    with opened(original) as storage:
        storage.use_embedder(letters, name="letters")
        for said in (1, 2, 4):
            storage.generate_transcript(said, whisper_model="scripted:third")
            storage.generate_embeddings(said)
    assert copy_archive(original, tmp_path / "copy").complete
    assert content(tmp_path / "copy") == content(original)
    with opened(tmp_path / "copy") as copied:
        copied.use_embedder(letters, name="letters")
        assert copied.search_similar_audio("third", mode="semantic").total == 3
    assert content(tmp_path / "copy") == content(original)  # using the function opened no other space


def letters(text: str) -> list[float]:
    return [1.0 + text.count(letter) for letter in "aeiou"]


def test_new_recordings_in_a_finished_copy_get_new_ids(original: Path, tmp_path: Path) -> None:
    copy_archive(original, tmp_path / "copy")
    with opened(tmp_path / "copy") as copied, opened(original) as storage:
        new = sound(tmp_path / "new.wav", 99)
        assert int(copied.add(new)) == int(storage.add(new)) == 5


@pytest.mark.parametrize("on", ["sqlite", "postgresql"])
def test_an_id_of_something_deleted_is_not_given_again(
    on: str, original: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with opened(original) as storage:
        storage.delete(4)  # the newest
    copy = tmp_path / "copy"
    if on == "postgresql":
        copy = OnServer.at(request.getfixturevalue("postgres_url"), copy).place
    copy_archive(original, copy)
    with opened(copy) as copied:
        assert copied.add(sound(tmp_path / "new.wav", 99)) > 4
    assert copy_archive(copy, tmp_path / "back").complete
    assert content(tmp_path / "back") == content(copy)


def test_progress_ends_at_all_there_is(original: Path, tmp_path: Path) -> None:
    told: list[CopyProgress] = []
    report = copy_archive(original, tmp_path / "copy", progress=told.append)
    assert told[-1].recordings == told[-1].of_recordings == 3
    assert told[-1].bytes == told[-1].of_bytes == report.bytes_copied
    assert {"recordings", "segments", "embeddings"} <= {one.stage for one in told}


def test_an_empty_archive_can_be_copied(tmp_path: Path) -> None:
    AudioStorageSystem(tmp_path / "a").close()
    assert copy_archive(tmp_path / "a", tmp_path / "b").complete
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_metadata_changed_by_ones_own_sql_is_copied(original: Path, tmp_path: Path) -> None:
    copy_archive(original, tmp_path / "copy")
    sql(original, "DELETE FROM metadata WHERE audio_file_id = 1 AND key = 'seed'")
    sql(original, "INSERT INTO metadata (audio_file_id, key, value, value_type) VALUES (2, 'user', 'john', 'text')")
    assert copy_archive(original, tmp_path / "copy").complete
    assert content(tmp_path / "copy") == content(original)


# Deletions


def test_what_is_deleted_at_the_copy_stays_so_and_stays_at_the_source(original: Path, tmp_path: Path) -> None:
    copy_archive(original, tmp_path / "copy")
    with opened(tmp_path / "copy") as copied:
        copied.delete(2)
    for _ in range(2):
        report = copy_archive(original, tmp_path / "copy")
        assert report.complete and report.kept_deleted == 1 and report.rows_copied == 0
    assert 2 not in [row[0] for row in content(tmp_path / "copy")["audio_files"]]
    assert 2 in [row[0] for row in content(original)["audio_files"]]


def test_bytes_brought_by_a_copy_cut_short_go_when_the_source_deletes_them(original: Path, tmp_path: Path) -> None:
    copy_archive(original, tmp_path / "copy")
    with opened(original) as storage:
        added = storage.store_audio_file(sound(tmp_path / "new.wav", 99))
        key = storage.get_recording(added).file_path
        (tmp_path / "copy" / key).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(original / key, tmp_path / "copy" / key)  # as if killed between the bytes and the row
        storage.delete(added)
    assert copy_archive(original, tmp_path / "copy").complete
    assert not (tmp_path / "copy" / key).exists()
    assert content(tmp_path / "copy") == content(original)


def test_a_name_freed_by_a_deletion_goes_to_the_new_recording(tmp_path: Path) -> None:
    moment = datetime(2026, 11, 22, 12, tzinfo=UTC)
    home = tmp_path / "a"
    with AudioStorageSystem(home) as storage:
        first = storage.store_audio_file(sound(tmp_path / "1.wav", 1), recorded_at=moment)
    copy_archive(home, tmp_path / "b")
    with AudioStorageSystem(home) as storage:
        storage.delete(first)
        storage.store_audio_file(sound(tmp_path / "2.wav", 2), recorded_at=moment)
    assert copy_archive(home, tmp_path / "b").complete
    assert content(tmp_path / "b") == content(home)


# Damage


def test_damaged_audio_is_reported_and_the_rest_is_copied(original: Path, tmp_path: Path) -> None:
    with opened(original) as storage:
        damaged, missing = (original / storage.get_recording(number).file_path for number in (1, 4))
    good, gone = damaged.read_bytes(), missing.read_bytes()
    damaged.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    missing.unlink()
    report = copy_archive(original, tmp_path / "copy")
    assert not report.complete
    assert [problem.audio_id for problem in report.problems] == [1, 4]
    assert "damaged" in report.problems[0].reason and "missing" in report.problems[1].reason
    assert [row[0] for row in content(tmp_path / "copy")["audio_files"]] == [2]
    damaged.write_bytes(good)
    missing.write_bytes(gone)
    assert copy_archive(original, tmp_path / "copy").complete
    assert content(tmp_path / "copy") == content(original)
    assert answers(tmp_path / "copy") == answers(original)


def test_other_bytes_under_the_key_are_never_overwritten(original: Path, tmp_path: Path) -> None:
    copy_archive(original, tmp_path / "half")
    with opened(original) as storage:
        new = storage.store_audio_file(sound(tmp_path / "new.wav", 99))
        key = storage.get_recording(new).file_path
    (tmp_path / "half" / key).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "half" / key).write_bytes(b"something else")
    report = copy_archive(original, tmp_path / "half")
    assert [problem.audio_id for problem in report.problems] == [int(new)]
    assert "other bytes" in report.problems[0].reason
    assert (tmp_path / "half" / key).read_bytes() == b"something else"


def test_all_audio_can_be_read_back(original: Path, tmp_path: Path) -> None:
    copy_archive(original, tmp_path / "copy")
    report = copy_archive(original, tmp_path / "copy", verify="all")
    assert report.complete and report.blobs_verified == 3 and report.blobs_copied == 0
    with opened(tmp_path / "copy") as copied:
        first, second = (tmp_path / "copy" / copied.get_recording(number).file_path for number in (1, 2))
    first.write_bytes(b"rotten")
    second.unlink()
    assert copy_archive(original, tmp_path / "copy").complete  # not looked at
    report = copy_archive(original, tmp_path / "copy", verify="all")
    assert [problem.audio_id for problem in report.problems] == [1, 2] and not report.complete


def test_a_copy_that_lost_its_catalogue_is_filled_again(original: Path, tmp_path: Path) -> None:
    copy_archive(original, tmp_path / "copy")
    for path in (tmp_path / "copy").glob("audio_storage.db*"):
        path.unlink()
    with opened(original) as storage:
        storage.delete(4)
    report = copy_archive(original, tmp_path / "copy")
    assert report.complete and report.blobs_copied == 0 and report.blobs_verified == 2
    assert content(tmp_path / "copy") == content(original)


# What is refused


def test_audio_of_unknown_origin_is_left_alone(original: Path, tmp_path: Path) -> None:
    fill(tmp_path / "other", tmp_path, 1)
    for path in [*(tmp_path / "other").glob("audio_storage.db*"), tmp_path / "other" / "metadata.json"]:
        path.unlink()
    before = files(tmp_path / "other")
    with pytest.raises(ArchiveDamaged):
        copy_archive(original, tmp_path / "other")
    assert files(tmp_path / "other") == before


def test_another_archive_is_never_touched(original: Path, tmp_path: Path) -> None:
    fill(tmp_path / "other", tmp_path, 1)
    before = files(tmp_path / "other")
    with pytest.raises(ArchiveMismatch, match="only an empty place"):
        copy_archive(original, tmp_path / "other")
    assert files(tmp_path / "other") == before


def test_a_copy_that_was_written_to_is_refused(original: Path, tmp_path: Path) -> None:
    copy_archive(original, tmp_path / "copy")
    with opened(tmp_path / "copy") as copied:
        copied.add(sound(tmp_path / "new.wav", 99))
    held = content(tmp_path / "copy")
    with pytest.raises(ArchiveMismatch, match="written to"):
        copy_archive(original, tmp_path / "copy")
    with opened(original) as storage:
        storage.add(sound(tmp_path / "newer.wav", 100))
    with pytest.raises(ArchiveMismatch, match="written to"):
        copy_archive(original, tmp_path / "copy")
    assert content(tmp_path / "copy") == held


def test_a_place_cannot_be_copied_onto_itself(original: Path) -> None:
    with pytest.raises(Conflict, match="place of its own"):
        copy_archive(original, original)


def test_what_is_no_archive_cannot_be_copied(tmp_path: Path) -> None:
    with pytest.raises(ArchiveNotFound):
        copy_archive(tmp_path / "nothing", tmp_path / "copy")
    assert not (tmp_path / "copy").exists() and not (tmp_path / "nothing").exists()
    with pytest.raises(InvalidInput, match="verify"):
        copy_archive(tmp_path / "nothing", tmp_path / "copy", verify="none")  # type: ignore[arg-type]


def test_a_source_of_another_version_is_left_as_it_is(original: Path, tmp_path: Path) -> None:
    for revision, error in (("0001", Conflict), ("9999", NewerFormat)):
        sql(original, "UPDATE alembic_version SET version_num = ?", revision)
        with pytest.raises(error):
            copy_archive(original, tmp_path / "copy")
        assert sql(original, "SELECT version_num FROM alembic_version") == [(revision,)]


def test_the_environment_does_not_move_a_folder_that_is_named(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDIO_STORAGE_DATABASE_URL", "postgresql://nowhere.invalid/none")
    monkeypatch.setenv("AUDIO_STORAGE_VECTORS_URL", "nothing://x")
    assert copy_archive(original, tmp_path / "copy").complete
    monkeypatch.undo()
    assert content(tmp_path / "copy") == content(original)


# On PostgreSQL


@dataclass(frozen=True)
class OnServer:
    """An archive with its catalogue on a server, named by its settings file."""

    place: Path

    @classmethod
    def at(cls, url: str, home: Path, blobs: str = "") -> OnServer:
        home.mkdir()
        (home / "audio-storage.toml").write_text(f'database_url = "{url}"\nblobs_url = "{blobs}"\n')
        return cls(home / "audio-storage.toml")


@pytest.mark.parametrize("blobs", ["local", "s3"])
def test_a_round_trip_over_postgresql_changes_nothing(
    blobs: str, original: Path, tmp_path: Path, postgres_url: str, request: pytest.FixtureRequest
) -> None:
    bucket = request.getfixturevalue("s3_url") if blobs == "s3" else ""
    server = OnServer.at(postgres_url, tmp_path / "server", bucket).place
    there, back = copy_archive(original, server), copy_archive(server, tmp_path / "back")
    assert there.complete and back.complete
    assert content(original) == content(server) == content(tmp_path / "back")
    assert answers(original) == answers(server) == answers(tmp_path / "back")
    with written() as statements:
        assert copy_archive(original, server).rows_copied == 0
        assert copy_archive(server, tmp_path / "back").rows_copied == 0
    assert statements == []


def test_a_copy_on_postgresql_is_brought_up_to_date(original: Path, tmp_path: Path, postgres_url: str) -> None:
    server = OnServer.at(postgres_url, tmp_path / "server").place
    copy_archive(original, server)
    with opened(original) as storage:
        storage.add(sound(tmp_path / "new.wav", 99), metadata={"seed": 99})
        storage.set_metadata(1, {"seed": "changed", "more": 1.5})
        storage.activate_transcript(2)
        storage.delete(4)
    report = copy_archive(original, server)
    assert report.complete and report.deleted == 1
    assert content(server) == content(original)
    assert answers(server) == answers(original)


def test_new_recordings_on_the_server_get_new_ids(original: Path, tmp_path: Path, postgres_url: str) -> None:
    server = OnServer.at(postgres_url, tmp_path / "server").place
    copy_archive(original, server)
    with opened(server) as copied:
        added = copied.add(sound(tmp_path / "new.wav", 99), metadata={"seed": 99})
        assert added > 4 and copied.search_similar_audio("spoken", where={"seed": 99}).total == 1


def test_the_address_of_a_server_takes_its_folder_from_the_environment(
    original: Path, tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDIO_STORAGE_HOME", str(tmp_path / "there"))
    report = copy_archive(original, postgres_url)
    assert report.complete and ":***@" in report.destination
    assert content(postgres_url) == content(original)
    monkeypatch.setenv("AUDIO_STORAGE_HOME", str(original))
    with pytest.raises(Conflict, match="place of its own"):
        copy_archive(original, postgres_url)
