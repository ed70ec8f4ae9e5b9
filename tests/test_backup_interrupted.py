"""Backups and restores that are killed: a set exists whole or not at all, and so does a restored archive."""

from __future__ import annotations

import os
import random
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from audio_storage_system import AudioStorageSystem, restore_backup
from audio_storage_system.errors import ArchiveNotFound, Conflict, RestoreUnfinished
from backing import audio, back_up, carry_out, objects, rows
from copying import fill_much, sound
from working import ended, kill, processes

CREATING = [("claimed", 1), ("packed", 1), ("packed", 4), ("brought", 2), ("made", 1), ("written", 1)]
RESTORING = [
    *[("marked", 1), ("founded", 1), ("rows", 1), ("rows", 9), ("buried", 1), ("audio", 2), ("derived", 1)],
    *[("finished", 1), ("marked", 2)],
]
PRUNING = [("removed", 1), ("sweeping", 1), ("sweeping", 3)]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    fill_much(folder / "archive", folder, recordings=4, passages=30)
    return folder / "archive"


@pytest.fixture
def archive(template: Path, tmp_path: Path) -> Path:
    shutil.copytree(template, tmp_path / "a")
    return tmp_path / "a"


def start(*arguments: object) -> Any:
    process = processes().Process(target=carry_out, args=(dict(os.environ), *map(str, arguments)))
    process.start()
    return process


def dies(*arguments: object) -> bool:
    return ended(start(*arguments)) == -9


@pytest.mark.parametrize(("point", "times"), CREATING)
def test_a_backup_killed_is_no_set_or_a_whole_one(point: str, times: int, archive: Path, tmp_path: Path) -> None:
    dest = tmp_path / "backup"
    assert dies("create", archive, dest, point, times)
    there = list((dest / "sets").glob("*")) if (dest / "sets").exists() else []
    assert len(there) == (1 if point == "written" else 0)
    kept = {name: content for name, content in objects(dest).items() if name.startswith(("packs", "blobs"))}
    with AudioStorageSystem(archive) as storage:
        report = storage.backups.create(dest)
        assert report.complete and storage.backups.verify(dest).whole
    assert kept.items() <= objects(dest).items()
    if point in ("made", "written"):
        assert report.blobs_copied == 0 and report.packs_written <= 1
    assert restore_backup(str(dest), str(tmp_path / "b")).complete
    assert rows(tmp_path / "b") == rows(archive) and audio(tmp_path / "b") == audio(archive)


@pytest.mark.parametrize(("point", "times"), RESTORING)
def test_a_restore_killed_is_no_archive_and_goes_on(point: str, times: int, archive: Path, tmp_path: Path) -> None:
    dest, place = tmp_path / "backup", tmp_path / "b"
    back_up(archive, dest)
    assert dies("restore", dest, place, point, times)
    if (point, times) == ("marked", 2):
        AudioStorageSystem(place, create=False).close()  # it was done
        return
    with pytest.raises((RestoreUnfinished, ArchiveNotFound)):
        AudioStorageSystem(place, create=False)
    report = restore_backup(str(dest), str(place))
    assert report.complete
    assert rows(place) == rows(archive) and audio(place) == audio(archive)
    with AudioStorageSystem(place, create=False) as storage:
        assert storage.search_similar_audio('"says 17"', mode="keyword", limit=100).total == 4


@pytest.mark.parametrize(("point", "times"), PRUNING)
def test_pruning_killed_takes_nothing_that_a_set_needs(point: str, times: int, archive: Path, tmp_path: Path) -> None:
    dest = tmp_path / "backup"
    with AudioStorageSystem(archive) as storage:
        for number in (1, 2, 3):
            storage.backups.create(dest)
            storage.delete(number)
        last = storage.backups.create(dest).set_id
        assert storage.backups.verify(dest).whole
    assert dies("prune", archive, dest, point, times)
    with AudioStorageSystem(archive) as storage:
        for one in storage.backups.list(dest):
            assert storage.backups.verify(dest, one.set_id).whole
        storage.backups.prune(dest, keep_last=1)
        assert [one.set_id for one in storage.backups.list(dest)] == [last]
        assert storage.backups.verify(dest).whole
        assert len([name for name in objects(dest) if name.startswith("blobs")]) == 1
        assert storage.backups.prune(dest, keep_last=1).objects == 0


