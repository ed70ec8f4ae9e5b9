"""Verification: each kind of damage is found, named, and repaired where that loses nothing."""

from __future__ import annotations

import os
import sqlite3
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import create_engine

from audio_storage_system import AudioStorageSystem
from audio_storage_system.audit import Audit
from audio_storage_system.database.tables import data_keys
from audio_storage_system.integrity import Severity, verify
from audio_storage_system.testing.engines import MemoryEngine, Store
from audio_storage_system.vectors import EngineIndex, log
from audio_storage_system.vectors.following import Sizes
from audio_storage_system.vectors.sqlite import SQLiteIndex
from batch import Command
from builders import Talk, fill, text_space, unit
from catalogues import database_url, plain_sql
from damages import blob_of, everything, found, harm, one, put_back

pytestmark = pytest.mark.usefixtures("scripted_engine", "quickly")


def test_an_undamaged_archive_is_clean_and_says_what_was_looked_at(filled: AudioStorageSystem) -> None:
    quick, deep = filled.verify(), filled.verify(deep=True)
    assert quick.findings == deep.findings == ()
    assert quick.clean and deep.clean
    assert quick.recordings == deep.recordings == 2 and deep.last_id == 2
    assert quick.bytes == 0 and deep.bytes == sum(filled.get_recording(id_).file_size for id_ in (1, 2))
    assert set(quick.checks) < set(deep.checks)


# What is done to the catalogue, which check says so, and a word of what it says.
ROWS = [
    ("DELETE FROM transcripts WHERE id = 1", "references", "segments.transcript_id names rows of transcripts"),
    ("DELETE FROM audio_files WHERE id = 2", "references", "metadata.audio_file_id"),
    ("UPDATE transcripts SET outcome = 'failed' WHERE id = 1", "transcripts", "have failed"),
    ("UPDATE transcription_windows SET sequence = sequence + 5 WHERE transcript_id = 1", "windows", "gaps"),
    ("UPDATE segments SET sequence = sequence + 5 WHERE transcript_id = 1", "segments", "gaps"),
    (
        "UPDATE segments SET transcript_id = 2, sequence = sequence + 50 WHERE transcript_id = 1",
        "segments",
        "another version",
    ),
    ("UPDATE passages SET sequence = sequence + 1 WHERE transcript_id = 1", "passages", "gaps"),
    ("UPDATE passages SET first_segment_id = (SELECT max(id) FROM segments) WHERE id = 1", "passages", "first or last"),
    ("UPDATE passages SET audio_file_id = 2 WHERE id = 1", "passages", "another recording"),
    ("UPDATE passages SET text = '' WHERE id = 1", "passages", "nothing in them"),
    ("UPDATE embeddings SET model_name = 'other' WHERE id = 1", "embeddings", "another kind, model"),
    ("UPDATE embeddings SET audio_file_id = 2 WHERE passage_id = 1", "embeddings", "another recording"),
    ("UPDATE embedding_spaces SET active = (1 = 0) WHERE kind = 'audio'", "spaces", "none in use"),
    (
        "INSERT INTO tombstones (audio_id, file_hash, file_path, deleted_at, completed, receipt)"  # noqa: ISC004
        " VALUES (1, 'x', 'y', '2026-01-01 00:00:00.000000', (1 = 1), '{}')",
        "deletions",
        "there all the same",
    ),
]


def test_rows_that_do_not_fit_are_named_and_left_alone(filled: AudioStorageSystem) -> None:
    for damage, check, said in ROWS:
        before = everything(filled)
        harm(filled, damage)
        done = filled.verify()
        finding = next((finding for finding in done.findings if said in finding.what), None)
        assert finding is not None and finding.check == check, (damage, done.findings)
        assert finding.severity is Severity.ERROR and not finding.repairable and finding.count >= 1 and finding.ids
        assert not done.clean
        damaged = everything(filled)
        assert not filled.verify(repair=True).clean and everything(filled) == damaged
        put_back(filled, before)
        filled.reindex()
        assert filled.verify().findings == (), damage


