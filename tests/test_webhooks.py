"""Webhooks as users see them: real calls to a real server on this machine, which is allowed here."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from audio_storage_system import AudioStorageSystem
from audio_storage_system.errors import (
    EngineUnavailable,
    InvalidInput,
    TranscriptionFailed,
)
from audio_storage_system.jobs import failures
from audio_storage_system.outbox import Event
from audio_storage_system.records import JobState
from audio_storage_system.transcribers import Window
from audio_storage_system.webhooks import DeliveryState, plan, rows, sending
from living import finals, sentences, speak
from receiving import Receiver, deliver, hurry, receiving, told
from working import hear

pytestmark = pytest.mark.usefixtures("scripted_engine", "private_receivers")

KEY = bytes(range(32))
PAGE = Path(__file__).parents[1] / "docs" / "howto" / "webhooks.md"


# What is told


def test_what_happens_to_a_recording_is_told_in_order_and_signed(
    storage: AudioStorageSystem, receiver: Receiver, call: Path
) -> None:
    made = storage.webhooks.add(receiver.url, name="to the notes")
    audio_id = int(storage.add(call, metadata={"user": "john"}))
    storage.trash.put(audio_id)
    storage.trash.restore(audio_id)
    deliver(storage)
    storage.delete(audio_id)
    deliver(storage)
    names = ["stored", "transcribed", "trashed", "restored", "deleted"]
    assert receiver.events() == [(f"recording.{name}", audio_id) for name in names]
    for one in receiver.calls:
        assert one.is_signed(made.secret)
        of = one.headers
        assert of["webhook-id"] == of["x-audio-storage-delivery"] == one.said["delivery_id"]
        assert of["x-audio-storage-event"] == one.event and of["content-type"] == "application/json"
        assert abs(int(of["webhook-timestamp"]) - time.time()) < 60
    assert len({one.said["delivery_id"] for one in receiver.calls}) == 5


def test_a_call_says_what_happened_and_nothing_of_what_was_said(
    storage: AudioStorageSystem, receiver: Receiver, call: Path
) -> None:
    storage.webhooks.add(receiver.url)
    audio_id = int(storage.add(call, metadata={"user": "john"}))
    deliver(storage)
    stored, transcribed = (one.said for one in receiver.calls)
    [version] = storage.transcripts(audio_id)
    assert stored["facts"] == {"bytes": call.stat().st_size, "seconds": pytest.approx(18.56, abs=0.1)}
    assert transcribed["facts"] == {
        "transcript_id": version.id,
        "engine": "scripted",
        "outcome": "ok",
        "job_id": None,
    }
    assert transcribed["link"] == f"/api/v1/recordings/{audio_id}"
    assert transcribed["archive_id"] == storage._archive.marker.archive_id
    assert datetime.fromisoformat(transcribed["at"]).tzinfo is not None
    whole = b"".join(one.body for one in receiver.calls)
    assert b"spoken" not in whole and b"john" not in whole and call.name.encode() not in whole


def test_a_worker_calls_and_says_for_which_job(storage: AudioStorageSystem, receiver: Receiver, call: Path) -> None:
    storage.webhooks.add(receiver.url, ["recording.transcribed"])
    job = storage.submit(call)
    storage.worker(concurrency=1).run_until_idle(threading.Event())
    [one] = receiver.calls
    assert (one.event, one.said["facts"]["job_id"]) == ("recording.transcribed", job.id)
    [done] = told(storage)
    assert (done.state, done.status, done.attempts, done.reason) == (DeliveryState.DELIVERED, 204, 1, None)


def test_a_worker_that_asks_nothing_over_the_network_calls_nobody(
    storage: AudioStorageSystem, receiver: Receiver, call: Path
) -> None:
    storage.webhooks.add(receiver.url)
    storage.submit(call)
    storage.worker(concurrency=1, queues=["transcribe", "embed"]).run_until_idle(threading.Event())
    assert receiver.calls == [] and storage.webhooks.get(1).waiting == 2


def test_a_transcription_that_fails_is_told(storage: AudioStorageSystem, receiver: Receiver, call: Path) -> None:
    def fail(window: Window) -> None:
        raise RuntimeError("secret words")

    storage.webhooks.add(receiver.url, ["recording.failed"])
    hear(fail)
    with pytest.raises(TranscriptionFailed):
        storage.add(call)
    deliver(storage)
    [one] = receiver.calls
    facts = {"step": "transcribe", "code": "failed", "transcript_id": 1, "job_id": None}
    assert (one.said["facts"], b"secret" in one.body) == (facts, False)


def test_a_job_is_told_to_have_failed_once_it_is_given_up(
    storage: AudioStorageSystem, receiver: Receiver, call: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[float] = []

    def fail(window: Window) -> None:
        tries.append(window.start)
        raise EngineUnavailable(spec="scripted", reason="not now")

    monkeypatch.setattr(failures, "FIRST_DELAY_SECONDS", 0.01)
    storage.webhooks.add(receiver.url, ["recording.failed"])
    hear(fail)
    job = storage.submit(call)
    storage.worker(concurrency=1).run_until_idle(threading.Event())
    assert storage.jobs.get(job.id).state is JobState.FAILED and len(tries) == failures.ATTEMPTS
    [one] = receiver.calls
    assert one.said["facts"]["job_id"] == job.id
    assert one.said["facts"]["code"] == "engine_unavailable"


def test_an_imported_transcript_is_told_as_one(storage: AudioStorageSystem, receiver: Receiver, call: Path) -> None:
    storage.webhooks.add(receiver.url)
    words = storage.home / "words.srt"
    words.write_text("1\n00:00:00,000 --> 00:00:02,000\nhello\n")
    storage.import_transcript(call, words)
    deliver(storage)
    assert [one.said["facts"].get("engine") for one in receiver.calls] == [None, "import"]


def test_a_live_session_is_told_when_all_of_it_is_there(storage: AudioStorageSystem, receiver: Receiver) -> None:
    storage.webhooks.add(receiver.url)
    with storage.live(transcriber="scripted") as session:
        speak(session, sentences(1))
        finals(session, 1)
        assert told(storage) == []
    report = session.finish()
    with storage.live(transcriber="scripted") as empty:
        pass
    empty.finish()
    deliver(storage)
    assert receiver.events() == [(f"recording.{name}", report.audio_id) for name in ("stored", "transcribed")]
    assert receiver.calls[1].said["facts"]["transcript_id"] == report.transcript_id


def test_what_is_not_committed_is_not_told(
    storage: AudioStorageSystem, receiver: Receiver, sound: Callable[[], Path]
) -> None:
    storage.webhooks.add(receiver.url)
    storage.set_metadata_schema({"required": ["project"]})
    with pytest.raises(InvalidInput):
        storage.store_audio_file(sound())
    assert told(storage) == []


def test_only_the_events_that_are_wanted(
    storage: AudioStorageSystem, receiver: Receiver, sound: Callable[[], Path]
) -> None:
    made = storage.webhooks.add(receiver.url, ["recording.deleted", "recording.stored", "recording.stored"])
    assert made.webhook.events == ("recording.stored", "recording.deleted")
    storage.trash.put(int(storage.store_audio_file(sound())))
    storage.trash.empty()
    deliver(storage)
    assert [event for event, _ in receiver.events()] == ["recording.deleted"], "what waits goes with its recording"


# What the documentation says of it


def documented(language: str) -> str:
    """The block of this language on the page about webhooks."""
    [block] = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return str(block)


def test_the_receiver_of_the_documentation_tells_genuine_calls(
    storage: AudioStorageSystem, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: dict[str, Any] = {}
    exec(documented("python"), names)  # noqa: S102 - our own page
    is_genuine = names["is_genuine"]
    made = storage.webhooks.add(receiver.url)
    storage.webhooks.test(1)
    [one] = receiver.calls
    assert is_genuine(one.headers, one.body, made.secret)
    other = storage.webhooks.add(receiver.url).secret
    assert not is_genuine(one.headers, one.body, other)
    assert not is_genuine(one.headers, one.body + b" ", made.secret)
    for name in ("webhook-id", "webhook-timestamp", "webhook-signature"):
        assert not is_genuine({**one.headers, name: "1"}, one.body, made.secret)
        assert not is_genuine({k: v for k, v in one.headers.items() if k != name}, one.body, made.secret)
    late = time.time() + 301
    monkeypatch.setattr(time, "time", lambda: late)
    assert not is_genuine(one.headers, one.body, made.secret), "an old call that is sent again"


def test_every_call_is_as_the_schema_of_the_documentation_says(
    storage: AudioStorageSystem, receiver: Receiver, sound: Callable[[], Path], call: Path
) -> None:
    def fail(window: Window) -> None:
        raise RuntimeError

    storage.webhooks.add(receiver.url)
    storage.webhooks.test(1)
    audio_id = int(storage.add(call))
    storage.trash.put(audio_id)
    storage.trash.restore(audio_id)
    hear(fail)
    with pytest.raises(TranscriptionFailed):
        storage.generate_transcript(audio_id)
    deliver(storage)
    storage.delete(audio_id)
    deliver(storage)
    checker = Draft202012Validator(json.loads(documented("json")), format_checker=Draft202012Validator.FORMAT_CHECKER)
    for one in receiver.calls:
        checker.validate(one.said)
    assert {one.event for one in receiver.calls} == set(Event), "each is among them"


# When it does not work


def test_what_is_refused_is_sent_again_under_the_same_id(
    storage: AudioStorageSystem, receiver: Receiver, sound: Callable[[], Path]
) -> None:
    answers = iter([500, 302, 429, 204])
    receiver.answer = lambda call, handler: next(answers)
    storage.webhooks.add(receiver.url)
    storage.store_audio_file(sound())
    for number, reason in enumerate(["answered 500", "answered 302", "answered 429"], 1):
        deliver(storage)
        [one] = told(storage)
        assert (one.state, one.attempts, one.reason) == (DeliveryState.WAITING, number, reason)
        wait = plan.WAITS[number - 1]
        assert one.due_at is not None
        left = (one.due_at - datetime.now(UTC)).total_seconds()
        assert wait * 0.8 - 5 < left <= wait * 1.2
        assert storage.webhooks.get(1).failing_since is not None
        hurry(storage)
    deliver(storage)
    [one] = told(storage)
    assert (one.state, one.attempts, one.status, one.reason) == (DeliveryState.DELIVERED, 4, 204, None)
    assert len({(call.said["delivery_id"], call.body) for call in receiver.calls}) == 1 < len(receiver.calls)
    assert storage.webhooks.get(1).failing_since is None


def test_after_eight_tries_it_is_given_up_and_can_be_sent_again(
    storage: AudioStorageSystem, receiver: Receiver, sound: Callable[[], Path]
) -> None:
    receiver.answer = lambda call, handler: 503
    storage.webhooks.add(receiver.url)
    storage.store_audio_file(sound())
    for _ in range(plan.TRIES):
        deliver(storage)
        hurry(storage)
    [one] = told(storage)
    assert (one.state, one.attempts, one.due_at, len(receiver.calls)) == (DeliveryState.FAILED, 8, None, 8)
    deliver(storage)
    assert len(receiver.calls) == 8
    receiver.answer = lambda call, handler: 200
    assert storage.webhooks.retry(one.delivery_id).state is DeliveryState.WAITING
    deliver(storage)
    [again] = told(storage)
    assert (again.state, again.attempts, again.delivery_id) == (DeliveryState.DELIVERED, 1, one.delivery_id)


def test_events_of_one_recording_wait_for_each_other_and_not_for_others(
    storage: AudioStorageSystem, receiver: Receiver, sound: Callable[[], Path]
) -> None:
    first, second = int(storage.store_audio_file(sound())), int(storage.store_audio_file(sound()))
    storage.webhooks.add(receiver.url)
    storage.trash.put(first, second)
    storage.trash.restore(first, second)
    receiver.answer = lambda call, handler: 500 if call.said["audio_id"] == first else 204
    deliver(storage)
    assert ("recording.restored", first) not in receiver.events()
    assert [name for name, of in receiver.events() if of == second] == ["recording.trashed", "recording.restored"]
    receiver.answer = lambda call, handler: 204
    hurry(storage)
    deliver(storage)
    mine = [name for name, of in receiver.events() if of == first]
    assert mine == ["recording.trashed", "recording.trashed", "recording.restored"]


def test_a_receiver_that_says_it_is_gone_is_called_no_more(
    storage: AudioStorageSystem, receiver: Receiver, sound: Callable[[], Path]
) -> None:
    receiver.answer = lambda call, handler: 410
    storage.webhooks.add(receiver.url)
    storage.store_audio_file(sound())
    deliver(storage)
    found = storage.webhooks.get(1)
    assert found.disabled_at is not None and found.disabled_reason == "its receiver says that it is gone"
    storage.store_audio_file(sound())
    hurry(storage)
    deliver(storage)
    assert len(receiver.calls) == 1
    receiver.answer = lambda call, handler: 204
    assert storage.webhooks.enable(1).disabled_at is None
    deliver(storage)
    assert receiver.events() == [("recording.stored", 1)] * 2, "what waited is told, what happened meanwhile is not"


def test_one_that_fails_for_days_is_disabled_and_the_audit_log_says_so(
    tmp_path: Path, receiver: Receiver, sound: Callable[[], Path]
) -> None:
    receiver.answer = lambda call, handler: 500
    with AudioStorageSystem(tmp_path / "archive", encryption=KEY, audit=True) as storage:
        storage.webhooks.add(receiver.url)
        storage.store_audio_file(sound())
        deliver(storage)
        assert storage.webhooks.get(1).disabled_at is None
        with storage._archive.database.write() as connection:
            connection.execute(rows.webhooks.update().values(failing_since=datetime.now(UTC) - plan.DISABLED_AFTER))
            connection.execute(rows.webhook_deliveries.update().values(due_at=datetime.now(UTC)))
        deliver(storage)
        assert "failing since" in str(storage.webhooks.get(1).disabled_reason)
        actions = [entry.action for entry in storage.audit.list(action="webhook.").entries]
        assert actions == ["webhook.disabled", "webhook.added"]


def test_a_test_says_at_once_what_comes_of_it(storage: AudioStorageSystem, receiver: Receiver) -> None:
    made = storage.webhooks.add(receiver.url)
    assert (storage.webhooks.test(1).state, storage.webhooks.test(1).status) == (DeliveryState.DELIVERED, 204)
    [one, _] = receiver.calls
    assert (one.event, one.said["audio_id"], one.said["link"], one.is_signed(made.secret)) == (
        "webhook.test",
        None,
        None,
        True,
    )
    receiver.answer = lambda call, handler: 404
    failed = storage.webhooks.test(1)
    assert (failed.state, failed.reason, failed.attempts) == (DeliveryState.FAILED, "answered 404", 1)
    deliver(storage)
    assert len(receiver.calls) == 3
    assert storage.webhooks.get(1).failing_since is None, "a test says nothing of what failed since when"


def test_a_slow_receiver_holds_up_neither_jobs_nor_others(
    storage: AudioStorageSystem, receiver: Receiver, sound: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "TOTAL_SECONDS", 120.0)
    release, stop = threading.Event(), threading.Event()
    storage.webhooks.add(receiver.url)
    with receiving() as slow:
        slow.answer = lambda call, handler: 204 if release.wait(120) else 500
        storage.webhooks.add(slow.url)
        working = threading.Thread(target=storage.worker(concurrency=1).run, args=(stop,))
        working.start()
        try:
            jobs, until = [storage.submit(sound()) for _ in range(8)], time.monotonic() + 60
            assert all(job.state is JobState.DONE for job in storage.jobs.wait([job.id for job in jobs], timeout=60))
            while (len(receiver.calls), len(slow.calls)) != (16, 2) and time.monotonic() < until:
                time.sleep(0.01)
            assert (len(receiver.calls), len(slow.calls)) == (16, 2), "two at once, and the rest waits"
            assert {delivery.state for delivery in told(storage, 2)} == {DeliveryState.WAITING}
        finally:
            release.set()
            stop.set()
            working.join()
