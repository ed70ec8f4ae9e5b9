"""A process that records is killed, at named points and at random moments: nothing that it promised is lost, nothing
comes twice, and the session can be resumed, or is completed by whoever opens the archive next."""

from __future__ import annotations

import random
import time
from pathlib import Path

import numpy as np
import pytest

import living
import working
from audio_storage_system import AudioStorageSystem
from audio_storage_system.records import Outcome
from catalogues import Catalogues
from living import POINTS, RATE, Plan, Told, sentences, stored

pytestmark = pytest.mark.usefixtures("scripted_engine")
COUNT = 2
WHOLE = len(sentences(COUNT)) / RATE


def killed(plan: Plan) -> Told:
    """What was promised by a process that died as it was planned."""
    assert working.ended(living.start(plan)) == -9
    return Told.of(Path(plan.told))


def check_recovered(home: Path, told: Told) -> None:
    """One recording has all that was promised; nothing else is left."""
    with AudioStorageSystem(home, transcriber="scripted") as storage:
        recordings = storage.list_recordings()
        if not recordings:
            assert told.seconds == 0.0
            return
        [recording] = recordings
        assert recording.id == (told.audio_id or recording.id)
        assert (recording.status, recording.metadata) == ("stored", {"room": "blue"})
        sound = stored(storage, recording.id)
        assert len(sound) / RATE >= told.seconds - 0.001
        assert np.array_equal(sound, sentences(COUNT)[: len(sound)])
        check_versions(storage, recording.id, told)
        [job] = storage.jobs.find()
        assert (job.audio_id, job.kind) == (recording.id, "add")
        assert storage.verify(deep=True).clean
        assert list(storage._archive.blobs.keys("audio_files")) == [recording.file_path]
        assert not list((home / "spool").iterdir())
    with AudioStorageSystem(home) as storage:
        assert (storage.recovered, len(storage.list_recordings())) == ([], 1)


def check_versions(storage: AudioStorageSystem, audio_id: int, told: Told, pieces: int | None = None) -> None:
    """Every piece that was final is there, once."""
    versions = storage.transcripts(audio_id)
    assert len(versions) <= 1
    for version in versions:
        starts = [round(segment.start * 1000) for segment in storage.segments(version.id)]
        assert told.finals <= set(starts) and len(set(starts)) == len(starts)
        assert version.outcome is (Outcome.OK if starts else Outcome.FAILED)
        assert version.active == bool(starts)
        assert pieces is None or len(starts) == pieces
        found = storage.search_similar_audio("spoken", mode="keyword", limit=100)
        assert len(found) == len(starts)


FIRST = [(point, 1) for point in POINTS if point != "resuming"]
LATER = [("entering_piece", 3), ("committing", 2)]


@pytest.mark.parametrize(("point", "times"), FIRST + LATER)
def test_after_death_at_any_point_the_next_one_completes_it(tmp_path: Path, point: str, times: int) -> None:
    home = tmp_path / "archive"
    check_recovered(home, killed(Plan(str(home), str(tmp_path / "told"), COUNT, die_at=(point, times))))


@pytest.mark.parametrize("point", ["entered", "written", "committing", "embedded"])
def test_after_death_at_any_point_it_can_be_resumed(tmp_path: Path, point: str) -> None:
    home, file = tmp_path / "archive", tmp_path / "told"
    told = killed(Plan(str(home), str(file), COUNT, die_at=(point, 1), resume_seconds=60))
    check_resumed(home, file, told)


def check_resumed(home: Path, file: Path, told: Told) -> None:
    if not told.session:
        with AudioStorageSystem(home) as storage:
            told.session = storage.list_recordings()[0].file_hash.removeprefix("pending:")
    assert working.ended(living.start(Plan(str(home), str(file), COUNT, resume=told.session))) == 0
    after = Told.of(file)
    assert after.audio_id == (told.audio_id or after.audio_id)
    with AudioStorageSystem(home, transcriber="scripted") as storage:
        [recording] = storage.list_recordings()
        assert np.array_equal(stored(storage, recording.id), sentences(COUNT))
        check_versions(storage, recording.id, after, pieces=COUNT)
        assert storage.verify(deep=True).clean
    assert "report 0.00" in file.read_text()


def test_death_while_resuming_is_no_other_death(tmp_path: Path) -> None:
    home, file = tmp_path / "archive", tmp_path / "told"
    told = killed(Plan(str(home), str(file), COUNT, die_at=("written", 8), resume_seconds=60))
    killed(Plan(str(home), str(file), COUNT, resume=told.session, die_at=("resuming", 1)))
    killed(Plan(str(home), str(file), COUNT, resume=told.session, die_at=("written", 9)))
    check_resumed(home, file, told)


@pytest.mark.parametrize("seed", range(2))
def test_at_random_moments(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    home, file = tmp_path / "archive", tmp_path / "told"
    process = living.start(Plan(str(home), str(file), COUNT, resume_seconds=60 * (seed % 2), pace=5.0, finish=False))
    give_up = time.monotonic() + 60
    while not Told.of(file).seconds and time.monotonic() < give_up:
        time.sleep(0.02)
    time.sleep(draw.uniform(0, WHOLE / 5))
    working.kill(process)
    if seed % 2:
        check_resumed(home, file, Told.of(file))
    else:
        check_recovered(home, Told.of(file))


def test_in_an_encrypted_archive_too(tmp_path: Path) -> None:
    home, file = tmp_path / "archive", tmp_path / "told"
    with Catalogues(encrypted=True).at(home):
        told = killed(Plan(str(home), str(file), COUNT, die_at=("written", 23), resume_seconds=60))
        spool = b"".join(path.read_bytes() for path in (home / "spool").rglob("*") if path.is_file())
        assert b"scripted" not in spool and b"room" not in spool
        assert sentences(COUNT)[:64].tobytes() not in spool
        killed(Plan(str(home), str(file), COUNT, resume=told.session, die_at=("written", 11)))
        check_resumed(home, file, told)
