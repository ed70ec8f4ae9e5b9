"""Retention: the plan against a brute-force oracle, what a run removes, holds, the report, and being killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audio_storage_system import AudioStorageSystem, copy_archive
from audio_storage_system.archive import open_archive, sidecars
from audio_storage_system.catalogue.holds import Hold
from audio_storage_system.catalogue.selections import Selection
from audio_storage_system.deletion import Receipt
from audio_storage_system.errors import AudioRemoved, Conflict, InvalidFilter, InvalidInput, NotFound, UnderLegalHold
from audio_storage_system.jobs import upkeep
from audio_storage_system.records import Stage
from audio_storage_system.retention import Action, Candidate, Holds, Retention, RetentionRule, plan
from audio_storage_system.testing.scripted import ScriptedTranscriber
from audio_storage_system.transcribers import Window
from builders import Talk, fill
from catalogues import plain_sql

pytestmark = pytest.mark.usefixtures("scripted_engine")

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
PARTS = [Stage.AUDIO, Stage.TRANSCRIPT, Stage.EMBEDDINGS]

rules_of = st.lists(
    st.builds(
        RetentionRule,
        st.integers(1, 4),
        st.just("r"),
        st.sampled_from(list(Stage)),
        st.sampled_from([0.0, 0.001, 1.0, 30.0, 365.5]),
    ),
    max_size=4,
    unique_by=lambda rule: rule.id,
)
candidates_of = st.lists(
    st.builds(
        Candidate,
        st.integers(1, 99),
        st.floats(0, 400).map(lambda days: NOW - timedelta(days=days)),
        st.sets(st.sampled_from(PARTS)).map(lambda stages: frozenset([Stage.RECORDING, *stages])),
        st.frozensets(st.integers(1, 4)),
        st.frozensets(st.integers(1, 2)),
    ),
    max_size=5,
    unique_by=lambda candidate: candidate.audio_id,
)
HOLDS = [Hold(1, "case", Selection(), "", 1, NOW)]  # of 2, which was released, nobody is told


@given(candidates_of, rules_of)
def test_the_plan_deletes_what_some_rule_is_over_for_and_nothing_else(
    recordings: list[Candidate], rules: list[RetentionRule]
) -> None:
    made = list(plan(recordings, rules, HOLDS, NOW))
    deleted = {(one.audio_id, one.stage) for one in made if one.action is Action.DELETE}
    expected = set()
    for recording in recordings:
        over = {
            rule.stage
            for rule in rules
            if rule.id in recording.rules and recording.created_at + timedelta(days=rule.keep_days) < NOW
        } & recording.stages
        if 1 not in recording.holds:
            expected |= {(recording.audio_id, stage) for stage in ({Stage.RECORDING} & over or over)}
        else:
            held = {one.stage for one in made if one.audio_id == recording.audio_id and one.hold == "case"}
            assert held == over, "what is held says so"
    assert deleted == expected
    assert {one.audio_id for one in made} == {one.audio_id for one in recordings}, "each has a reason"
    assert all(one.reason for one in made)


@given(candidates_of, rules_of)
def test_a_hold_on_everything_beats_every_rule(recordings: list[Candidate], rules: list[RetentionRule]) -> None:
    held = [Candidate(r.audio_id, r.created_at, r.stages, r.rules, frozenset([1])) for r in recordings]
    assert all(one.action is Action.KEEP for one in plan(held, rules, HOLDS, NOW))


@settings(max_examples=20, deadline=None)
@given(
    values=st.lists(st.sampled_from(["a", "b", None]), min_size=1, max_size=6),
    wanted=st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.sampled_from([0.0, 400.0])), max_size=3),
    held=st.sampled_from(["a", "b", None]),
)
def test_a_run_removes_what_a_search_of_every_row_would(
    tmp_path_factory: pytest.TempPathFactory,
    values: list[str | None],
    wanted: list[tuple[str | None, float]],
    held: str | None,
) -> None:
    archive = open_archive(tmp_path_factory.mktemp("a") / "archive", create=True)
    ids = fill(archive, [Talk(["said"], {} if value is None else {"kind": value}) for value in values])
    retention = Retention(archive)
    for number, (value, days) in enumerate(wanted):
        retention.add(f"rule {number}", days, where={} if value is None else {"kind": value})
    if held:
        Holds(archive).place("case", where={"kind": held})
    planned = {one.audio_id for one in retention.plan() if one.action is Action.DELETE}
    removed = {receipt.audio_id for receipt in retention.run().receipts}
    expected = {
        id_
        for id_, value in zip(ids, values, strict=True)
        if value != (held or "-") and any(days == 0 and kind in (None, value) for kind, days in wanted)
    }
    assert removed == planned == expected
    assert retention.run().receipts == []
    archive.close()


# What a run does


def stored(storage: AudioStorageSystem, demo: Path) -> int:
    return int(storage.add(demo / "call.flac", metadata={"kind": "call"}))


def test_the_sound_goes_and_what_was_said_stays(storage: AudioStorageSystem, demo: Path, tmp_path: Path) -> None:
    audio_id = stored(storage, demo)
    with storage.open_audio(audio_id) as file:
        assert file.read(4)
    storage.retention.add("sound", 0, stage="audio", where={"kind": "call"})
    (receipt,) = storage.retention.run().receipts
    assert receipt.stage == "audio" and receipt.rule == "sound" and len(receipt.keys) == 1
    assert storage.search_similar_audio("spoken").hits and storage.export(audio_id)
    assert storage.get_recording(audio_id).status == "audio_removed"
    for call in (storage.open_audio, storage.audio_url, storage.generate_transcript):
        with pytest.raises(AudioRemoved, match="removed by a retention rule"):
            call(audio_id)
    assert storage.generate_embeddings(audio_id) == 0
    assert storage.add(demo / "call.flac").duplicate, "adding does not undelete"
    assert storage.reembed("auto", kind="audio") is not None
    assert storage.retention.run().receipts == []
    copy_archive(storage.home, tmp_path / "copy")
    with AudioStorageSystem(tmp_path / "copy") as copy, pytest.raises(AudioRemoved):
        copy.open_audio(audio_id)


def test_what_was_said_goes_and_the_sound_stays(storage: AudioStorageSystem, demo: Path, tmp_path: Path) -> None:
    audio_id = stored(storage, demo)
    copy_archive(storage.home, tmp_path / "copy")
    storage.retention.add("words", 0, stage="transcript")
    (receipt,) = storage.retention.run().receipts
    assert receipt.rows["transcripts"] == 1 and receipt.rows["full_text"] >= 1
    assert storage.transcripts(audio_id) == [] and not storage.search_similar_audio("spoken").hits
    with storage.open_audio(audio_id) as file:
        assert file.read(4)
    copy_archive(storage.home, tmp_path / "copy")
    with AudioStorageSystem(tmp_path / "copy") as copy:
        assert copy.transcripts(audio_id) == []


def test_vectors_go_and_words_stay(storage: AudioStorageSystem, demo: Path) -> None:
    stored(storage, demo)
    storage.retention.add("vectors", 0, stage="embeddings")
    (receipt,) = storage.retention.run().receipts
    assert receipt.rows["embeddings"] >= 2
    assert storage.search_similar_audio("spoken", mode="keyword").hits
    assert not storage.search_similar_audio("spoken", mode="semantic").hits


def test_rules_by_tag_and_owner(storage: AudioStorageSystem, home: Path, demo: Path) -> None:
    first, second = stored(storage, demo), int(storage.add(demo / "voice_note.flac"))
    plain_sql(
        home,
        "INSERT INTO annotations (audio_file_id, kind, label, created_at) VALUES (?, 'tag', 'private', ?)",
        second,
        "2026-11-22 12:00:00.000000",
    )
    (owner,) = plain_sql(home, "SELECT name FROM principals WHERE id = 1")[0]
    storage.retention.add("private", 0, tag="private")
    storage.retention.add("nobody's", 0, owner="nobody")
    assert [one.audio_id for one in storage.retention.plan()] == [second]
    storage.retention.add("owner's", 0, owner=str(owner))
    assert [one.audio_id for one in storage.retention.plan()] == [first, second]


def test_the_report_proves_what_was_enforced(storage: AudioStorageSystem, demo: Path) -> None:
    audio_id = stored(storage, demo)
    assert storage.retention.report()["last_run"] is None
    storage.retention.add("soon", 0)
    storage.holds.place("case 7", where={"kind": "call"}, reason="a court asked")
    storage.retention.run()
    told = storage.retention.report()
    assert told["enforced"] and told["counts"] == {"due": 0, "held": 1} and told["last_run"]["ended_at"]
    assert 'legal hold "case 7"' in told["overdue"][0]["reason"] and told["rules"][0]["removed"] == 0
    storage.holds.release("case 7")
    assert not storage.retention.report()["enforced"]
    upkeep.keep(storage._archive, storage.jobs)
    told = storage.retention.report()
    assert told["enforced"] and told["overdue"] == [] and told["rules"][0]["removed"] == 1
    with pytest.raises(NotFound):
        storage.get_recording(audio_id)
    storage.retention.remove("soon")
    assert storage.retention.report()["former_rules"]["soon"]["removed"] == 1
    assert [hold.name for hold in storage.holds.list(released=True)] == ["case 7"] and not storage.holds.list()


def test_cleaning_up_respects_holds(storage: AudioStorageSystem, demo: Path) -> None:
    held, gone = stored(storage, demo), storage.add(demo / "voice_note.flac")
    storage.holds.place("case", audio_ids=[held])
    assert [receipt.audio_id for receipt in storage.cleanup_old_files(0)] == [gone]
    assert storage.cleanup_old_files(0) == []
    with pytest.raises(UnderLegalHold):
        storage.delete(held)


def test_wrong_rules_and_holds_are_refused(storage: AudioStorageSystem) -> None:
    add, place = storage.retention.add, storage.holds.place
    add("one", 0.5)
    place("case", where={"a": 1})
    for error, call in (
        (Conflict, lambda: add("one", 3)),
        (InvalidInput, lambda: add("two", -1)),
        (InvalidInput, lambda: add("two", float("nan"))),
        (InvalidInput, lambda: add("", 1)),
        (InvalidInput, lambda: add("two", 1, stage="video")),
        (InvalidFilter, lambda: add("two", 1, where={"a": {"near": 3}})),
        (NotFound, lambda: storage.retention.remove("two")),
        (Conflict, lambda: place("case", where={"a": 1})),
        (InvalidInput, lambda: place("all")),
        (NotFound, lambda: place("none", audio_ids=[99])),
        (NotFound, lambda: storage.holds.release("none")),
    ):
        with pytest.raises(error):
            call()
    assert [rule.name for rule in storage.retention.rules()] == ["one"]


KILLED = """
import os, sys
from audio_storage_system import AudioStorageSystem, deletion
from audio_storage_system.archive import removal
where = sys.argv[2]
if where == "files":
    deletion._delete_files = deletion._delete_part = lambda *_: os.kill(os.getpid(), 9)
