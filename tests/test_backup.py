"""A backup holds all that the archive held at one moment, costs what is new, and becomes an archive again."""

from __future__ import annotations

import json
import shutil
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from audio_storage_system import AudioStorageSystem, restore_backup
from audio_storage_system.backup import creating, format, restoring
from audio_storage_system.backup.sources import Source
from audio_storage_system.database.tables import metadata_of_schema
from audio_storage_system.errors import (
    ArchiveMismatch,
    Conflict,
    InvalidInput,
    NewerFormat,
    NotFound,
    RestoreUnfinished,
    Unauthorized,
)
from backing import audio, back_up, objects, protect, rows
from catalogues import Catalogues, plain_sql
from copying import answers, fill, sound

pytestmark = pytest.mark.usefixtures("scripted_engine")


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    return tmp_path / "backup"


def test_every_table_is_in_it_or_left_out_on_purpose() -> None:
    named = [table.name for table in (*format.TABLES, *format.LEFT_OUT)]
    assert sorted(named) == sorted(metadata_of_schema.tables)
    seen: set[str] = set()
    for table in format.TABLES:
        assert all(key.column.table.name in seen for key in table.foreign_keys), table.name
        seen.add(table.name)


def test_all_of_it_comes_back(home: Path, tmp_path: Path, dest: Path) -> None:
    fill(home, tmp_path, 4)
    with AudioStorageSystem(home, transcriber="scripted") as storage:
        protect(storage)
        storage.delete(4)
        report = storage.backups.create(dest)
        assert report.complete and report.blobs == report.blobs_copied == 3 and report.rows["audio_files"] == 3
    restored = restore_backup(str(dest), str(tmp_path / "restored"))
    assert restored.complete and restored.kept_deleted == 0
    assert rows(tmp_path / "restored") == rows(home)
    assert audio(tmp_path / "restored") == audio(home)
    assert answers(tmp_path / "restored") == answers(home)


def test_it_moves_to_a_server_with_a_bucket_and_back(
    tmp_path: Path, dest: Path, s3_url: str, postgres_url: str
) -> None:
    fill(tmp_path / "a", tmp_path, 3)
    bucket = f"{s3_url}/backups"
    back_up(tmp_path / "a", bucket)
    (tmp_path / "b").mkdir()
    server = tmp_path / "b" / "audio-storage.toml"
    server.write_text(f'database_url = "{postgres_url}"\nblobs_url = "{s3_url}/archive"\n')
    assert restore_backup(bucket, str(server)).complete
    assert rows(server) == rows(tmp_path / "a") and audio(server) == audio(tmp_path / "a")
    assert answers(server) == answers(tmp_path / "a")
    with AudioStorageSystem(server, create=False) as storage:
        again = storage.backups.create(bucket)  # of the archive that came from there: nothing is new
        assert again.blobs_copied == 0 and again.packs_written <= 2
        assert storage.backups.verify(bucket).whole
        assert storage.backups.prune(bucket, keep_last=1).objects > 0
        assert storage.backups.verify(bucket).whole
    back_up(server, dest := tmp_path / "other")
    assert restore_backup(str(dest), str(tmp_path / "c")).complete
    assert rows(tmp_path / "c") == rows(tmp_path / "a") and answers(tmp_path / "c") == answers(tmp_path / "a")


def test_what_is_there_is_not_stored_again(home: Path, tmp_path: Path, dest: Path) -> None:
    fill(home, tmp_path, 3)
    back_up(home, dest)
    before = objects(dest)
    with AudioStorageSystem(home, transcriber="scripted") as storage:
        unchanged = storage.backups.create(dest)
        assert unchanged.blobs_copied == 0 and unchanged.packs_written <= 2  # who was noted to have made one
        storage.add(sound(tmp_path / "new.wav", 99))
        grown = storage.backups.create(dest)
        assert grown.blobs_copied == 1 and grown.blobs == 4
        assert storage.backups.create(dest, full=True).packs_written <= 2
    after = objects(dest)
    assert {name: after[name] for name in before if not name.startswith("in_use")} == before


