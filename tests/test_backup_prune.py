"""Which sets are kept: the plan has no I/O, and the last set known to be good is never removed."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio_storage_system import AudioStorageSystem, restore_backup
from audio_storage_system.backup.pruning import Keep, Taken, plan
from audio_storage_system.cli import main
from audio_storage_system.errors import InvalidInput
from backing import back_up, objects
from copying import fill

START = datetime(2026, 1, 1, tzinfo=UTC)


def taken(hours: float, verified: bool = True) -> Taken:
    at = START + timedelta(hours=hours)
    return Taken(f"{at:%Y%m%dT%H%M%S}", at, verified)


def kept(sets: list[Taken], **keep: int) -> list[str]:
    return [decision.set_id for decision in plan(sets, Keep(**keep), START) if decision.keep]


def test_the_last_of_each_day_week_and_month_stays() -> None:
    sets = [taken(12 * number) for number in range(120)]  # two a day, for sixty days
    assert kept(sets, last=2) == [sets[119].set_id, sets[118].set_id]
    assert kept(sets, daily=3) == [sets[119].set_id, sets[117].set_id, sets[115].set_id]
    assert [id_[:8] for id_ in kept(sets, weekly=3)] == ["20260301", "20260222", "20260215"]  # Sundays
    assert [id_[:8] for id_ in kept(sets, monthly=9)] == ["20260301", "20260228", "20260131"]
    assert len(kept(sets, last=1, daily=7, monthly=3)) == 8


def test_nothing_goes_before_a_newer_one_is_verified() -> None:
    good, unknown, newest = taken(0), taken(24, False), taken(48, False)
    assert len(kept([good, unknown, newest], last=1)) == 3
    assert [decision.reason for decision in plan([good, newest], Keep(last=1), START)] == [
        "last",
        "no newer set that stays was verified",
    ]
    proven = Taken(newest.set_id, newest.taken_at, True)
    assert kept([good, unknown, proven], last=1) == [proven.set_id]
    assert kept([good, proven, taken(60, False)], last=2) == [taken(60).set_id, proven.set_id]


@given(
    sets=st.lists(st.tuples(st.integers(0, 20_000), st.booleans()), max_size=40, unique_by=lambda one: one[0]),
    keep=st.tuples(*[st.integers(0, 5)] * 4).filter(any),
)
def test_whatever_is_kept_a_good_one_is_among_it(sets: list[tuple[int, bool]], keep: tuple[int, ...]) -> None:
    given_sets = [taken(hours, verified) for hours, verified in sets]
    decisions = plan(given_sets, Keep(*keep), START)
    assert sorted(one.set_id for one in decisions) == sorted(one.set_id for one in given_sets)
    staying = {one.set_id for one in decisions if one.keep}
    good = [one for one in given_sets if one.verified]
    for gone in (one for one in given_sets if one.set_id not in staying):
        assert any(one.set_id in staying and one.taken_at > gone.taken_at for one in good)
    again = plan([one for one in given_sets if one.set_id in staying], Keep(*keep), START)
    assert all(one.keep for one in again) or not good  # planning twice removes nothing more


def test_asking_for_nothing_is_refused() -> None:
    for wrong in ({}, {"last": -1, "daily": 1}):
        with pytest.raises(InvalidInput):
            kept([taken(0)], **wrong)


def test_a_set_with_a_term_goes_by_that_alone() -> None:
    sets = [replace(taken(24 * day), expires_at=START + timedelta(days=day + 3)) for day in range(10)]
    decisions = plan(sets, Keep(), START + timedelta(days=9))
    assert [one.set_id for one in decisions if one.keep] == [one.set_id for one in sets[:6:-1]]
    assert {one.reason for one in decisions[-2:]} == {"expired on 2026-01-04", "expired on 2026-01-05"}
    unproven = [replace(one, verified=one is sets[0]) for one in sets]
    assert plan(unproven, Keep(), START + timedelta(days=99))[-1].keep, "the last good one stays"
    mixed = [*sets, taken(1)]
    assert taken(1).set_id in [one.set_id for one in plan(mixed, Keep(last=1), START) if one.keep]


@pytest.mark.usefixtures("scripted_engine")
def test_a_receipt_says_until_when_a_backup_holds_it(home: Path, tmp_path: Path) -> None:
    fill(home, tmp_path, 2)
    dest = tmp_path / "backup"
    with AudioStorageSystem(home, create=False) as storage:
        for wrong in (0, -1, 1e9, float("nan")):
            with pytest.raises(InvalidInput):
                storage.backups.create(dest, keep_days=wrong)
        made = storage.backups.create(dest, keep_days=7)
        assert made.expires_at == made.taken_at + timedelta(days=7)
        [held] = storage.delete(1).backups
        assert datetime.fromisoformat(held["expires_at"]) == made.expires_at
        storage.backups.create(dest)
        assert [one["expires_at"] is None for one in storage.delete(2).backups] == [False, True]
        with pytest.raises(InvalidInput):
            storage.backups.prune(dest)
        assert [one.expires_at for one in storage.backups.list(dest)] == [made.expires_at, None]
    restore_backup(str(dest), str(tmp_path / "b"), set_id=made.set_id)
    with AudioStorageSystem(tmp_path / "b", create=False) as restored:
        assert [one.expires_at for one in restored.backups.list()] == [made.expires_at]


@pytest.mark.usefixtures("scripted_engine")
@pytest.mark.parametrize("how", ["verify", "rehearse"])
def test_no_set_goes_for_one_that_is_rotten_by_now(how: str, tmp_path: Path) -> None:
    archive, dest = tmp_path / "a", tmp_path / "backup"
    fill(archive, tmp_path, 1)
    old = back_up(archive, dest)
    with AudioStorageSystem(archive) as storage:
        storage.set_metadata(1, {"kind": "call"})
        new = storage.backups.create(dest).set_id
        assert storage.backups.verify(dest).whole
        for path in (dest / "blobs").rglob("*"):
            if path.is_file():
                path.write_bytes(b"rot")
        assert not getattr(storage.backups, how)(dest).whole
        assert [one.verified_at for one in storage.backups.list(dest)] == [None, None]
        storage.backups.prune(dest, keep_last=1)
        assert {one.set_id for one in storage.backups.list(dest) if one.there} == {old, new}


@pytest.mark.usefixtures("scripted_engine")
def test_what_only_removed_sets_needed_goes_with_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive, dest = tmp_path / "a", tmp_path / "backup"
    fill(archive, tmp_path, 3)
    first = back_up(archive, dest)
    with AudioStorageSystem(archive) as storage:
        storage.delete(1)
    last = back_up(archive, dest)
    prune = ["backup", "prune", str(dest), "--keep-last", "1", "--archive", str(archive), "--json"]
    assert main(prune) == 0
    decisions = json.loads(capsys.readouterr().out)["decisions"]
    assert [(one["set_id"], one["keep"]) for one in decisions] == [(last, True), (first, True)]
    assert main(["backup", "verify", str(dest), "--archive", str(archive)]) == 0
    before = objects(dest)
    capsys.readouterr()
    assert main([*prune, "--dry-run"]) == 0 and objects(dest) == before
    assert [one["keep"] for one in json.loads(capsys.readouterr().out)["decisions"]] == [True, False]
    assert main(prune) == 0
    report = json.loads(capsys.readouterr().out)
    after = objects(dest)
    assert len(before) - len(after) == report["objects"] > 3 and report["bytes"] > 96_000
    assert len([name for name in after if name.startswith("blobs")]) == 2
    assert main(["backup", "verify", str(dest), "--archive", str(archive)]) == 0
    assert main(["backup", "prune", str(dest), "--archive", str(archive)]) == 2