else:
    removal.scrub = lambda *_: os.kill(os.getpid(), 9)
with AudioStorageSystem(sys.argv[1]) as storage:
    storage.retention.run()
"""


@pytest.mark.parametrize("stage", ["recording", "audio"])
@pytest.mark.parametrize("where", ["files", "scrub"])
def test_a_run_that_was_killed_is_finished_by_the_next(
    storage: AudioStorageSystem, home: Path, demo: Path, stage: str, where: str
) -> None:
    ids = [stored(storage, demo), int(storage.add(demo / "voice_note.flac"))]
    keys = [storage.get_recording(audio_id).file_path for audio_id in ids]
    storage.retention.add("soon", 0, stage=stage)
    storage.close()
    done = subprocess.run([sys.executable, "-c", KILLED, home, where], env=dict(os.environ), check=False)
    assert done.returncode == -signal.SIGKILL
    with AudioStorageSystem(home) as again:
        assert again.retention.report()["last_run"]["ended_at"] is None
        again.retention.run()
        assert again.retention.report()["enforced"] and again.retention.run().receipts == []
        assert [key for key in keys if again._archive.blobs.has(key)] == []
        assert plain_sql(home, "SELECT count(*) FROM removals WHERE NOT scrubbed OR NOT completed") == [(0,)]


@pytest.mark.parametrize(
    ("stage", "written", "prefix"), [("audio", "write_copy", "copies"), ("transcript", "_put", "transcripts")]
)
def test_no_sidecar_outlives_what_it_shows(
    home: Path, demo: Path, stage: str, written: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is being written while a rule removes what it is made from."""
    with AudioStorageSystem(home, transcriber="scripted", sidecars=True, compress="flac") as storage:
        write, removed = getattr(sidecars, written), list[Receipt]()

        def late(*args: object) -> None:
            if not removed:
                storage.retention.add("soon", 0, stage=stage)
                removed.extend(storage.retention.run().receipts)
            write(*args)

        audio_id = int(storage.add(demo / "call.flac"))
        for key in list(storage._archive.blobs.keys(prefix)):
            storage._archive.blobs.delete(key)
        monkeypatch.setattr(sidecars, written, late)
        sidecars.refresh(storage._archive, audio_id)
        assert removed and list(storage._archive.blobs.keys(prefix)) == []


