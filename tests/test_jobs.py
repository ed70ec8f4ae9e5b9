"""Background jobs as users see them: given, done by workers, followed, cancelled, retried."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from audio_storage_system import AudioStorageSystem
from audio_storage_system.errors import Conflict, InvalidInput, NotAudio, NotFound, ServiceFailed, UnknownSpec
from audio_storage_system.jobs import JobEvent, failures
from audio_storage_system.jobs import runs as runs_module
from audio_storage_system.records import Job, JobState, Outcome
from audio_storage_system.transcribers import Window
from catalogues import database_url, plain_sql
from sounds import concatenated, noise, wav
from working import hear, work

pytestmark = pytest.mark.usefixtures("scripted_engine")


@pytest.fixture
def calls(tmp_path: Path, demo: Path) -> Callable[[int], list[Path]]:
    """Recordings that differ in their bytes: the demo's call, with something after its end."""

    def make(count: int) -> list[Path]:
        made = []
        for number in range(count):
            path = tmp_path / f"call{number}.flac"
            path.write_bytes((demo / "call.flac").read_bytes() + bytes([number]))
            made.append(path)
        return made

    return make


def test_a_file_is_safe_at_once_and_done_by_a_worker(
    storage: AudioStorageSystem, calls: Callable[[int], list[Path]]
) -> None:
    [path] = calls(1)
    given = path.read_bytes()
    job = storage.submit(path, metadata={"user": "john"})
    path.unlink()
    assert job.audio_id is not None
    with storage.open_audio(job.audio_id) as kept:
        assert kept.read() == given
    assert (storage.jobs.get(job.id).state, storage.transcripts(job.audio_id)) == (JobState.WAITING, [])
    told: list[str] = []
    work(storage, lambda event: told.append(event.what))
    done = storage.jobs.get(job.id)
    assert (done.state, done.step, done.failures) == (JobState.DONE, "embed", 0)
    assert told == ["began", "stepped", "noted", "began", "stepped", "done", "left"]
    [hit] = storage.search_similar_audio("second spoken", where={"user": "john"})
    assert hit["audio_id"] == job.audio_id and hit["similarity"] == hit["similarity"]
    assert storage.jobs.workers() == []


def test_what_is_done_in_the_background_equals_what_is_done_at_once(
    storage: AudioStorageSystem, home: Path, calls: Callable[[int], list[Path]]
) -> None:
    one, other = calls(2)
    storage.submit(one)
    work(storage)
    storage.add(other)
    query = "SELECT {} FROM {} WHERE audio_file_id = ? ORDER BY id"
    wanted = {"passages": "text, start_seconds, end_seconds", "embeddings": "embedding_type, embedding_data"}
    for table, columns in wanted.items():
        first, second = (plain_sql(home, query.format(columns, table), number) for number in (1, 2))
        assert first and [tuple(map(str, row)) for row in first] == [tuple(map(str, row)) for row in second]


def test_the_same_file_given_twice_is_one_job_and_is_transcribed_once(
    storage: AudioStorageSystem, calls: Callable[[int], list[Path]]
) -> None:
    [path] = calls(1)
    first, second = storage.submit(path), storage.submit(path)
    assert (first.duplicate, second.duplicate) == (False, True) and first == replace(second, duplicate=False)
    work(storage)
    assert storage.submit(path).state is JobState.DONE
    assert storage.submit(path, language="en").id == first.id
    assert len(storage.transcripts(first.audio_id or 0)) == 1