def test_rows_that_never_change_are_not_read_again(
    home: Path, tmp_path: Path, dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(home, tmp_path, 3)
    monkeypatch.setattr("audio_storage_system.backup.creating.WINDOWS", {"segments": 2, "passages": 2})
    read: list[str] = []
    whole = creating.write_rows
    monkeypatch.setattr(creating, "write_rows", lambda table, found: read.append(table.name) or whole(table, found))
    back_up(home, dest)
    assert read.count("segments") == 2
    read.clear()
    with AudioStorageSystem(home, transcriber="scripted") as storage:
        storage.delete(2)  # one window has fewer rows now, the other is as it was
        storage.backups.create(dest)
    assert read.count("segments") == 1 and "audio_files" in read
    assert restore_backup(str(dest), str(tmp_path / "restored")).complete
    assert rows(tmp_path / "restored") == rows(home)


def test_another_archive_of_the_same_identity_is_not_built_on(tmp_path: Path, dest: Path) -> None:
    """Two that went their own ways since one was restored from the other have different rows with the same ids."""
    fill(tmp_path / "a", tmp_path, 2)
    back_up(tmp_path / "a", dest)
    restore_backup(str(dest), str(tmp_path / "b"))
    for place, seed in (("a", 50), ("b", 60)):
        with AudioStorageSystem(tmp_path / place, transcriber="scripted") as storage:
            storage.add(sound(tmp_path / f"{seed}.wav", seed))
            storage.backups.create(dest)
    restore_backup(str(dest), str(tmp_path / "c"))
    assert rows(tmp_path / "c") == rows(tmp_path / "b") != rows(tmp_path / "a")


def test_any_set_can_be_had(tmp_path: Path, dest: Path) -> None:
    home, states = tmp_path / "a", {}
    fill(home, tmp_path, 2)
    for value in range(3):
        with AudioStorageSystem(home, create=False) as storage:
            storage.set_metadata(1, {"value": value})
            states[storage.backups.create(dest).set_id] = rows(home)
    for number, (set_id, state) in enumerate(states.items()):
        restore_backup(str(dest), str(tmp_path / f"r{number}"), set_id=set_id)
        assert rows(tmp_path / f"r{number}") == state
    first = datetime.strptime(min(states)[:21], "%Y%m%dT%H%M%S%f").replace(tzinfo=UTC)
    assert restore_backup(str(dest), str(tmp_path / "at"), at=first + timedelta(milliseconds=1)).set_id == min(states)
    with pytest.raises(NotFound, match="taken until"):
        restore_backup(str(dest), str(tmp_path / "before"), at=first - timedelta(days=1))
    with pytest.raises(NotFound, match="nonsense"):
        restore_backup(str(dest), str(tmp_path / "none"), set_id="nonsense")


def test_what_was_deleted_since_stays_deleted(home: Path, tmp_path: Path, dest: Path) -> None:
    fill(home, tmp_path, 4)
    first = back_up(home, dest)
    with AudioStorageSystem(home, create=False) as storage:
        storage.delete(2)
        storage.backups.create(dest)
        storage.delete(3)
    report = restore_backup(str(dest), str(tmp_path / "b"), set_id=first)
    assert report.complete and report.kept_deleted == 1
    with AudioStorageSystem(tmp_path / "b", create=False) as storage:
        assert sorted(found.id for found in storage.list_recordings()) == [1, 3, 4]
        storage.add(sound(tmp_path / "new.wav", 70), whisper_model="scripted:x")
        assert max(found.id for found in storage.list_recordings()) == 5  # no id is given twice
    assert len(list((tmp_path / "b" / "audio_files").rglob("*.wav"))) == 4
    report = restore_backup(str(dest), str(tmp_path / "c"), set_id=first, deletions_of=str(home))
    assert report.complete and report.kept_deleted == 2


def test_parts_that_were_removed_since_stay_removed(home: Path, tmp_path: Path, dest: Path) -> None:
    fill(home, tmp_path, 5)
    first = back_up(home, dest)
    with AudioStorageSystem(home, create=False) as storage:
        for audio_id, stage in ((1, "audio"), (2, "transcript"), (3, "embeddings")):
            storage.set_metadata(audio_id, {"rid": stage})
            storage.retention.add(f"no {stage}", 0, stage=stage, where={"rid": stage})
        assert len(storage.retention.run().receipts) == 3
        storage.generate_transcript(
            2, whisper_model="scripted:x"
        )  # what is said anew later is no concern of the rule that has run
        for rule in storage.retention.rules():
            storage.retention.remove(rule.name)
        last = storage.backups.create(dest).set_id
        storage.retention.add("late", 0, stage="audio", where={"rid": "transcript"})
        assert len(storage.retention.run().receipts) == 1
    report = restore_backup(str(dest), str(tmp_path / "b"), set_id=first)
    assert report.complete and (report.kept_deleted, report.kept_removed) == (0, 3)
    with AudioStorageSystem(tmp_path / "b", create=False) as storage:
        states = {one.id: one.status for one in storage.list_recordings()}
        assert states == {1: "audio_removed"} | dict.fromkeys([2, 3, 4, 5], "stored")
        assert [len(storage.transcripts(audio_id)) for audio_id in range(1, 6)] == [1, 0, 1, 1, 1]
        assert storage.verify(deep=True).clean
    left = "SELECT DISTINCT audio_file_id FROM embeddings ORDER BY 1"
    assert plain_sql(tmp_path / "b", left) == [(1,), (4,), (5,)]
    assert len(list((tmp_path / "b" / "audio_files").rglob("*.wav"))) == 4
    assert rows(tmp_path / "b")["removals"] == [row for row in rows(home)["removals"] if row[2] != "late"]
    report = restore_backup(str(dest), str(tmp_path / "c"), set_id=last)
    assert report.complete and report.kept_removed == 0
    with AudioStorageSystem(tmp_path / "c", create=False) as storage:
        assert len(storage.transcripts(2)) == 1, "said anew after the rule had run"
    report = restore_backup(str(dest), str(tmp_path / "d"), set_id=last, deletions_of=str(home))
    assert report.complete and report.kept_removed == 1
    assert rows(tmp_path / "d")["removals"] == rows(home)["removals"]


def test_tokens_that_were_revoked_since_stay_revoked(home: Path, tmp_path: Path, dest: Path) -> None:
    with AudioStorageSystem(home) as storage:
        storage.users.add("john")
        made = {name: storage.tokens.create("john", name=name) for name in ("kept", "lost", "late")}
    first = back_up(home, dest)
    with AudioStorageSystem(home, create=False) as storage:
        storage.tokens.revoke(made["lost"].token.id)
        storage.backups.create(dest)
        storage.tokens.revoke(made["late"].token.id)
    for place, known, valid in (("b", None, {"kept", "late"}), ("c", str(home), {"kept"})):
        assert restore_backup(str(dest), str(tmp_path / place), set_id=first, deletions_of=known).complete
        with AudioStorageSystem(tmp_path / place, create=False) as storage:
            assert {token.name for token in storage.tokens.list() if token.revoked_at is None} == valid
            with pytest.raises(Unauthorized):
                storage.tokens.authenticate(made["lost"].secret)
            assert storage.tokens.authenticate(made["kept"].secret)


def test_the_id_of_a_deleted_recording_is_not_taken_for_that_of_another(tmp_path: Path, dest: Path) -> None:
    """Deleting in an archive that went its own way deletes nothing in this one."""
    fill(tmp_path / "a", tmp_path, 1)
    back_up(tmp_path / "a", dest)
    shutil.copytree(tmp_path / "a", tmp_path / "b")  # past this program
    for place, seed in (("a", 50), ("b", 60)):
        with AudioStorageSystem(tmp_path / place, transcriber="scripted") as storage:
            added = storage.add(sound(tmp_path / f"{seed}.wav", seed))
            if place == "b":
                storage.delete(added)
            storage.backups.create(dest)
    restored = restore_backup(str(dest), str(tmp_path / "c"), set_id=sorted(set_ids(dest))[1])
    assert restored.complete and restored.kept_deleted == 0
    assert rows(tmp_path / "c")["audio_files"] == rows(tmp_path / "a")["audio_files"]


def set_ids(dest: Path) -> list[str]:
    return [path.stem for path in sorted((dest / "sets").iterdir())]


def test_an_archive_is_never_replaced(home: Path, tmp_path: Path, dest: Path) -> None:
    fill(home, tmp_path, 1)
    back_up(home, dest)
    before = rows(home)
    with pytest.raises(Conflict, match="never replaces"):
        restore_backup(str(dest), str(home))
    fill(tmp_path / "other", tmp_path, 1)
    with pytest.raises(Conflict, match="never replaces"):
        restore_backup(str(dest), str(tmp_path / "other"))
    assert rows(home) == before


def test_a_place_is_of_one_archive(tmp_path: Path, dest: Path) -> None:
    fill(tmp_path / "a", tmp_path, 1)
    fill(tmp_path / "b", tmp_path, 1)
    back_up(tmp_path / "a", dest)
    with pytest.raises(ArchiveMismatch, match="it holds backups of archive"):
        back_up(tmp_path / "b", dest)
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "letter.txt").write_text("dear")
    with pytest.raises(ArchiveMismatch, match=r"letter\.txt"):
        back_up(tmp_path / "a", tmp_path / "papers")
    for inside in (tmp_path / "a", tmp_path / "a" / "backup"):
        with pytest.raises(InvalidInput, match="inside the archive"):
            back_up(tmp_path / "a", inside)