def test_a_backup_killed_at_any_moment_goes_on(archive: Path, tmp_path: Path) -> None:
    dest, chance = tmp_path / "backup", random.Random(3)
    began = time.monotonic()
    assert ended(start("create", archive, tmp_path / "undisturbed")) == 0
    whole = time.monotonic() - began
    for number in range(4):
        process = start("create", archive, dest)
        time.sleep(whole * chance.uniform(0.1, 1.0))
        kill(process)
        if number % 2:
            with AudioStorageSystem(archive) as storage:
                storage.set_metadata(1, {"number": number})
    back_up(archive, dest)
    for _ in range(4):
        process = start("restore", dest, tmp_path / "b")
        time.sleep(whole * chance.uniform(0.1, 1.0))
        kill(process)
    try:
        assert restore_backup(str(dest), str(tmp_path / "b")).complete
    except Conflict as error:  # the last one was done before it was killed
        assert "never replaces" in str(error)
    assert rows(tmp_path / "b") == rows(archive) and audio(tmp_path / "b") == audio(archive)


def test_one_at_a_time(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has the lease lives, so a second one is refused; a dead one's is taken over at once."""
    dest = tmp_path / "backup"
    monkeypatch.setattr("audio_storage_system.backup.lease.BEAT_SECONDS", 0.2)
    with AudioStorageSystem(archive) as storage:

        def second(_: object) -> None:
            with pytest.raises(Conflict, match="makes a backup"):
                storage.backups.create(dest)

        told: list[object] = []
        storage.backups.create(dest, progress=lambda one: told or (told.append(one), second(one)))  # type: ignore[func-returns-value]
        assert told and not (dest / "in_use.json").exists()


def test_a_machine_that_vanished_is_waited_for(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dest = tmp_path / "backup"
    back_up(archive, dest)
    (dest / "in_use.json").write_text('{"holder": "x", "purpose": "create", "place": "far/away", "process": 1}')
    monkeypatch.setattr("audio_storage_system.backup.lease.BEAT_SECONDS", 0.1)
    monkeypatch.setattr("audio_storage_system.backup.lease.DEAD_AFTER_SECONDS", 0.5)
    began = time.monotonic()
    back_up(archive, dest)
    assert time.monotonic() - began >= 0.5


def test_a_backup_that_lost_its_lease_writes_no_set(archive: Path, tmp_path: Path) -> None:
    """Who stood still for so long that it seemed dead does not know what was removed meanwhile."""
    dest = tmp_path / "backup"

    def take(_: object) -> None:
        (dest / "in_use.json").write_text('{"holder": "another"}')

    with AudioStorageSystem(archive) as storage, pytest.raises(Conflict, match="took over"):
        storage.backups.create(dest, progress=take)
    assert not (dest / "sets").exists()


def test_a_restore_goes_on_onto_a_server(archive: Path, tmp_path: Path, postgres_url: str, s3_url: str) -> None:
    back_up(archive, tmp_path / "backup")
    (tmp_path / "b").mkdir()
    server = tmp_path / "b" / "audio-storage.toml"
    server.write_text(f'database_url = "{postgres_url}"\nblobs_url = "{s3_url}"\n')
    for point, times in [("marked", 1), ("rows", 5), ("audio", 3), ("finished", 1)]:
        assert dies("restore", tmp_path / "backup", server, point, times)
        with pytest.raises(RestoreUnfinished):
            AudioStorageSystem(server)
    assert restore_backup(str(tmp_path / "backup"), str(server)).complete
    assert rows(server) == rows(archive) and audio(server) == audio(archive)


def test_what_is_new_after_a_restore_gets_ids_of_its_own(archive: Path, tmp_path: Path) -> None:
    with AudioStorageSystem(archive) as storage:
        storage.delete(4)
    back_up(archive, tmp_path / "backup")
    restore_backup(str(tmp_path / "backup"), str(tmp_path / "b"))
    with AudioStorageSystem(tmp_path / "b") as storage:
        assert storage.store_audio_file(sound(tmp_path / "n.wav", 77)) == 5