def test_wrong_input_is_refused_before_there_is_a_job(storage: AudioStorageSystem, tmp_path: Path, demo: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing to hear")
    with pytest.raises(NotAudio):
        storage.submit(tmp_path / "notes.txt")
    with pytest.raises(UnknownSpec):
        storage.submit(demo / "call.flac", whisper_model="no-such-engine")
    with pytest.raises(InvalidInput, match="high, normal, low"):
        storage.submit(demo / "call.flac", priority="urgent")
    assert storage.list_recordings() == []
    with pytest.raises(InvalidInput, match="transcribe, embed, remote, upkeep"):
        storage.worker(queues=["nothing"])
    with pytest.raises(InvalidInput, match="waiting, running"):
        storage.jobs.find("lost")
    with pytest.raises(NotFound):
        storage.jobs.get(17)
    assert storage.jobs.find() == []


def test_everybody_has_a_turn_and_the_urgent_comes_first(
    storage: AudioStorageSystem, calls: Callable[[int], list[Path]]
) -> None:
    files = calls(6)
    johns = [storage.submit(path, metadata={"user_id": "john"}) for path in files[:3]]
    marys = [storage.submit(path, metadata={"user_id": "mary"}) for path in files[3:4]]
    late = storage.submit(files[4], metadata={"user_id": "mary"}, priority="low")
    urgent = storage.submit(files[5], metadata={"user_id": "john"}, priority="high")
    order: list[int] = []

    def note(event: JobEvent) -> None:
        if event.what == "began" and event.job and event.job.step == "transcribe":
            order.append(event.job.id)

    work(storage, note)
    assert order == [urgent.id, johns[0].id, marys[0].id, johns[1].id, johns[2].id, late.id]


def test_a_job_that_fails_says_why_and_holds_up_nobody(
    storage: AudioStorageSystem, calls: Callable[[int], list[Path]]
) -> None:
    bad, good = (storage.submit(path) for path in calls(2))
    spoilt = [bad.audio_id]

    def fail(window: Window) -> None:
        if spoilt:
            spoilt.clear()
            raise RuntimeError("decoder broke")

    hear(fail)
    work(storage)
    failed = storage.jobs.get(bad.id)
    assert (failed.state, failed.code) == (JobState.FAILED, "failed") and "decoder broke" in (failed.reason or "")
    assert storage.jobs.get(good.id).state is JobState.DONE
    assert storage.jobs.find("failed") == [failed]
    assert storage.jobs.counts() == {"done": 1, "failed": 1, "cancelled": 0, "unfinished": 0}
    with pytest.raises(Conflict, match="done"):
        storage.jobs.retry(good.id)
    assert [job.id for job in storage.jobs.retry(bad.id)] == [bad.id]
    work(storage)
    assert storage.jobs.get(bad.id).state is JobState.DONE
    assert [version.outcome for version in storage.transcripts(bad.audio_id or 0)] == [Outcome.FAILED, Outcome.OK]


def test_what_may_pass_is_tried_again_after_a_while(
    storage: AudioStorageSystem, calls: Callable[[int], list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "FIRST_DELAY_SECONDS", 0.3)
    [job] = [storage.submit(path) for path in calls(1)]
    refusals = [ServiceFailed(service="s", reason="429")]

    def fail(window: Window) -> None:
        if refusals:
            raise refusals.pop()

    hear(fail)
    seen: list[Job] = []

    def look(event: JobEvent) -> None:
        if event.what == "again" and event.job:
            seen.append(event.job)

    work(storage, look)
    assert storage.jobs.get(job.id).state is JobState.DONE
    assert [(again.failures, again.code) for again in seen] == [(1, "service_failed")]
    assert [version.outcome for version in storage.transcripts(job.audio_id or 0)] == [Outcome.OK]


def test_what_never_passes_is_given_up(
    storage: AudioStorageSystem, calls: Callable[[int], list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "FIRST_DELAY_SECONDS", 0.01)
    monkeypatch.setattr(failures, "DELAY_GROWS", 1.0)
    [job] = [storage.submit(path) for path in calls(1)]

    def fail(window: Window) -> None:
        raise ServiceFailed(service="s", reason="429")

    hear(fail)
    work(storage)
    ended = storage.jobs.get(job.id)
    assert (ended.state, ended.code, ended.failures) == (JobState.FAILED, "service_failed", failures.ATTEMPTS - 1)
    assert "429" in (ended.reason or "")


def test_a_waiting_job_is_cancelled_and_what_is_stored_stays(
    storage: AudioStorageSystem, calls: Callable[[int], list[Path]]
) -> None:
    one, other = (storage.submit(path) for path in calls(2))
    assert [job.id for job in storage.jobs.cancel(one.id)] == [one.id]
    assert storage.jobs.cancel(one.id) == []
    work(storage)
    assert [storage.jobs.get(job.id).state for job in (one, other)] == [JobState.CANCELLED, JobState.DONE]
    assert storage.get_recording(one.audio_id or 0) and storage.transcripts(one.audio_id or 0) == []
    storage.jobs.retry(one.id)
    work(storage)
    assert storage.jobs.get(one.id).state is JobState.DONE


@pytest.fixture
def meeting(tmp_path: Path, demo: Path) -> Path:
    """Six windows or more: three batches."""
    return concatenated(tmp_path / "long.wav", [demo / "meeting.flac"] * 6)


def test_a_running_job_is_cancelled_after_the_window_in_hand(storage: AudioStorageSystem, meeting: Path) -> None:
    job = storage.submit(meeting)
    heard: list[float] = []

    def cancel(window: Window) -> None:
        heard.append(window.start)
        if len(heard) == 1:
            storage.jobs.cancel(job.id)

    hear(cancel)
    work(storage)
    assert storage.jobs.get(job.id).state is JobState.CANCELLED
    [version] = storage.transcripts(job.audio_id or 0)
    assert version.outcome is None and len(storage.segments(version.id)) == len(heard) == 2


def test_a_worker_told_to_stop_gives_back_what_it_has_and_another_goes_on(
    storage: AudioStorageSystem, meeting: Path
) -> None:
    job = storage.submit(meeting)
    heard: list[float] = []
    stop, worker = threading.Event(), storage.worker(concurrency=1)

    def stop_then(window: Window) -> None:
        heard.append(window.start)
        stop.set()
        assert worker._stopping.wait(60)

    hear(stop_then)
    worker.run(stop)
    assert len(heard) == 2 and storage.jobs.get(job.id).state is JobState.WAITING
    hear(lambda window: heard.append(window.start))
    work(storage)
    assert storage.jobs.get(job.id).state is JobState.DONE
    [version] = storage.transcripts(job.audio_id or 0)
    assert heard == sorted(set(heard)) == [segment.start for segment in storage.segments(version.id)]


def test_deleting_a_recording_ends_its_jobs(storage: AudioStorageSystem, meeting: Path) -> None:
    job = storage.submit(meeting)
    receipts = []

    def delete(window: Window) -> None:
        if not receipts:
            receipts.append(storage.delete(job.audio_id or 0))

    hear(delete)
    work(storage)
    with pytest.raises(NotFound):
        storage.jobs.get(job.id)
    assert receipts[0].rows["jobs"] == 1 and storage.list_recordings() == []


def forget_runs(home: Path, storage: AudioStorageSystem) -> None:
    """Lose everything that the workflow engine keeps."""
    storage.jobs.close()
    if database_url(home):
        plain_sql(home, "DROP SCHEMA dbos CASCADE")
    for file in home.glob("jobs.db*"):
        file.unlink()


def test_jobs_that_were_never_queued_are_found(
    storage: AudioStorageSystem, home: Path, calls: Callable[[int], list[Path]]
) -> None:
    given = [storage.submit(path) for path in calls(3)]
    forget_runs(home, storage)
    assert [storage.jobs.get(job.id).state for job in given] == [JobState.WAITING] * 3
    work(storage)
    assert {storage.jobs.get(job.id).state for job in given} == {JobState.DONE}


def test_a_transcription_that_was_cut_short_without_a_job_is_finished(
    storage: AudioStorageSystem, home: Path, meeting: Path
) -> None:
    heard: list[float] = []

    def interrupt(window: Window) -> None:
        heard.append(window.start)
        if len(heard) == 4:
            raise KeyboardInterrupt

    hear(interrupt)
    with pytest.raises(KeyboardInterrupt):
        storage.add(meeting)
    hear(lambda window: heard.append(window.start))
    work(storage)
    assert storage.jobs.find() == []  # it may still be at work
    long_ago = "2020-01-01 00:00:00.000000" if not database_url(home) else "2020-01-01 00:00:00+00"
    plain_sql(home, "UPDATE transcripts SET created_at = ?", long_ago)
    plain_sql(home, "UPDATE transcription_windows SET created_at = ?", long_ago)
    work(storage)
    [job] = storage.jobs.find()
    assert job.state is JobState.DONE
    [version] = storage.transcripts(1)
    assert version.outcome is Outcome.OK and len(heard) == len(set(heard)) + 2  # the batch in hand was heard again


def test_what_the_engine_keeps_says_nothing(
    storage: AudioStorageSystem, home: Path, calls: Callable[[int], list[Path]]
) -> None:
    if database_url(home):
        pytest.skip("its tables are those of the catalogue's server")
    [path] = calls(1)
    storage.submit(path, metadata={"user": "john"}, whisper_model="scripted:secretword")
    work(storage)
    storage.jobs.close()
    kept = b"".join(file.read_bytes() for file in home.glob("jobs.db*"))
    assert b"run_of_job" in kept
    for word in (b"call0", b"secretword", b"spoken", b"john", b"pickle"):
        assert word not in kept


def test_the_engine_keeps_no_words_of_what_the_archive_refuses(
    storage: AudioStorageSystem, home: Path, calls: Callable[[int], list[Path]]
) -> None:
    if database_url(home):
        pytest.skip("its tables are those of the catalogue's server")
    job = storage.submit(calls(1)[0])
    plain_sql(home, "CREATE TRIGGER refusing BEFORE UPDATE ON jobs BEGIN SELECT RAISE(ABORT, 'secretword'); END")
    stop = threading.Event()
    storage.worker(concurrency=1, on_event=lambda event: stop.set() if event.what == "stepped" else None).run(stop)
    storage.jobs.close()
    assert b"secretword" not in b"".join(file.read_bytes() for file in home.glob("jobs.db*"))
    plain_sql(home, "DROP TRIGGER refusing")
    work(storage)
    assert storage.jobs.get(job.id).state is JobState.DONE


def test_a_worker_leaves_runs_of_another_format_alone(
    storage: AudioStorageSystem, calls: Callable[[int], list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = calls(2)
    with monkeypatch.context() as later:
        later.setattr(runs_module, "FORMAT", "2")
        newer = storage.submit(one)
    mine = storage.submit(other)
    stop = threading.Event()

    def enough(event: JobEvent) -> None:
        if event.what == "done":
            stop.set()

    storage.worker(concurrency=1, on_event=enough).run(stop)
    assert [storage.jobs.get(job.id).state for job in (newer, mine)] == [JobState.WAITING, JobState.DONE]


def test_a_worker_takes_only_from_its_queues(storage: AudioStorageSystem, calls: Callable[[int], list[Path]]) -> None:
    [job] = [storage.submit(path) for path in calls(1)]
    stop = threading.Event()

    def noted(event: JobEvent) -> None:
        if event.what == "noted":
            threading.Timer(1.0, stop.set).start()

    storage.worker(queues=["transcribe"], on_event=noted).run(stop)
    half = storage.jobs.get(job.id)
    assert (half.state, half.step) == (JobState.WAITING, "embed")
    storage.worker(queues=["embed"]).run_until_idle(threading.Event())
    assert storage.jobs.get(job.id).state is JobState.DONE


def test_what_asks_a_service_waits_in_a_queue_of_its_own(
    storage: AudioStorageSystem, calls: Callable[[int], list[Path]]
) -> None:
    local, remote = calls(2)
    storage.submit(local)
    storage.submit(remote, whisper_model="openai:whisper-1")
    assert storage.jobs.runs.waiting() == {"transcribe": 1, "embed": 0, "remote": 1, "upkeep": 0}


def test_waiting_for_a_job(storage: AudioStorageSystem, calls: Callable[[int], list[Path]]) -> None:
    [job] = [storage.submit(path) for path in calls(1)]
    assert storage.jobs.wait([job.id], timeout=0.1)[0].state is JobState.WAITING
    worker = threading.Thread(target=work, args=(storage,))
    worker.start()
    assert storage.jobs.wait([job.id], timeout=60)[0].state is JobState.DONE
    worker.join()


def test_new_versions_are_made_in_the_background_once_and_followed_as_the_rule_says(
    storage: AudioStorageSystem, home: Path, calls: Callable[[int], list[Path]]
) -> None:
    ids = [int(storage.add(path)) for path in calls(2)]
    with pytest.raises(NotFound):
        storage.retranscribe([*ids, 99])
    given = storage.retranscribe(ids, whisper_model="scripted:again", activate="never")
    assert storage.retranscribe(ids, whisper_model="scripted:again", activate="never") == given
    work(storage)
    for audio_id in ids:
        old, new = storage.transcripts(audio_id)
        assert (old.active, new.active, new.whisper_model) == (True, False, "scripted:again")
        count = "SELECT count(*) FROM embeddings WHERE transcript_id = ? AND passage_id IS NOT NULL"
        assert plain_sql(home, count, new.id) == plain_sql(home, count, old.id) != [(0,)]
    plain_sql(home, "UPDATE jobs SET outcome = NULL, step = 'transcribe', run = 7")  # killed before it was noted
    forget_runs(home, storage)
    work(storage)
    assert [len(storage.transcripts(audio_id)) for audio_id in ids] == [2, 2]
    storage.retranscribe(ids[:1], whisper_model="scripted:better")
    work(storage)
    assert [version.active for version in storage.transcripts(ids[0])] == [False, False, True]


def test_jobs_for_versions_that_differ_are_each_done(
    storage: AudioStorageSystem, calls: Callable[[int], list[Path]]
) -> None:
    audio_id = int(storage.add(calls(1)[0]))
    storage.retranscribe([audio_id], language="en")
    storage.retranscribe([audio_id], prompt="Dr. Müller")
    work(storage)
    asked = [(made.parameters["language"], made.parameters["prompt"]) for made in storage.transcripts(audio_id)]
    assert sorted(asked[1:], key=str) == [("en", None), (None, "Dr. Müller")]


def test_the_archive_is_embedded_anew_in_the_background(
    storage: AudioStorageSystem, home: Path, calls: Callable[[int], list[Path]]
) -> None:
    for path in calls(2):
        storage.add(path)
    with pytest.raises(UnknownSpec):
        storage.submit_reembedding("no-such-embedder")
    storage.use_embedder(lambda text: [len(text), 1.0], name="lengths")
    storage.reembed()
    with AudioStorageSystem(home) as plain:
        job = plain.submit_reembedding("wordllama", drop_old=True)
        assert plain.submit_reembedding("wordllama", drop_old=True) == job
        work(plain)
        assert plain.jobs.get(job.id).state is JobState.DONE
        [space] = [space for space in plain.stats()["spaces"] if space["kind"] == "transcript"]
        assert (space["model"], space["active"], space["embeddings"]) == ("wordllama", True, 2)
        assert plain.search_similar_audio("second spoken", mode="semantic").hits


def test_recurring_work_is_done_and_forgets_what_is_old(
    storage: AudioStorageSystem, home: Path, calls: Callable[[int], list[Path]]
) -> None:
    old, lately = (storage.submit(path) for path in calls(2))
    work(storage)
    long_ago = "2020-01-01 00:00:00.000000" if not database_url(home) else "2020-01-01 00:00:00+00"
    plain_sql(home, "UPDATE jobs SET updated_at = ? WHERE id = ?", long_ago, old.id)
    storage.jobs.runs.trigger("tidy")
    stop, worker = threading.Event(), storage.worker()
    running = threading.Thread(target=worker.run, args=(stop,))
    running.start()
    for _ in range(600):
        if len(storage.jobs.find()) == 1 or stop.wait(0.1):
            break
    stop.set()
    running.join()
    assert [job.id for job in storage.jobs.find()] == [lately.id]


def test_a_recording_without_speech_is_done(storage: AudioStorageSystem, tmp_path: Path) -> None:
    path = tmp_path / "noise.wav"
    path.write_bytes(wav(noise(3.0)))
    job = storage.submit(path)
    work(storage)
    assert storage.jobs.get(job.id).state is JobState.DONE
    assert [version.outcome for version in storage.transcripts(job.audio_id or 0)] == [Outcome.SILENCE]