@pytest.mark.parametrize("how", ["delete", "transcript", "trash"])
def test_a_worker_commits_nothing_for_what_was_removed_under_its_hands(
    storage: AudioStorageSystem,
    home: Path,
    demo: Path,
    how: str,
    scripted_engine: type[ScriptedTranscriber],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = storage.submit(demo / "meeting.flac")
    audio_id = job.audio_id or 0
    storage.retention.add("words", 0, stage="transcript")
    seen = []
    hear = ScriptedTranscriber._hear

    def heard(self: ScriptedTranscriber, window: Window) -> object:
        if not seen:
            seen.append(window)
            {
                "delete": lambda: storage.delete(audio_id),
                "transcript": storage.retention.run,
                "trash": lambda: storage.trash.empty(*(one.audio_id for one in storage.trash.put(audio_id))),
            }[how]()
        return hear(self, window)

    monkeypatch.setattr(ScriptedTranscriber, "_hear", heard)
    storage.worker(concurrency=1).run_until_idle(threading.Event())
    assert seen
    for table in ("transcripts", "passages", "jobs", "embeddings"):
        assert plain_sql(home, f"SELECT count(*) FROM {table} WHERE audio_file_id = ?", audio_id) == [(0,)]  # noqa: S608
    assert plain_sql(home, "SELECT count(*) FROM segments") == [(0,)]
    assert not storage.search_similar_audio("spoken", mode="keyword").hits
