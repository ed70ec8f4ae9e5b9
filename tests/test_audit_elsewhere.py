"""The audit log, looked at by verification and against backups."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy import delete, func, select, update

from audio_storage_system import AudioStorageSystem
from audio_storage_system.cli import main
from audio_storage_system.database.tables import audit_log
from audio_storage_system.errors import Conflict
from audited import audited, speech_file

pytestmark = pytest.mark.usefixtures("scripted_engine")


def test_verification_looks_at_the_audit_log(home: Path, tmp_path: Path) -> None:
    with audited(home) as storage:
        storage.add(speech_file(tmp_path / "a.flac"))
        assert storage.verify().clean and "audit log" in storage.verify().checks
        with storage._archive.database.write() as connection:
            connection.execute(
                update(audit_log).where(audit_log.c.action == "recording.stored").values(action="recording.read")
            )
        done = storage.verify()
        [finding] = [one for one in done.findings if one.check == "audit log"]
        assert not done.clean and finding.count == 1 and "not as it was written" in finding.what


def test_the_log_is_compared_with_what_a_backup_saw(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dest = tmp_path / "backup"
    with audited(home) as storage:
        storage.add(speech_file(tmp_path / "a.flac"))
        storage.backups.create(dest)
        assert storage.audit.verify([storage.backups.anchor(dest)]).ok
        seen = storage.backups.anchor(dest).heads
    verify = ["audit", "verify", "--backup", str(dest), "--archive", str(home), "--json"]
    assert main(verify) == 0
    assert json.loads(capsys.readouterr().out)["anchors"] == 1
    with audited(home) as storage, storage._archive.database.write() as connection:
        chain = audit_log.c.chain == seen[0].chain
        last = select(func.max(audit_log.c.sequence)).where(chain).scalar_subquery()
        for _ in range(3):  # cut off what came last, behind what the backup saw
            top = connection.execute(select(last)).scalar_one()
            connection.execute(delete(audit_log).where(chain, audit_log.c.sequence == top))
            if top <= seen[0].sequence:
                break
    capsys.readouterr()
    assert main(verify) == 1
    assert "anchor" in {fault["what"] for fault in json.loads(capsys.readouterr().out)["faults"]}


def test_an_archive_without_a_log_has_no_anchor_in_its_backup(tmp_path: Path) -> None:
    with AudioStorageSystem(tmp_path / "a") as storage:
        storage.backups.create(tmp_path / "backup")
        with pytest.raises(Conflict):
            storage.backups.anchor(tmp_path / "backup")
