"""The trash: nobody finds what is in it, and it can be had back until its time is over."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete

from audio_storage_system import AudioStorageSystem, copy_archive
from audio_storage_system.archive import open_archive
from audio_storage_system.clock import NEVER
from audio_storage_system.database.tables import embeddings
from audio_storage_system.errors import DuplicateRecording, Forbidden, InTrash, NotFound, UnderLegalHold
from audio_storage_system.jobs import upkeep
from audio_storage_system.retention import Trash
from audio_storage_system.search import Filter, Query, run
from builders import Talk, fill, text_space, unit
from catalogues import plain_sql

pytestmark = pytest.mark.usefixtures("scripted_engine")


@pytest.fixture
def two(storage: AudioStorageSystem, demo: Path) -> tuple[int, int]:
    """A recording that stays and one that is thrown away."""
    return int(storage.add(demo / "voice_note.flac")), int(storage.add(demo / "call.flac", metadata={"user_id": "ann"}))


def test_what_is_thrown_away_is_found_by_no_call(storage: AudioStorageSystem, two: tuple[int, int], demo: Path) -> None:
    kept, gone = two
    version = storage.transcripts(gone)[0].id
    before = storage.stats()
    storage.trash.put(gone)
    calls: list[Callable[[], Any]] = [
        lambda: storage.get_recording(gone),
        lambda: storage.open_audio(gone),
        lambda: storage.audio_url(gone),
        lambda: storage.transcripts(gone),
        lambda: storage.get_transcript(version),
        lambda: storage.segments(version),
        lambda: storage.export(gone),
        lambda: storage.diff_transcripts(version, version),
        lambda: storage.get_user_audio("ann", gone),
        lambda: storage.set_metadata(gone, {"a": 1}),
        lambda: storage.remove_metadata(gone, "a"),
        lambda: storage.activate_transcript(version),
        lambda: storage.generate_transcript(gone),
        lambda: storage.generate_embeddings(gone),
        lambda: storage.retranscribe([gone]),
        lambda: storage.trash.put(gone),
    ]
    for call in calls:
        with pytest.raises(NotFound):
            call()
    with pytest.raises(InTrash, match=f"trash restore {gone}"):
        storage.get_recording(gone)
    with pytest.raises(DuplicateRecording, match=f"recording {gone}, which is in the trash.*trash restore {gone}"):
        storage.add(demo / "call.flac", metadata={"user_id": "ann"})
    assert [recording.id for recording in storage.list_recordings()] == [kept]
    for mode in ("hybrid", "semantic", "keyword"):
        assert {hit.audio_id for hit in storage.search_similar_audio("spoken", 100, mode=mode)} == {kept}
    by_sound = storage.search_similar_audio(audio=demo / "call.flac", by="audio", limit=100)
    assert {hit.audio_id for hit in by_sound} == {kept}
    assert storage.search_similar_audio("spoken", where={"user_id": "ann"}).total == 0
    assert storage.search_similar_audio("spoken", 100, speaker="nobody").total == 0
    now = storage.stats()
    assert (now["recordings"], now["trashed"]) == (1, 1)
    assert now["passages"] < before["passages"] and now["segments"] < before["segments"]
    assert now["spaces"][0]["embeddings"] < before["spaces"][0]["embeddings"]


def test_undo_brings_everything_back(storage: AudioStorageSystem, two: tuple[int, int]) -> None:
    _, gone = two
    before = (storage.stats(), storage.search_similar_audio("spoken", 100).hits, storage.export(gone))
    (entry,) = storage.trash.put(gone)
    assert [one.audio_id for one in storage.trash.list()] == [gone]
    assert (entry.purge_after - entry.trashed_at).days == 30
    assert storage.trash.restore(gone) == [gone]
    assert (storage.stats(), storage.search_similar_audio("spoken", 100).hits, storage.export(gone)) == before
    with pytest.raises(NotFound):
        storage.trash.restore(gone)


def test_it_goes_for_good_when_its_time_is_over(home: Path, two: tuple[int, int], storage: AudioStorageSystem) -> None:
    kept, gone = two
    storage.trash.put(gone)
    upkeep.keep(storage._archive, storage.jobs)
    assert [one.audio_id for one in storage.trash.list()] == [gone], "not before"
    plain_sql(home, "UPDATE trash SET purge_after = ?", "2020-01-01 00:00:00.000000")
    upkeep.keep(storage._archive, storage.jobs)
    assert storage.trash.list() == [] and storage.stats()["recordings"] == 1
    assert plain_sql(home, "SELECT audio_id FROM tombstones") == [(gone,)]
    storage.get_recording(kept)


def test_held_recordings_do_not_go(storage: AudioStorageSystem, two: tuple[int, int]) -> None:
    kept, gone = two
    storage.trash.put(gone)
    storage.holds.place("case 7", audio_ids=[gone, kept])
    emptied = storage.trash.empty()
    assert emptied.receipts == [] and "case 7" in emptied.held[gone]
    for call in (lambda: storage.delete(gone), lambda: storage.delete(kept), lambda: storage.trash.put(kept)):
        with pytest.raises(UnderLegalHold, match="case 7"):
            call()
    storage.holds.release("case 7")
    assert [receipt.audio_id for receipt in storage.trash.empty().receipts] == [gone]


def test_a_copy_has_the_same_in_its_trash(
    storage: AudioStorageSystem, two: tuple[int, int], home: Path, tmp_path: Path
) -> None:
    kept, gone = two
    storage.trash.put(gone)
    copy_archive(home, tmp_path / "copy")
    with AudioStorageSystem(tmp_path / "copy") as copy:
        assert [one.audio_id for one in copy.trash.list()] == [gone]
        assert [one.id for one in copy.list_recordings()] == [kept]
    storage.trash.restore(gone)
    copy_archive(home, tmp_path / "copy")
    with AudioStorageSystem(tmp_path / "copy") as copy:
        assert copy.trash.list() == [] and copy.stats()["recordings"] == 2


def test_jobs_of_what_is_thrown_away_end_and_are_given_again(storage: AudioStorageSystem, demo: Path) -> None:
    job = storage.submit(demo / "call.flac")
    assert job.audio_id is not None
    storage.trash.put(job.audio_id)
    assert storage.jobs.get(job.id).state == "cancelled"
    storage.trash.restore(job.audio_id)
    storage.worker(concurrency=1).run_until_idle(threading.Event())
    assert storage.transcripts(job.audio_id)[0].active


WORDS = ("alpha", "beta", "gamma", "delta")


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    said=st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=3), min_size=2, max_size=6),
    thrown=st.sets(st.integers(0, 5)),
    word=st.sampled_from(WORDS),
    seed=st.integers(0, 2**32 - 1),
)
def test_answers_equal_those_of_an_archive_without_it(
    tmp_path_factory: pytest.TempPathFactory, said: list[list[str]], thrown: set[int], word: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    texts = [[f"{' '.join(words)} again"] for words in said]
    vectors = [[unit(rng, 8)] for _ in texts]
    query = unit(rng, 8)
    moment = datetime(2026, 11, 22, tzinfo=UTC)
    talks = [Talk(t, {"n": n}, moment, vectors=v) for n, (t, v) in enumerate(zip(texts, vectors, strict=True))]
    answers = []
    for without in (False, True):
        archive = open_archive(tmp_path_factory.mktemp("a") / "archive", create=True)
        space = text_space(archive, 8)
        chosen = [talk for n, talk in enumerate(talks) if not (without and n in thrown)]
        ids = fill(archive, chosen, space)
        archive.follow()
        if not without:
            Trash(archive).put(*(ids[n] for n in thrown if n < len(ids)))
        found = []
        for mode, wanted in (("semantic", Filter()), ("keyword", Filter()), ("semantic", Filter({"n": {"lt": 3}}))):
            asked = Query(word, query, space, mode, wanted, limit=100)  # type: ignore[arg-type]
            results = run(archive.database, archive.index, asked, NEVER)
            hits = sorted((hit.transcription, hit.metadata["n"], hit.score) for hit in results.hits)
            found.append((results.total, hits))
        archive.close()
        answers.append(found)
    assert answers[0] == answers[1]


def test_what_is_in_the_trash_is_not_missed_by_search(storage: AudioStorageSystem, two: tuple[int, int]) -> None:
    _, gone = two
    with storage._archive.database.write() as connection:
        connection.execute(delete(embeddings).where(embeddings.c.audio_file_id == gone))
    assert any("no vector" in warning for warning in storage.search_similar_audio("hello").warnings)
    storage.trash.put(gone)
    assert not any("no vector" in warning for warning in storage.search_similar_audio("hello").warnings)


def test_a_view_has_its_own_trash_only(storage: AudioStorageSystem, demo: Path) -> None:
    mine = storage.add(demo / "call.flac", metadata={"user_id": "ann"})
    other = storage.add(demo / "voice_note.flac", metadata={"user_id": "bob"})
    ann, bob = storage.as_user("ann"), storage.as_user("bob")
    with pytest.raises(NotFound):
        ann.trash.put(other)
    ann.trash.put(mine)
    assert bob.trash.list() == [] and len(storage.trash.list()) == 1
    assert (ann.stats()["trashed"], bob.stats()["trashed"]) == (1, 0)
    for call in (lambda: bob.trash.restore(mine), lambda: bob.trash.empty(mine), lambda: bob.get_recording(mine)):
        with pytest.raises(NotFound) as refused:
            call()
        assert not isinstance(refused.value, InTrash), "that would tell"
    assert bob.trash.empty().receipts == []
    for forbidden in (ann.retention.run, ann.retention.rules, ann.holds.list, lambda: ann.cleanup_old_files(0)):
        with pytest.raises(Forbidden):
            forbidden()
    assert ann.trash.restore(mine) == [mine]
