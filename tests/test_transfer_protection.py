"""A copy protects what it has as the original does: who may what, holds, rules and trash, and what was logged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, insert, select, update

from audio_storage_system import AudioStorageSystem, copy_archive
from audio_storage_system.database import tables
from audio_storage_system.database.tables import metadata_of_schema
from audio_storage_system.errors import Unauthorized
from audio_storage_system.transfer.pair import COPIED, MIRRORED
from backing import protect
from catalogues import plain_sql
from copying import content, fill

pytestmark = pytest.mark.usefixtures("scripted_engine")

OTHERWISE = ("archive", "tombstones", "removals", "audit_log", "backup_sets")  # identity; by what they are of
LEFT = ("change_log", "index_cursors", "jobs", "workers", "data_keys", "webhooks", "webhook_deliveries")


def log(storage: AudioStorageSystem, chain: str, *sequence: int) -> None:
    row = {"principal_id": 1, "principal": "owner", "action": "a", "origin": "o", "details": {}, "mac": "m"}
    with storage._archive.database.write() as connection:
        at = storage._archive.marker.created_at
        rows = [{**row, "at": at, "chain": chain, "sequence": number} for number in sequence]
        connection.execute(insert(tables.audit_log), rows)


def logged(home: Path) -> set[Any]:
    return set(plain_sql(home, "SELECT chain, sequence FROM audit_log WHERE chain LIKE 'c-%'"))


def test_every_table_of_truth_is_copied() -> None:
    copied = [table.name for table in (*COPIED, *MIRRORED)]
    assert sorted([*copied, *OTHERWISE, *LEFT]) == sorted(metadata_of_schema.tables)


def test_all_that_protects_is_copied_and_follows(home: Path, tmp_path: Path) -> None:
    source = tmp_path / "a"
    fill(source, tmp_path, 3)
    with AudioStorageSystem(source) as storage:
        protect(storage)
        assert copy_archive(source, home).complete
        assert content(home) == content(source)
        with storage._archive.database.write() as connection:
            connection.execute(update(tables.grants).values(role="owner"))
            connection.execute(update(tables.legal_holds).values(released_at=storage._archive.marker.created_at))
            connection.execute(delete(tables.trash))
            connection.execute(insert(tables.retention_rules).values(**rule("second")))
            connection.execute(update(tables.retention_rules).where(tables.retention_rules.c.id == 1).values(name="x"))
            connection.execute(insert(tables.retention_rules).values(**rule("r")))  # a name that was another's
        report = copy_archive(source, home)
        assert report.complete and report.tables["retention_rules"].copied == 3
        assert content(home) == content(source)
        assert copy_archive(source, home).rows_copied == 0


def test_what_is_held_at_the_destination_stays(home: Path, tmp_path: Path) -> None:
    source = tmp_path / "a"
    fill(source, tmp_path, 3)
    assert copy_archive(source, home).complete
    with AudioStorageSystem(home, create=False) as copy:
        copy.holds.place("court", audio_ids=[1, 2])
        copy.holds.place("done", audio_ids=[3])
        copy.holds.release("done")
    with AudioStorageSystem(source) as storage:
        storage.holds.place("ours", audio_ids=[3])  # has the id of another hold there
        storage.delete(1)
        storage.set_metadata(2, {"rid": "x"})
        storage.retention.add("sound", 0, stage="audio", where={"rid": "x"})
        storage.retention.add("words", 0, stage="transcript", where={"rid": "x"})
        assert len(storage.retention.run().receipts) == 2
    for _ in range(2):
        report = copy_archive(source, home)
        assert {problem.audio_id for problem in report.problems} == {1, 2}
        with AudioStorageSystem(home, create=False) as copy:
            assert sorted(hold.name for hold in copy.holds.list()) == ["court", "ours"]
            for audio_id in (1, 2):
                with copy.open_audio(audio_id) as file:
                    assert file.read(4) == b"RIFF"
            assert [rule.name for rule in copy.retention.rules()] == ["sound", "words"]
            assert len(copy.transcripts(2)) == 1
    with AudioStorageSystem(home, create=False) as copy:
        copy.holds.release("court")
    assert copy_archive(source, home).complete
    with AudioStorageSystem(home, create=False) as copy:
        assert {one.id: one.status for one in copy.list_recordings()} == {2: "audio_removed", 3: "stored"}
        assert copy.transcripts(2) == []
    assert copy_archive(source, home).rows_copied == 0


def test_a_token_that_was_revoked_on_either_side_is_not_accepted_there_again(home: Path, tmp_path: Path) -> None:
    source = tmp_path / "a"
    fill(source, tmp_path, 1)
    with AudioStorageSystem(source) as storage:
        storage.users.add("anna")
        there, here, both, neither = (storage.tokens.create("anna", name=name) for name in "abcd")
        copy_archive(source, home)
        with AudioStorageSystem(home) as copy:
            copy.tokens.revoke(here.token.id)
            copy.tokens.revoke(both.token.id)
            at = {token.id: token.revoked_at for token in copy.tokens.list()}
        storage.tokens.revoke(there.token.id)
        storage.tokens.revoke(both.token.id)
        for _ in range(2):
            assert copy_archive(source, home).complete
            with AudioStorageSystem(home) as copy:
                for made in (there, here, both):
                    with pytest.raises(Unauthorized):
                        copy.tokens.authenticate(made.secret)
                assert copy.tokens.authenticate(neither.secret)
                assert {token.id: token.revoked_at for token in copy.tokens.list()}[here.token.id] == at[here.token.id]
        assert storage.tokens.authenticate(here.secret), "the copy changes nothing at the source"


def test_a_hold_that_was_released_at_the_source_is_over(home: Path, tmp_path: Path) -> None:
    source = tmp_path / "a"
    fill(source, tmp_path, 2)
    with AudioStorageSystem(source) as storage:
        storage.holds.place("case", audio_ids=[1])
        storage.trash.put(2)
        assert copy_archive(source, home).complete
        storage.holds.release("case")
        storage.delete(1)
        assert copy_archive(source, home).complete
    with AudioStorageSystem(home, create=False) as copy:
        assert copy.list_recordings() == [] and [one.audio_id for one in copy.trash.list()] == [2]


def rule(name: str) -> dict[str, Any]:
    return {"name": name, "stage": "audio", "keep_days": 1.0, "conditions": {}, "created_by": 1}


def test_grants_on_what_stays_deleted_are_left_out(tmp_path: Path) -> None:
    source, home = tmp_path / "a", tmp_path / "b"
    fill(source, tmp_path, 3)
    copy_archive(source, home)
    with AudioStorageSystem(home, create=False) as storage:
        storage.delete(1)
    with AudioStorageSystem(source) as storage:
        protect(storage)
    report = copy_archive(source, home)
    assert report.complete and report.kept_deleted == 1
    assert report.tables["grants"].destination == 1 and report.tables["trash"].destination == 1
    assert copy_archive(source, home).rows_copied == 0


def test_both_logs_are_kept(home: Path, tmp_path: Path) -> None:
    """The destination goes on with a chain of its own; ids are given by either."""
    source = tmp_path / "a"
    fill(source, tmp_path, 1)
    with AudioStorageSystem(source) as storage:
        log(storage, "c-source", 1, 2)
        copy_archive(source, home)
        with AudioStorageSystem(home, create=False) as copied:
            log(copied, "c-own", 1, 2, 3)
        log(storage, "c-source", 3)
        log(storage, "c-later", 1)
    report = copy_archive(source, home)
    assert report.complete and report.tables["audit_log"].copied >= 2
    own = {("c-own", 1), ("c-own", 2), ("c-own", 3)}
    assert logged(home) == logged(source) | own


def test_the_copy_logs_what_it_removes(tmp_path: Path) -> None:
    source, home = tmp_path / "a", tmp_path / "b"
    fill(source, tmp_path, 1)
    key: dict[str, Any] = {"encryption": bytes(32), "accept_plaintext_catalogue": True}
    copy_archive(source, home, **key)
    with AudioStorageSystem(source) as storage:
        storage.retention.add("sound", 0, stage="audio")
        storage.retention.run()
    copy_archive(source, home, **key)
    removed = select(tables.audit_log.c.audio_id).where(tables.audit_log.c.action == "recording.audio_deleted")
    with AudioStorageSystem(home, **key) as storage, storage._archive.database.read() as connection:
        assert connection.execute(removed).scalars().all() == [1]


def test_the_backups_of_the_original_are_known(tmp_path: Path) -> None:
    source, home = tmp_path / "a", tmp_path / "b"
    fill(source, tmp_path, 1)
    with AudioStorageSystem(source) as storage:
        storage.backups.create(tmp_path / "backup")
        copy_archive(source, home)
        storage.backups.verify(tmp_path / "backup")
        copy_archive(source, home)
        with AudioStorageSystem(home, create=False) as copied:
            assert copied.backups.list() == storage.backups.list()
            assert copied.backups.list()[0].verified_at
            copied.backups.create(tmp_path / "other")
        copy_archive(source, home)
        with AudioStorageSystem(home, create=False) as copied:
            assert len(copied.backups.list()) == 2  # its own stays known