def test_a_newer_format_is_refused(tmp_path: Path, dest: Path) -> None:
    fill(tmp_path / "a", tmp_path, 1)
    set_id = back_up(tmp_path / "a", dest)
    for name in ("backup.json", f"sets/{set_id}.json"):
        kept = (dest / name).read_text()
        (dest / name).write_text(kept.replace('"format": 1', '"format": 2'))
        with AudioStorageSystem(tmp_path / "a") as storage, pytest.raises(NewerFormat):
            storage.backups.create(dest)
        (dest / name).write_text(kept)
    document = json.loads((dest / f"sets/{set_id}.json").read_text())
    assert document["header"]["format"] == 1


def test_writers_may_be_at_work(home: Path, tmp_path: Path, dest: Path) -> None:
    fill(home, tmp_path, 3)
    done, written = threading.Event(), []

    def write() -> None:
        with AudioStorageSystem(home, transcriber="scripted") as storage:
            for number in range(200):
                if done.is_set():
                    return
                added = storage.add(sound(tmp_path / f"w{number}.wav", 1_000 + number))
                storage.set_metadata(1, {"number": number})
                if number % 2:
                    storage.delete(added)
                written.append(number)

    writer = threading.Thread(target=write)
    writer.start()
    made = [back_up(home, dest) for _ in range(4)]
    done.set()
    writer.join()
    assert written
    numbers = []
    for number, set_id in enumerate(made):
        place = tmp_path / f"r{number}"
        assert restore_backup(str(dest), str(place), set_id=set_id).complete
        with AudioStorageSystem(place, create=False) as storage:
            listed = storage.list_recordings()
            assert {one.file_path for one in listed} == set(audio(place))
            numbers.append(storage.get_recording(1).metadata.get("number", -1))
    assert numbers == sorted(numbers)


