"""The audit log verified, anchored, exported, and by its commands."""

from __future__ import annotations

import csv
import io
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audio_storage_system import AudioStorageSystem
from audio_storage_system.audit import Anchor, AuditLog, heads, verify
from audio_storage_system.cli import main
from audio_storage_system.errors import InvalidInput, NotFound
from audio_storage_system.keys import ArchiveKeys
from audited import KEYS, actions, audited, note, rows, speech_file
from catalogues import Catalogues, open_database, plain_sql

# Tampering


def filled(log: AuditLog, chains: int = 3, entries: int = 6) -> Anchor:
    """A log of several chains, and its anchor."""
    for chain in range(chains):
        again = AuditLog(log.database, KEYS)
        for number in range(entries):
            note(again, "recording.stored", number, chain=chain)
    with log.database.read() as connection:
        return heads(connection, KEYS)


FIELDS = {
    "action": "'recording.read'",
    "audio_id": "4711",
    "principal": "'mallory'",
    "principal_id": "666",
    "origin": "'elsewhere'",
    "details": "'{\"chain\": 9}'",
    "at": "'2020-01-01 00:00:00.000000+00'",
    "mac": "'" + "0" * 64 + "'",
    "sequence": "sequence + 1000",
    "id": "id + 1000000",
}


@pytest.mark.parametrize("field", FIELDS)
def test_an_edit_of_any_field_is_found(log: AuditLog, home: Path, field: str) -> None:
    anchor = filled(log)
    assert verify(log.database, KEYS, [anchor]).ok
    change = f"UPDATE audit_log SET {field} = {FIELDS[field]} WHERE sequence = 3"  # noqa: S608
    plain_sql(home, change)
    report = verify(log.database, KEYS)
    assert not report.ok and report.fault_count >= 3