# What is derived, how it is damaged on either catalogue, and which check says so.
DERIVED = [
    ("the full text is gone", ("DROP TABLE passages_fts",), ("DROP TABLE passage_search",), "full text", False),
    (
        "a passage is not in the full text",
        ("DELETE FROM passages_fts WHERE rowid = 1",),
        ("DELETE FROM passage_search WHERE space_id = 0 AND passage_id = 1",),
        "full text",
        False,
    ),
    (
        "something is in the full text that is no passage",
        ("INSERT INTO passages_fts (rowid, words, stems) VALUES (99, 'ghost', '')",),
        ("INSERT INTO passage_search SELECT 0, 1, now(), 99, NULL, 1, 'ghost' FROM passages LIMIT 1",),
        "full text",
        False,
    ),
    (
        "the full text has other words",
        ("UPDATE passages_fts SET words = 'nonsense' WHERE rowid = 1",),
        ("UPDATE passage_search SET text_vector = '''nonsense'':1A' WHERE space_id = 0 AND passage_id = 1",),
        "full text",
        True,
    ),
    (
        "an index of a table is gone",
        ("DROP INDEX idx_passages_audio_id",),
        ("DROP INDEX idx_passages_audio_id",),
        "schema",
        False,
    ),
    (
        "a number is not that of its value",
        ("UPDATE metadata SET value_number = 4 WHERE key = 'rank'",) * 2,
        ("UPDATE metadata SET value_number = 4 WHERE key = 'rank'",),
        "values",
        True,
    ),
    (
        "a number is missing",
        ("UPDATE metadata SET value_number = NULL WHERE key = 'when'",),
        ("UPDATE metadata SET value_number = NULL WHERE key = 'when'",),
        "metadata",
        False,
    ),
]


def test_what_is_derived_is_made_anew(filled: AudioStorageSystem) -> None:
    said = everything(filled)
    for name, lite, post, check, deep in DERIVED:
        harm(filled, *(post if database_url(filled.home) else lite))
        done = filled.verify(deep=deep)
        assert {finding.check for finding in done.findings} == {check}, name
        assert not done.clean and all(finding.repairable and not finding.repaired for finding in done.findings)
        repaired = filled.verify(deep=deep, repair=True)
        assert repaired.clean and all(finding.repaired for finding in found(repaired, check)), name
        assert filled.verify(deep=True).findings == (), name
    assert everything(filled) == said and filled.search_similar_audio("spoken", mode="keyword").total >= 1


def test_a_number_that_cannot_be_read_is_not_guessed(filled: AudioStorageSystem) -> None:
    harm(filled, "UPDATE metadata SET value = 'three' WHERE key = 'rank'")
    done = filled.verify(deep=True, repair=True)
    assert not done.clean and found(done, "values")[0].count == 1 and not found(done, "values")[0].repaired
    assert one(filled, "SELECT value FROM metadata WHERE key = 'rank'") == "three"
    filled.set_metadata(1, {"rank": 3})
    assert filled.verify(deep=True).findings == ()


