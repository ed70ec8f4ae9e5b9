"""Copies that are killed, that run at the same time, and whose source is being written to meanwhile."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from audio_storage_system import AudioStorageSystem, copy_archive
from audio_storage_system.errors import ArchiveNotFound
from copying import content, fill_much, sound

# Ends the process when bytes have their key and not yet their row.
BEFORE_THE_ROW = """
import os, sys
from audio_storage_system import copy_archive
from audio_storage_system.transfer import recordings
recordings._write = lambda *_: os._exit(9)
copy_archive(*sys.argv[1:])
"""
# Ends it when there are tables and not yet an archive.
BEFORE_THE_FOUNDING = """
import os, sys
from audio_storage_system import copy_archive
from audio_storage_system.archive import copies
copies.identify = lambda *_: os._exit(9)
copy_archive(*sys.argv[1:])
"""
PROGRAM = (
    "import sys; from audio_storage_system import copy_archive; sys.exit(not copy_archive(*sys.argv[1:]).complete)"
)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    fill_much(folder / "original", folder, recordings=60, passages=60)
    return folder / "original"


@pytest.fixture(params=["sqlite", "postgresql"])
def destination(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Where a copy goes: a folder, or what names a database on a server."""
    home = tmp_path / "copy"
    if request.param == "sqlite":
        return home
    home.mkdir()
    settings = home / "audio-storage.toml"
    settings.write_text(f'database_url = "{request.getfixturevalue("postgres_url")}"')
    return settings


def start(source: Path, destination: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", PROGRAM, str(source), str(destination)])


def seconds_of_one(source: Path, folder: Path) -> float:
    began = time.monotonic()
    assert start(source, folder / "undisturbed").wait() == 0
    return time.monotonic() - began


@pytest.mark.timeout(900)
def test_a_copy_killed_at_any_moment_goes_on(template: Path, destination: Path, tmp_path: Path) -> None:
    whole, chance = seconds_of_one(template, tmp_path), random.Random(7)
    for number in range(10):
        process = start(template, destination)
        time.sleep(whole * chance.uniform(0.25, 1.0))
        process.kill()
        process.wait()
        if number % 3 == 2:  # somebody looks, which recovers what crashed
            with suppress(ArchiveNotFound):
                AudioStorageSystem(destination, create=False).close()
    assert start(template, destination).wait() == 0
    assert content(destination) == content(template)
    with AudioStorageSystem(destination) as storage:
        assert storage.search_similar_audio('"says 17"', mode="keyword", limit=100).total == 60


def test_who_looks_at_a_copy_that_was_killed_before_it_was_founded_founds_no_other_archive(
    template: Path, destination: Path
) -> None:
    done = subprocess.run([sys.executable, "-c", BEFORE_THE_FOUNDING, str(template), str(destination)])
    assert done.returncode == 9
    with pytest.raises(ArchiveNotFound):
        AudioStorageSystem(destination, create=False)
    assert copy_archive(template, destination).complete
    assert content(destination) == content(template)


def test_bytes_without_a_row_are_not_taken_for_recordings_of_their_own(template: Path, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", BEFORE_THE_ROW, str(template), str(tmp_path / "copy")])
    assert done.returncode == 9 and list((tmp_path / "copy" / "audio_files").rglob("*.wav"))
    with AudioStorageSystem(tmp_path / "copy", create=False) as half:
        assert half.list_recordings() == []
    report = copy_archive(template, tmp_path / "copy")
    assert report.complete and report.blobs_verified == 60 > report.blobs_copied
    assert content(tmp_path / "copy") == content(template)


def test_two_copies_at_once_make_one(template: Path, destination: Path) -> None:
    processes = [start(template, destination) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert content(destination) == content(template)


def test_what_comes_late_with_lower_ids_is_found(tmp_path: Path) -> None:
    """A recording whose file was damaged comes with a later copy, when the index has long read beyond its ids."""
    source = tmp_path / "original"
    vectors = fill_much(source, tmp_path, recordings=50, passages=100, model="user:known")
    with AudioStorageSystem(source) as storage:
        path = source / storage.get_recording(1).file_path
    good = path.read_bytes()
    path.write_bytes(b"damaged")
    assert not copy_archive(source, tmp_path / "copy").complete
    path.write_bytes(good)
    assert copy_archive(source, tmp_path / "copy").complete
    with AudioStorageSystem(tmp_path / "copy") as storage:
        storage.use_embedder(lambda _: vectors[7], name="known")
        best = storage.search_similar_audio("anything", mode="semantic", limit=1)[0]
        assert best.audio_id == 1 and best.similarity == pytest.approx(1)


def test_the_source_may_be_written_to_meanwhile(template: Path, tmp_path: Path) -> None:
    source, done = tmp_path / "original", threading.Event()
    shutil.copytree(template, source)

    def write() -> None:
        with AudioStorageSystem(source) as storage:
            for number in range(1_000):
                if done.is_set():
                    return
                added = storage.store_audio_file(sound(tmp_path / f"new{number}.wav", 1_000 + number))
                storage.set_metadata(31 + number % 30, {"seed": number})
                if number % 3 == 0:
                    storage.delete(added)
                if number % 7 == 0 and number < 28:
                    storage.delete(2 + number)

    writer = threading.Thread(target=write)
    writer.start()
    for _ in range(3):
        report = copy_archive(source, tmp_path / "copy")
        assert report.problems == []
    done.set()
    writer.join()
    assert copy_archive(source, tmp_path / "copy").complete
    assert content(tmp_path / "copy") == content(source)
