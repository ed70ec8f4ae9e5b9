"""The security check: each weakness is seen, named with its fix, and gone once it is mended."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import insert

from audio_storage_system import AudioStorageSystem, served
from audio_storage_system.clock import utc_now
from audio_storage_system.database.tables import (
    api_tokens,
    audit_log,
    backup_sets,
    principals,
    trash,
)
from audio_storage_system.errors import Forbidden
from audio_storage_system.keys import ArchiveKeys
from audio_storage_system.security import Gravity, SecurityReport, check_security
from batch import Command

pytestmark = pytest.mark.usefixtures("scripted_engine")
OLD = utc_now() - timedelta(days=400)

posix = pytest.mark.skipif(os.name == "nt", reason="permissions are POSIX's")


def names(report: SecurityReport) -> dict[str, Gravity]:
    return {weakness.name: weakness.gravity for weakness in report.weaknesses}


def said(report: SecurityReport, name: str) -> str:
    return next(f"{one.evidence} {one.fix}" for one in report.weaknesses if one.name == name)


def test_a_new_archive_has_nothing_serious_and_says_what_it_lacks(storage: AudioStorageSystem) -> None:
    if (storage.home / "audio-storage.toml").exists():  # made by the test, not by the program
        storage.home.chmod(0o700)
    report = storage.check_security()
    assert not report.serious, report
    assert {"not encrypted", "no backup", "no audit log"} <= names(report).keys()
    assert all(weakness.fix and weakness.evidence for weakness in report.weaknesses)
    assert "no advisory database" in report.unchecked["vulnerable packages"]


@posix
def test_an_open_folder_is_serious_and_named_with_the_command(storage: AudioStorageSystem) -> None:
    assert stat.S_IMODE(storage.home.stat().st_mode) & 0o077 == 0 or (storage.home / "audio-storage.toml").exists()
    storage.home.chmod(0o755)
    report = storage.check_security()
    assert names(report)["open archive folder"] is Gravity.SERIOUS
    assert f"chmod 700 {storage.home}" in said(report, "open archive folder")
    storage.home.chmod(0o750)
    assert names(storage.check_security())["open archive folder"] is Gravity.MODERATE
    storage.home.chmod(0o700)
    assert "open archive folder" not in names(storage.check_security())


def test_a_server_that_others_reach_is_named_while_it_runs(storage: AudioStorageSystem) -> None:
    with served.noted(storage.home, "127.0.0.1", 8765):
        assert "served without TLS" not in names(storage.check_security())
    with served.noted(storage.home, "0.0.0.0", 8765):  # noqa: S104 - what is to be seen
        report = storage.check_security()
        assert names(report)["served without TLS"] is Gravity.SERIOUS
        assert "0.0.0.0, port 8765" in said(report, "served without TLS")
        assert storage.verify(deep=True).clean
    assert "served without TLS" not in names(storage.check_security())


def test_the_note_of_a_server_that_was_killed_does_not_count(storage: AudioStorageSystem) -> None:
    folder = storage.home / served.FOLDER
    folder.mkdir(mode=0o700)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    note = {"host": "0.0.0.0", "port": 1, "process": gone.pid, "machine": socket.gethostname(), "since": "2026-01-01"}  # noqa: S104
    (folder / f"{gone.pid}.json").write_text(json.dumps(note))
    for number, damaged in enumerate(["", "[]", "{}", "{", '{"host": 1}', "x" * 20_000]):
        (folder / f"{number}.json").write_text(damaged)
    assert "served without TLS" not in names(storage.check_security())
    (folder / "elsewhere.json").write_text(json.dumps({**note, "machine": "another"}))
    assert "on another" in said(storage.check_security(), "served without TLS")


@posix
def test_a_key_in_the_archive_or_its_backups_is_named(
    storage: AudioStorageSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backups = tmp_path / "backups"
    for folder in (storage.home, backups, tmp_path / "apart"):
        folder.mkdir(exist_ok=True)
        (folder / "the.key").touch(mode=0o600)
    row = {"destination": str(backups), "set_id": "1", "taken_at": utc_now()}
    with storage._archive.database.write() as connection:
        connection.execute(insert(backup_sets), row)
    for folder in (storage.home, backups):
        monkeypatch.setenv("AUDIO_STORAGE_KEY_FILE", str(folder / "the.key"))
        assert names(storage.check_security())["key beside the data"] is Gravity.SERIOUS
    apart = tmp_path / "apart" / "the.key"
    monkeypatch.setenv("AUDIO_STORAGE_KEY_FILE", str(apart))
    assert not {"key beside the data", "open key file"} & names(storage.check_security()).keys()
    apart.chmod(0o640)
    assert names(storage.check_security())["open key file"] is Gravity.MODERATE
    monkeypatch.setenv("AUDIO_STORAGE_KEY", "not-shown-anywhere")
    report = storage.check_security()
    assert "key in environment" in names(report) and "not-shown-anywhere" not in json.dumps(report.as_dict())


def test_a_password_in_the_settings_file_is_named_and_not_shown(tmp_path: Path) -> None:
    with AudioStorageSystem(tmp_path / "archive") as storage:
        file = storage.home / "audio-storage.toml"
        file.write_text('database_url = "postgresql://john:opensesame@db.example/x"\n')
        storage.home.chmod(0o755)
        file.chmod(0o644)
        report = storage.check_security()
        assert names(report)["secret in settings"] is Gravity.SERIOUS
        file.chmod(0o600)
        assert names(storage.check_security())["secret in settings"] is Gravity.MODERATE
        assert "opensesame" not in json.dumps(report.as_dict())
        storage.home.chmod(0o700)
        file.chmod(0o666)
        assert "settings others write" not in names(storage.check_security())
        storage.home.chmod(0o755)
        assert names(storage.check_security())["settings others write"] is Gravity.SERIOUS
        file.unlink()


def test_tokens_and_people_that_nobody_uses_are_named(storage: AudioStorageSystem) -> None:
    with storage._archive.database.write() as connection:
        for id_, name, kind in ((2, "john", "user"), (3, "crew", "group"), (4, "mary", "user")):
            connection.execute(insert(principals), {"id": id_, "name": name, "kind": kind, "created_at": OLD})
        token = {"created_by": 1, "scopes": [], "created_at": OLD}
        later, day = utc_now() + timedelta(days=9), timedelta(days=1)
        for number, given in enumerate(
            (
                {"principal_id": 2, "name": "for ever", "last_used_at": utc_now()},
                {"principal_id": 2, "name": "forgotten", "expires_at": later},
                {"principal_id": 2, "name": "gone by", "expires_at": utc_now() - day, "last_used_at": utc_now()},
                {"principal_id": 2, "name": "taken away", "revoked_at": utc_now()},
                {"principal_id": 2, "name": "in order", "expires_at": later, "last_used_at": utc_now()},
            )
        ):
            connection.execute(insert(api_tokens), {**token, **given, "digest": f"{number:064}"})
    storage.grants.give("mary", "reader", everything=True)
    report = storage.check_security()
    assert "for ever" in said(report, "tokens without expiry") and "in order" not in said(
        report, "tokens without expiry"
    )
    assert "forgotten" in said(report, "unused tokens") and "for ever" not in said(report, "unused tokens")
    assert "gone by" in said(report, "expired tokens")
    assert "taken away" not in json.dumps(report.as_dict())
    assert "mary" in said(report, "stale principals") and "john" not in said(report, "stale principals")
    assert "crew" in said(report, "empty groups")
    lenient = storage.check_security(stale_days=500)
    assert not {"unused tokens", "stale principals"} & names(lenient).keys()


def test_old_and_unverified_backups_and_a_full_trash_are_named(storage: AudioStorageSystem, demo: Path) -> None:
    audio_id = storage.store_audio_file(demo / "call.flac")
    entry = {
        "chain": "c",
        "sequence": 1,
        "at": utc_now(),
        "principal_id": 1,
        "principal": "owner",
        "action": "read",
        "origin": "here",
        "details": {},
        "mac": "0" * 64,
    }
    thrown = {"audio_file_id": int(audio_id), "trashed_by": 1, "purge_after": OLD}
    with storage._archive.database.write() as connection:
        connection.execute(insert(backup_sets), {"destination": "s3://b/p", "set_id": "1", "taken_at": OLD})
        connection.execute(insert(audit_log), entry)
        connection.execute(insert(trash), thrown)
    found = names(storage.check_security())
    assert {"old backup", "unverified backup", "trash not emptied"} <= found.keys()
    assert not {"no backup", "no audit log"} & found.keys()
    good = {"destination": "s3://b/p", "set_id": "2", "taken_at": utc_now(), "verified_at": utc_now()}
    with storage._archive.database.write() as connection:
        connection.execute(insert(backup_sets), good)
        connection.execute(trash.delete())
    assert not {"old backup", "unverified backup", "trash not emptied"} & names(storage.check_security()).keys()


@pytest.mark.parametrize(
    ("variable", "url", "named"),
    [
        ("AWS_ENDPOINT_URL", "http://minio.example:9000", True),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9000", False),
        ("AWS_ENDPOINT_URL", "https://minio.example", False),
        ("OPENAI_BASE_URL", "http://models.example/v1", True),
    ],
)
def test_services_over_plain_http_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, url: str, named: bool
) -> None:
    monkeypatch.setenv(variable, url)
    with AudioStorageSystem(tmp_path / "archive") as storage:
        assert ("no TLS" in names(storage.check_security())) is named


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("postgresql://me:opensesame@db.example/x", "no TLS to the database"),
        ("postgresql://db.example/x?sslmode=require", "unverified database"),
        ("postgresql://db.example/x?sslmode=verify-full", ""),
        ("postgresql://localhost/x", ""),
        ("postgresql:///x?host=/run/postgresql", ""),
    ],
)
def test_a_database_far_away_without_tls_is_named(url: str, name: str) -> None:
    from audio_storage_system.security import places

    found = list(places._database_address(url))
    assert [weakness.name for weakness in found] == ([name] if name else [])
    assert "opensesame" not in str(found)


@posix
def test_an_open_temporary_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loose = tmp_path / "tmp"
    loose.mkdir()
    loose.chmod(0o777)
    monkeypatch.setattr(tempfile, "tempdir", str(loose))
    with AudioStorageSystem(tmp_path / "archive") as storage:
        assert names(storage.check_security())["open temporary folder"] is Gravity.SERIOUS
        loose.chmod(0o1777)
        assert "open temporary folder" not in names(storage.check_security())


def advisory(name: str, *events: dict[str, str], **more: object) -> dict[str, object]:
    ranges = [{"type": "ECOSYSTEM", "events": list(events)}]
    affected = [{"package": {"name": name, "ecosystem": "PyPI"}, "ranges": ranges}]
    return {"id": "PYSEC-2026-1", "aliases": ["CVE-2026-1"], "affected": affected, **more}


@pytest.mark.parametrize(
    ("events", "vulnerable"),
    [
        ([{"introduced": "0"}], True),
        ([{"introduced": "0"}, {"fixed": "9999"}], True),
        ([{"introduced": "0"}, {"fixed": "0.1"}], False),
        ([{"introduced": "9999"}], False),
        ([{"introduced": "0"}, {"last_affected": "0.1"}], False),
        ([{"introduced": "0"}, {"fixed": "0.1"}, {"introduced": "0.2"}, {"fixed": "9999"}], True),
    ],
)
@pytest.mark.parametrize("write", [json.dumps, "yaml"])
def test_installed_packages_are_held_against_the_advisories(
    tmp_path: Path, events: list[dict[str, str]], vulnerable: bool, write: Callable[[object], str] | str
) -> None:
    folder = tmp_path / "advisories" / "vulns" / "numpy"
    folder.mkdir(parents=True)
    data = advisory("NumPy", *events)
    if write == "yaml":
        yaml = pytest.importorskip("yaml")
        (folder / "PYSEC-2026-1.yaml").write_text(yaml.safe_dump(data))
    else:
        (folder / "PYSEC-2026-1.json").write_text(json.dumps(data))
    with AudioStorageSystem(tmp_path / "archive") as storage:
        report = storage.check_security(advisory_database=tmp_path / "advisories")
    assert report.serious is vulnerable and "vulnerable packages" not in report.unchecked
    if vulnerable:
        assert "CVE-2026-1" in said(report, "vulnerable package")
        assert ("9999" in said(report, "vulnerable package")) is ({"fixed": "9999"} in events)


@pytest.mark.parametrize(
    "content",
    [
        "[" * 100_000,
        '{"affected": 3}',
        '{"affected": [{"package": 5}]}',
        "\x00",
        '{"affected": [{"ranges": [1]}]}',
        "3",
    ],
)
def test_files_that_are_no_advisories_are_passed_over(tmp_path: Path, content: str) -> None:
    folder = tmp_path / "advisories"
    folder.mkdir()
    (folder / "a.json").write_text(content)
    (folder / "b.json").write_text(json.dumps(advisory("numpy", {"introduced": "0"}, withdrawn="2026-01-01T00:00:00Z")))
    with AudioStorageSystem(tmp_path / "archive") as storage:
        assert not storage.check_security(advisory_database=folder).serious


def test_an_encrypted_archive_is_told_what_stays_in_the_clear(storage: AudioStorageSystem) -> None:
    from dataclasses import replace

    archive = replace(storage._archive, keys=ArchiveKeys(storage._archive.marker.archive_id, b"k" * 32))
    found = names(check_security(archive))
    assert "not encrypted" not in found
    assert ("plain catalogue" in found) is (archive.database.dialect.name == "postgresql")


def test_the_command_says_it_and_exits_with_1_when_it_is_serious(run: Command, tmp_path: Path) -> None:
    home = tmp_path / "mine"
    AudioStorageSystem(home).close()
    assert run("doctor", "--security", "--archive", home).code == 0
    home.chmod(0o777)
    done = run("doctor", "--security", "--archive", home, "--json")
    assert done.code == 1 and done.data["serious"] is True
    assert "chmod 700" in run("doctor", "--security", "--archive", home).out


def test_only_who_may_everything_may_ask(storage: AudioStorageSystem) -> None:
    storage.users.add("john")
    john = storage.as_user("john")
    for ask in (john.check_security, john.verify):
        with pytest.raises(Forbidden):
            ask()
    storage.grants.give("john", "admin", everything=True)
    assert storage.as_user("john").verify().clean