def test_rows_that_are_no_entries_are_found_not_fallen_over(log: AuditLog, home: Path, catalogues: Catalogues) -> None:
    filled(log)
    bad = ["details = '[1]'", "details = 'null'"]
    if catalogues.name == "sqlite":
        bad += ["details = 'no json'", "at = 'never'", "principal_id = 'x'", "audio_id = 'x'", "mac = 7"]
    else:
        bad += ["at = 'infinity'"]
    ids = [row[4] for row in rows(home)]
    for one, id_ in zip(bad, ids, strict=False):
        plain_sql(home, f"UPDATE audit_log SET {one} WHERE id = ?", id_)  # noqa: S608
    report = verify(log.database, KEYS)
    assert report.fault_count >= len(bad)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_is_done_to_the_rows_is_found(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    home = tmp_path_factory.mktemp("tampered")
    with closing(open_database(home)) as database:
        log = AuditLog(database, KEYS)
        anchor = filled(log, data.draw(st.integers(1, 3), "chains"), data.draw(st.integers(1, 5), "entries"))
        places = [(chain, sequence) for chain, sequence, *_ in rows(home)]
        one, other = data.draw(st.sampled_from(places)), data.draw(st.sampled_from(places))
        here = "chain = ? AND sequence = ?"
        kind = data.draw(st.sampled_from(["edit", "delete", "truncate", "swap", "insert", "copy"]))
        if kind == "edit":
            field = data.draw(st.sampled_from(sorted(FIELDS.keys() - {"id"})))  # which only orders listings
            plain_sql(home, f"UPDATE audit_log SET {field} = {FIELDS[field]} WHERE {here}", *one)  # noqa: S608
        elif kind == "delete":
            plain_sql(home, f"DELETE FROM audit_log WHERE {here}", *one)  # noqa: S608
        elif kind == "truncate":
            plain_sql(home, "DELETE FROM audit_log WHERE chain = ? AND sequence >= ?", *one)
        elif kind == "swap":
            if one[0] != other[0] or one == other:
                return
            for chain, sequence, to in ((*one, -1), (*other, one[1]), (one[0], -1, other[1])):
                plain_sql(home, f"UPDATE audit_log SET sequence = ? WHERE {here}", to, chain, sequence)  # noqa: S608
        else:
            chain = one[0] if kind == "insert" else "another chain"
            columns = "at, principal_id, principal, action, audio_id, origin, details, mac"
            copied = f"INSERT INTO audit_log (chain, sequence, {columns}) SELECT ?, ?, {columns} FROM audit_log"  # noqa: S608
            at = max(int(str(sequence)) for of, sequence in places if of == one[0]) + 1 if kind == "insert" else one[1]
            plain_sql(home, f"{copied} WHERE {here}", chain, at, *one)
        assert not verify(database, KEYS, [anchor]).ok, kind


def test_truncation_is_found_back_past_an_anchor_and_by_chains_that_began_later(log: AuditLog, home: Path) -> None:
    anchor = filled(log, chains=1)
    late = AuditLog(log.database, KEYS)
    note(late, audio_id=77)
    [(last,)] = plain_sql(home, "SELECT chain FROM audit_log WHERE audio_id = 77")
    [(first,)] = plain_sql(home, "SELECT DISTINCT chain FROM audit_log WHERE chain <> ?", last)
    plain_sql(home, "DELETE FROM audit_log WHERE chain = ?", last)
    assert verify(log.database, KEYS, [anchor]).ok, "what came after the anchor is not covered"
    again = AuditLog(log.database, KEYS)
    note(again)
    plain_sql(home, "DELETE FROM audit_log WHERE chain = ? AND sequence >= 5", first)
    assert {fault.what for fault in verify(log.database, KEYS).faults} == {"missing"}
    assert {fault.what for fault in verify(log.database, KEYS, [anchor]).faults} == {"missing", "anchor"}


def test_without_the_key_nothing_can_be_forged(log: AuditLog, home: Path) -> None:
    forger = AuditLog(log.database, ArchiveKeys("an archive", b"x" * 32))
    note(log)
    note(forger)
    assert {fault.what for fault in verify(log.database, KEYS).faults} == {"changed"}


def test_a_long_log_is_verified_in_batches(log: AuditLog, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audio_storage_system.audit.verification.AT_ONCE", 4)
    anchor = filled(log)
    told: list[tuple[int, int]] = []
    report = verify(log.database, KEYS, [anchor], lambda done, total: told.append((done, total)))
    assert report.ok and (report.entries, report.chains) == (21, 3)
    assert told[-1] == (21, 21) and len(told) == 6
    plain_sql(home, "UPDATE audit_log SET audio_id = 99 WHERE audio_id = 5")
    assert verify(log.database, KEYS).fault_count == 3


# The board


def test_an_anchor_file_is_checked_and_never_replaced(kept: AudioStorageSystem, tmp_path: Path, home: Path) -> None:
    kept.store_audio_file(speech_file(tmp_path / "a.wav"))
    file = tmp_path / "anchor.json"
    kept.audit.anchor(file)
    assert kept.audit.verify([file]).anchors == 1
    with pytest.raises(InvalidInput, match="already"):
        kept.audit.anchor(file)
    data = json.loads(file.read_text())
    data["heads"] = []
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps(data))
    for bad, why in ((changed, "was changed"), (tmp_path / "none", "cannot be read"), (tmp_path / "a.wav", "not JSON")):
        with pytest.raises(InvalidInput, match=why):
            kept.audit.verify([bad])
    plain_sql(home, "DELETE FROM audit_log")
    assert {fault.what for fault in kept.audit.verify([file]).faults} == {"anchor"}


def test_pages_and_exports_hold_every_entry(kept: AudioStorageSystem, tmp_path: Path) -> None:
    added = kept.store_audio_file(speech_file(tmp_path / "a.wav"))
    for number in range(10):
        kept.set_metadata(added, {"n": number})
    found, cursor = [], None
    while page := kept.audit.list(action="metadata.", limit=3, cursor=cursor):
        found += [one.id for one in page.entries]
        if (cursor := page.cursor) is None:
            break
    assert len(found) == 10 and found == sorted(found, reverse=True)
    stream = io.StringIO()
    assert kept.audit.export(stream, action="metadata.set") == 10
    assert [json.loads(line)["id"] for line in stream.getvalue().splitlines()] == found[::-1]
    file = tmp_path / "log.csv"
    kept.audit.export(file, "csv", audio_id=int(added))
    table = list(csv.DictReader(io.StringIO(file.read_text())))
    assert [row["action"] for row in table if row["action"].startswith("metadata")] == ["metadata.set"] * 10
    assert json.loads(table[-1]["details"]) and table[0]["principal"] == "owner"
    with pytest.raises(InvalidInput, match="already"):
        kept.audit.export(file, "csv")
    with pytest.raises(InvalidInput, match="no format"):
        kept.audit.export(stream, "xlsx")  # type: ignore[arg-type]


def test_a_formula_stays_text_in_a_table(log: AuditLog, home: Path) -> None:
    from audio_storage_system.auditing import _cell

    assert _cell("=HYPERLINK(1)") == "'=HYPERLINK(1)"


def test_what_is_read_in_an_archive_that_is_gone_is_an_error_as_ever(kept: AudioStorageSystem) -> None:
    with pytest.raises(NotFound):
        kept.get_recording(4711)
    assert actions(kept) == []


def test_adopted_recordings_are_entered(home: Path, tmp_path: Path, scripted_engine: object) -> None:
    from audio_storage_system.pipeline import adopt_orphans

    with audited(home) as storage:
        archive = storage._archive
        with speech_file(tmp_path / "a.wav").open("rb") as file:
            archive.blobs.publish(
                archive.blobs.stage(file, name="a.wav"), "audio_files/2026/11/audio_20261122_120000.wav"
            )
        [audio_id] = adopt_orphans(archive.database, archive.blobs, owner_id=1, audit=archive.audit)
        assert actions(storage, audio_id=audio_id) == ["recording.adopted"]


# The commands


def test_the_commands(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*words: str) -> tuple[int, Any]:
        code = main([*words, "--archive", str(home), "--json"])
        return code, json.loads(capsys.readouterr().out)

    with audited(home) as storage:
        added = int(storage.store_audio_file(speech_file(tmp_path / "a.wav")))
    assert run("metadata", "set", str(added), "user=john")[0] == 0
    assert run("show", str(added))[0] == 0
    listed = run("audit", "list", "--of", str(added))[1]["entries"]
    assert [one["action"] for one in listed][-2:] == ["metadata.set", "recording.stored"]
    assert listed[-2]["origin"].startswith("cli:metadata@") and listed[-2]["details"] == {"keys": ["user"]}
    anchor = str(tmp_path / "anchor.json")
    assert run("audit", "anchor", anchor)[0] == 0
    assert run("audit", "anchor", anchor)[0] == 2
    code, told = run("audit", "verify", "--anchor", anchor)
    assert (code, told["ok"], told["anchors"]) == (0, True, 1)
    code, told = run("audit", "export", str(tmp_path / "log.csv"), "--format", "csv", "--action", "metadata.set")
    assert (code, told["entries"]) == (0, 1)
    plain_sql(home, "DELETE FROM audit_log WHERE action = 'metadata.set'")
    code, told = run("audit", "verify", "--anchor", anchor)
    assert code == 1 and {fault["what"] for fault in told["faults"]} == {"missing"}