def test_a_recording_deleted_meanwhile_is_no_error(tmp_path: Path, dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "a", tmp_path, 2)
    whole = Source.bring
    with AudioStorageSystem(tmp_path / "a") as storage:

        def bring(source: Source, wanted: Any) -> Any:
            if wanted.audio_id == 2:
                storage.delete(2)
            return whole(source, wanted)

        monkeypatch.setattr(Source, "bring", bring)
        report = storage.backups.create(dest)
    assert report.complete and report.blobs == 1 and report.rows["audio_files"] == 2
    restored = restore_backup(str(dest), str(tmp_path / "b"))
    assert restored.complete and restored.kept_deleted == 1 and rows(tmp_path / "b") == rows(tmp_path / "a")


def test_audio_that_is_missing_or_damaged_is_named(tmp_path: Path, dest: Path) -> None:
    fill(tmp_path / "a", tmp_path, 3)
    with AudioStorageSystem(tmp_path / "a") as storage:
        paths = [tmp_path / "a" / storage.get_recording(number).file_path for number in (1, 2)]
        paths[0].unlink()
        paths[1].write_bytes(b"other")
        report = storage.backups.create(dest)
        assert not report.complete and report.blobs == 1
        assert sorted((one.audio_id, one.reason[:24]) for one in report.problems) == [
            (1, "its file is missing"),
            (2, "its file is damaged: 5 b"),
        ]
        assert storage.backups.verify(dest).whole and not storage.backups.verify(dest).complete
    restored = restore_backup(str(dest), str(tmp_path / "b"))
    assert not restored.complete and [one.audio_id for one in restored.problems] == [1, 2]
    assert rows(tmp_path / "b") == rows(tmp_path / "a")  # what was said is not lost with the sound