@pytest.mark.parametrize(
    ("blob", "deep"),
    [("substr(embedding_data, 1, 8)", False), ("zeros", True), ("infinite", True)],
)
def test_a_vector_that_is_none_is_made_again(filled: AudioStorageSystem, blob: str, deep: bool) -> None:
    length = one(filled, "SELECT length(embedding_data) FROM embeddings WHERE id = 1")
    raw = {"zeros": bytes(length), "infinite": np.full(length // 4, np.inf, "<f4").tobytes()}.get(blob)
    if raw is None:
        harm(filled, f"UPDATE embeddings SET embedding_data = {blob} WHERE id = 1")  # noqa: S608
    else:
        plain_sql(filled.home, "UPDATE embeddings SET embedding_data = ? WHERE id = 1", raw)
    done = filled.verify(deep=deep)
    assert [finding.ids for finding in found(done, "vectors")] == [(1,)]
    before = one(filled, "SELECT count(*) FROM embeddings")
    filled.verify(deep=deep, repair=True)
    assert one(filled, "SELECT count(*) FROM embeddings") == before - 1
    assert filled.jobs.find("waiting")  # the workers make it again
    filled.generate_embeddings(1)
    assert one(filled, "SELECT count(*) FROM embeddings") == before
    assert filled.verify(deep=True).clean


def test_texts_are_compared_with_their_segments(filled: AudioStorageSystem) -> None:
    harm(filled, "UPDATE transcripts SET transcription = 'something else' WHERE id = 1")
    harm(filled, "UPDATE passages SET text = 'something else' WHERE transcript_id = 2")
    assert found(filled.verify(), "texts") == []
    done = filled.verify(deep=True)
    assert {(finding.what, finding.ids) for finding in found(done, "texts")} == {
        ("their text is not that of their segments", (1,)),
        ("their passages do not say what their segments say", (2,)),
    }


def test_two_active_versions_are_named(filled: AudioStorageSystem) -> None:
    filled.generate_transcript(1, whisper_model="scripted", activate=False)
    harm(filled, "DROP INDEX uq_transcripts_one_active", "UPDATE transcripts SET active = (1 = 1)")
    done = filled.verify()
    assert [f.what for f in found(done, "uniqueness")] == ["transcripts has several rows with the same audio_file_id"]
    assert "uq_transcripts_one_active" in found(done, "schema")[0].ids


def test_half_embedded_versions_are_left_to_the_workers_and_the_unembedded_only_noted(
    filled: AudioStorageSystem, demo: Path, tmp_path: Path
) -> None:
    filled.add(demo / "meeting.flac", generate_embeddings=False)
    done = filled.verify()
    assert done.clean and {(f.check, f.severity, f.ids) for f in done.findings} == {("embedded", Severity.NOTE, (3,))}
    cues = "".join(f"{n + 1}\n00:00:{n:02},000 --> 00:00:{n + 1:02},000\n{'word ' * 60}\n\n" for n in range(5))
    (tmp_path / "call.srt").write_text(cues)
    imported = filled.import_transcript(1, tmp_path / "call.srt", activate=True)
    assert one(filled, f"SELECT count(*) FROM passages WHERE transcript_id = {imported.transcript_id}") > 1  # noqa: S608
    said = f"SELECT max(id) FROM embeddings WHERE transcript_id = {imported.transcript_id}"  # noqa: S608
    harm(filled, f"DELETE FROM embeddings WHERE id = ({said})")  # noqa: S608
    assert filled.verify().clean  # it may be being made
    harm(filled, "UPDATE embeddings SET created_at = '2026-01-01 00:00:00.000000'")
    [finding] = [f for f in filled.verify().findings if f.check == "embedded" and f.severity is Severity.WARNING]
    assert finding.ids == (1,) and finding.repairable
    assert not [f for f in filled.verify(repair=True).findings if f.repairable and not f.repaired]
    assert [job.audio_id for job in filled.jobs.find("waiting")] == [1]


# The indexes


def test_the_servers_vector_index_is_compared_both_ways(filled: AudioStorageSystem) -> None:
    if not database_url(filled.home):
        pytest.skip("so few vectors have no index on SQLite")
    filled._archive.follow()
    space = one(filled, "SELECT id FROM embedding_spaces WHERE kind = 'transcript'")
    mine = f"SELECT id FROM vector_collections WHERE strpos(name, '_{space}_') > 0"  # noqa: S608
    first = one(filled, f"SELECT min(embedding_id) FROM passage_search WHERE space_id IN ({mine})")  # noqa: S608
    ghost = (
        "INSERT INTO passage_search (space_id, owner_id, recorded_at, embedding_id, audio_id, vector) SELECT"  # noqa: S608
        " space_id, owner_id, recorded_at, 999, audio_id, vector FROM passage_search"
        f" WHERE space_id IN ({mine}) LIMIT 1"
    )
    harm(filled, ghost, f"DELETE FROM passage_search WHERE embedding_id = {first}")  # noqa: S608
    done = filled.verify()
    assert {(f.ids, "lacks" in f.what) for f in found(done, "vector index")} == {((first,), True), ((999,), False)}
    assert filled.verify(repair=True).clean
    assert filled.verify(deep=True).findings == ()


@pytest.mark.parametrize(
    ("damage", "said", "deep"),
    [
        ("DELETE FROM code_blocks WHERE id = (SELECT min(id) FROM code_blocks)", "lacks embeddings", False),
        ("UPDATE code_blocks SET size = size + 1", "is not what its row says", False),
        ("UPDATE code_blocks SET signs = zeroblob(length(signs))", "codes that are not those", True),
        ("UPDATE code_blocks SET remainders = zeroblob(length(remainders))", "codes that are not those", True),
        ("DELETE FROM embeddings WHERE id = 7", "holds embeddings that are not there", False),
        ("UPDATE index_cursors SET position = 1000000", "missed changes", False),
    ],
)
def test_the_codes_of_sqlite_are_compared_with_the_vectors(tmp_path: Path, damage: str, said: str, deep: bool) -> None:
    with AudioStorageSystem(tmp_path / "archive") as storage:
        archive, rng = storage._archive, np.random.default_rng(0)
        space = text_space(archive, 70)
        texts = [f"passage {number}" for number in range(60)]
        fill(archive, [Talk(texts, vectors=[unit(rng, 70) for _ in texts])], space)
        index = SQLiteIndex(archive.database, Sizes(tail=4, block=16))
        small = replace(archive, index=index)
        index.follow(space)
        with archive.database.write() as connection:
            log.prune(connection)
        assert found(verify(small, deep=True), "vector index") == []
        harm(storage, damage)
        wrong = found(verify(small, deep=deep), "vector index")
        assert [said in finding.what for finding in wrong] == [True]
        assert all(f.repaired for f in found(verify(small, deep=deep, repair=True), "vector index"))
        assert found(verify(small, deep=True), "vector index") == []
        storage._archive.index.close()


def test_a_vector_database_is_compared_both_ways(tmp_path: Path) -> None:
    store = Store()
    with AudioStorageSystem(tmp_path / "archive") as storage:
        archive, rng = storage._archive, np.random.default_rng(0)
        space = text_space(archive, 8)
        texts = [f"passage {number}" for number in range(20)]
        fill(archive, [Talk(texts, vectors=[unit(rng, 8) for _ in texts])], space)
        index = EngineIndex(archive.database, MemoryEngine(store), archive.marker.archive_id)
        far = replace(archive, index=index)
        index.follow(space)
        assert found(verify(far), "vector index") == []
        [held] = store.points.values()
        held[999] = held.pop(5)
        wrong = found(verify(far), "vector index")
        assert {(f.ids, "lacks" in f.what) for f in wrong} == {((5,), True), ((999,), False)}
        assert all(f.repaired for f in found(verify(far, repair=True), "vector index"))
        store.down = "it is being moved"
        done = verify(far)
        assert found(done, "vector index") == [] and "it is being moved" in done.skipped["vector index"]


# Encrypted


def test_a_sealed_archive_is_verified_through_its_seals(tmp_path: Path, demo: Path) -> None:
    with AudioStorageSystem(tmp_path / "sealed", transcriber="scripted", encryption=b"k" * 32) as storage:
        for name in ("call.flac", "voice_note.flac", "meeting.flac"):
            storage.add(demo / name)
        assert storage.verify(deep=True).findings == ()
        first, second = blob_of(storage, 1), blob_of(storage, 2)
        first.write_bytes(second.read_bytes())
        assert found(storage.verify(deep=True), "files")[0].ids == (1,)
        key = storage.get_recording(3).file_path
        with storage._archive.database.write() as connection:
            connection.execute(data_keys.delete().where(data_keys.c.file_path == key))
        [gone] = found(storage.verify(), "keys")
        assert gone.ids == (3,) and gone.severity is Severity.ERROR


# In use


def test_writers_at_work_raise_no_false_alarm(filled: AudioStorageSystem, demo: Path, tmp_path: Path) -> None:
    stop, failed = threading.Event(), list[BaseException]()

    def work(name: str) -> None:
        try:
            number = 0
            while not stop.is_set():
                number += 1
                path = tmp_path / f"{name}-{number}.flac"
                path.write_bytes((demo / "voice_note.flac").read_bytes() + f"{name}{number}".encode())
                audio_id = filled.add(path, metadata={"n": number})
                filled.set_metadata(audio_id, {"n": number + 0.5})
                filled.delete(audio_id)
        except BaseException as error:
            failed.append(error)

    workers = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    for worker in workers:
        worker.start()
    try:
        for number in range(4):
            done = filled.verify(deep=number % 2 == 1)
            assert [f for f in done.findings if f.severity is not Severity.NOTE] == []
    finally:
        stop.set()
        for worker in workers:
            worker.join()
    assert failed == []
    assert filled.verify(deep=True).findings == ()


def test_a_repair_is_told_to_the_audit_log(filled: AudioStorageSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    noted = []
    monkeypatch.setattr(
        Audit, "note", lambda self, connection, action, audio_id=None, **more: noted.append((action, more))
    )
    (filled.home / "metadata.json").unlink()
    assert filled.verify().findings and noted == []
    assert filled.verify(repair=True).clean and noted == [("archive.repaired", {"check": "marker"})]


def test_an_archive_that_cannot_be_written_is_verified_all_the_same(tmp_path: Path, demo: Path) -> None:
    with AudioStorageSystem(tmp_path / "archive", transcriber="scripted") as storage:
        storage.add(demo / "call.flac")
        file = storage.home / "audio_storage.db"
        readers = create_engine(
            "sqlite://", creator=lambda: sqlite3.connect(f"file:{file}?mode=ro", uri=True, check_same_thread=False)
        )
        archive = storage._archive
        engine, archive.database.engine = archive.database.engine, readers
        try:
            done = verify(archive, deep=True)
            assert done.findings == () and "lock" in done.skipped["full text"]
            (storage.home / "metadata.json").unlink()
            assert [finding.check for finding in verify(archive).findings] == ["marker"]
        finally:
            archive.database.engine = engine
            readers.dispose()


def test_pages_of_the_database_that_were_overwritten_are_named(tmp_path: Path, demo: Path, run: Command) -> None:
    home = tmp_path / "mine"
    with AudioStorageSystem(home, transcriber="scripted") as storage:
        storage.add(demo / "call.flac")
        leaf = plain_sql(home, "SELECT rootpage FROM sqlite_master WHERE name = 'idx_segments_window_id'")[0][0]
    with (home / "audio_storage.db").open("r+b") as file:
        file.seek((int(str(leaf)) - 1) * 4096)
        file.write(os.urandom(2000))
    answer = run("verify", "--archive", home, "--json")
    assert answer.code == 1 and "database" in {finding["check"] for finding in answer.data["findings"]}
    (home / "audio_storage.db").write_bytes(b"nothing of a database" * 1000)
    answer = run("verify", "--archive", home, "--json")
    assert answer.code == 1 and [finding["check"] for finding in answer.data["findings"]] == ["opening"]


def test_the_command_tells_people_and_programs(home: Path, demo: Path, run: Command) -> None:
    with AudioStorageSystem(home, transcriber="scripted") as storage:
        storage.add(demo / "call.flac")
    answer = run("verify", "--deep", "--archive", home)
    assert answer.code == 0 and "nothing is wrong" in answer.out
    with AudioStorageSystem(home) as storage:
        harm(storage, "UPDATE metadata SET value_number = 1", "DELETE FROM tombstones")
        blob_of(storage, 1).unlink()
        (storage.home / "metadata.json").unlink() if not database_url(home) else None
    answer = run("verify", "--archive", home)
    assert answer.code == 1 and "their files are missing" in answer.out and "backup" in answer.out
    answer = run("verify", "--repair", "--archive", home, "--json")
    assert answer.code == 1 and answer.data["clean"] is False
    assert {f["check"]: f["repaired"] for f in answer.data["findings"]}["files"] is False