def test_who_comes_early_is_told(tmp_path: Path, dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "a", tmp_path, 1)
    set_id = back_up(tmp_path / "a", dest)

    class Cut(Exception):
        pass

    def cut(*_: Any) -> None:
        raise Cut

    with monkeypatch.context() as patch:
        patch.setattr(restoring._Restoring, "_derive", cut)
        with pytest.raises(Cut):
            restore_backup(str(dest), str(tmp_path / "b"))
    with pytest.raises(RestoreUnfinished, match=set_id):
        AudioStorageSystem(tmp_path / "b")
    later = back_up(tmp_path / "a", dest)
    with pytest.raises(RestoreUnfinished, match=set_id):
        restore_backup(str(dest), str(tmp_path / "b"), set_id=later)
    assert restore_backup(str(dest), str(tmp_path / "b"), set_id=set_id).complete
    assert rows(tmp_path / "b") == rows(tmp_path / "a")


def test_a_catalogue_knows_its_backups(home: Path, tmp_path: Path, dest: Path) -> None:
    fill(home, tmp_path, 1)
    first = back_up(home, dest)
    with AudioStorageSystem(home, create=False) as storage:
        second = storage.backups.create(dest).set_id
        assert [one.verified_at for one in storage.backups.list()] == [None, None]
        assert storage.backups.rehearse(dest).whole
        storage.backups.prune(dest, keep_last=1)
        known = {one.set_id: one for one in storage.backups.list()}
        assert known[first].removed_at and known[second].verified_at and not known[second].removed_at
        assert [(one.set_id, one.there) for one in storage.backups.list(dest)] == [(second, True)]
    assert plain_sql(home, "SELECT destination FROM backup_sets WHERE set_id = ?", second) == [(str(dest),)]


def test_a_rehearsal_leaves_nothing(tmp_path: Path, dest: Path, catalogues: Catalogues) -> None:
    with catalogues.at(tmp_path / "a") as home:
        fill(home, tmp_path, 2)
        (tmp_path / "scratch").mkdir()
        back_up(home, dest)
        with AudioStorageSystem(home, create=False) as storage:
            report = storage.backups.rehearse(dest, scratch=tmp_path / "scratch")
    assert report.whole and report.searched and report.how == "rehearse"
    assert list((tmp_path / "scratch").iterdir()) == []


def test_sets_keep_their_order_when_the_clock_is_put_back(
    tmp_path: Path, dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "a", tmp_path, 1)
    first = back_up(tmp_path / "a", dest)
    monkeypatch.setattr(creating, "utc_now", lambda: datetime(2020, 1, 1, tzinfo=UTC))
    second = back_up(tmp_path / "a", dest)
    monkeypatch.undo()
    assert set_ids(dest) == [first, second]
    with AudioStorageSystem(tmp_path / "a") as storage:
        assert storage.backups.list(dest)[1].taken_at.year == 2020
        assert storage.backups.create(dest).packs_written <= 1


def test_rows_and_keys_are_of_one_moment(tmp_path: Path, dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that are changed while rows are read could be those of other rows."""
    fill(tmp_path / "a", tmp_path, 1)
    whole, read, keys = creating._wanted, [], ["old"]
    monkeypatch.setattr(creating, "read_text", lambda _: keys[0])

    def wanted(connection: Any) -> Any:
        read.append(keys[0])
        keys[0] = "new"
        return whole(connection)

    monkeypatch.setattr(creating, "_wanted", wanted)
    set_id = back_up(tmp_path / "a", dest)
    assert read == ["old", "new"]
    assert json.loads((dest / "sets" / f"{set_id}.json").read_text())["header"]["keys"] == "new"


def test_a_name_that_is_another_recordings_by_now_is_no_damage(
    tmp_path: Path, dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "a", tmp_path, 1)
    whole = Source.bring
    with AudioStorageSystem(tmp_path / "a") as storage:
        path = tmp_path / "a" / storage.get_recording(1).file_path

        def bring(source: Source, wanted: Any) -> Any:
            storage.delete(1)
            path.write_bytes(b"the sound of another one")
            return whole(source, wanted)

        monkeypatch.setattr(Source, "bring", bring)
        report = storage.backups.create(dest)
    assert report.complete and report.blobs == 0
