"""Webhooks as users see them: real calls to a real server on this machine, which is allowed here."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from audio_storage_system import AudioStorageSystem, copy_archive, restore_backup
from audio_storage_system.errors import (
    Conflict,
    EngineUnavailable,
    Forbidden,
    InvalidInput,
    InvalidSetting,
    NotFound,
    TranscriptionFailed,
)
from audio_storage_system.jobs import failures, upkeep
from audio_storage_system.outbox import Event
from audio_storage_system.records import JobState
from audio_storage_system.testing.scripted import ScriptedTranscriber
from audio_storage_system.transcribers import Window
from audio_storage_system.webhooks import Deliverer, Delivery, DeliveryState, Webhooks, board, plan, rows
from catalogues import plain_sql
from living import finals, sentences, speak
from receiving import Call, Receiver, receiving
from sounds import noise, wav

pytestmark = pytest.mark.usefixtures("scripted_engine")

KEY = bytes(range(32))
PAGE = Path(__file__).parents[1] / "docs" / "howto" / "webhooks.md"


@pytest.fixture(autouse=True)
def private(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIO_STORAGE_WEBHOOK_ALLOW_PRIVATE", "1")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


@pytest.fixture
def sound(tmp_path: Path) -> Callable[[], Path]:
    """A file that nobody has stored."""
    numbers = iter(range(1_000))

    def make() -> Path:
        number = next(numbers)
        path = tmp_path / f"{number}.wav"
        path.write_bytes(wav(noise(0.2, seed=number)))
        return path

    return make


def deliver(storage: AudioStorageSystem) -> None:
    """Send what is due, as a worker does."""
    sender = Deliverer(storage._archive)
    sender.start()
    try:
        until = time.monotonic() + 20
        while not sender.is_idle():
            assert time.monotonic() < until, "there is always something to send"
            time.sleep(0.01)
    finally:
        sender.stop()


def hurry(storage: AudioStorageSystem) -> None:
    """Let the time come for what waits."""
    plain_sql(storage.home, "UPDATE webhook_deliveries SET due_at = created_at WHERE outcome IS NULL")


def told(storage: AudioStorageSystem, webhook_id: int = 1) -> list[Delivery]:
    """Its deliveries, the oldest first."""
    return list(reversed(storage.webhooks.deliveries(webhook_id).deliveries))


def hear(act: Callable[[Window], None] | None) -> None:
    ScriptedTranscriber.before = act  # type: ignore[assignment]


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
    storage: AudioStorageSystem, receiver: Receiver, sound: Callable[[], Path]
) -> None:
    release = threading.Event()
    storage.webhooks.add(receiver.url)
    with receiving() as slow:

        def answer(call: Call, handler: Any) -> int:
            release.wait(20)
            return 204

        slow.answer = answer
        storage.webhooks.add(slow.url)
        stop = threading.Event()
        working = threading.Thread(target=storage.worker(concurrency=1).run, args=(stop,))
        working.start()
        began = time.monotonic()
        jobs = [storage.submit(sound()) for _ in range(8)]
        assert all(job.state is JobState.DONE for job in storage.jobs.wait([job.id for job in jobs], timeout=20))
        while len(receiver.calls) < 16 and time.monotonic() < began + 20:
            time.sleep(0.01)
        assert len(receiver.calls) == 16 and len(slow.calls) == 2, "two at once, and the rest waits"
        assert time.monotonic() - began < 9
        release.set()
        stop.set()
        working.join()


# Whose they are


def test_one_is_told_of_what_its_owner_may_see_at_that_time(
    storage: AudioStorageSystem, receiver: Receiver, sound: Callable[[], Path]
) -> None:
    for name in ("anna", "ben", "chief"):
        storage.users.add(name)
    storage.grants.give("chief", "admin", everything=True)
    anna = storage.as_user("anna")
    anna.webhooks.add(f"{receiver.url}/anna")
    storage.as_user("chief").webhooks.add(f"{receiver.url}/chief")
    storage.webhooks.add(f"{receiver.url}/all")
    own = int(anna.store_audio_file(sound()))
    bens = [int(storage.as_user("ben").store_audio_file(sound())) for _ in range(2)]
    storage.grants.give("anna", "reader", audio_id=bens[1])
    deliver(storage)
    storage.delete(bens[0])
    storage.delete(bens[1])
    deliver(storage)

    def heard(name: str) -> list[tuple[str, int]]:
        return sorted((call.event, call.said["audio_id"]) for call in receiver.calls if call.path.endswith(name))

    everything = [("recording.deleted", of) for of in bens] + [("recording.stored", of) for of in (own, *bens)]
    assert heard("all") == heard("chief") == everything
    assert heard("anna") == [("recording.deleted", bens[1]), ("recording.stored", own)]


def test_what_one_may_not_see_any_more_is_withdrawn(
    storage: AudioStorageSystem, receiver: Receiver, sound: Callable[[], Path]
) -> None:
    storage.users.add("anna")
    grant = storage.grants.give("anna", "reader", where={"team": "a"})
    storage.as_user("anna").webhooks.add(receiver.url)
    storage.store_audio_file(sound(), metadata={"team": "a"})
    storage.store_audio_file(sound(), metadata={"team": "b"})
    [waiting] = told(storage)
    assert waiting.state is DeliveryState.WAITING
    storage.grants.revoke(grant.id)
    deliver(storage)
    assert receiver.calls == []
    assert [one.state for one in told(storage)] == [DeliveryState.WITHDRAWN]


def test_nobody_finds_the_webhooks_of_others(storage: AudioStorageSystem, receiver: Receiver) -> None:
    for name in ("anna", "ben"):
        storage.users.add(name)
    anna, ben = storage.as_user("anna"), storage.as_user("ben")
    mine = anna.webhooks.add(receiver.url).webhook
    storage.webhooks.add(receiver.url)
    delivery = anna.webhooks.test(mine.id)
    assert ben.webhooks.list() == [] and [one.id for one in anna.webhooks.list()] == [mine.id]
    assert len(storage.webhooks.list()) == 2
    calls: list[Callable[[Webhooks], object]] = [
        lambda b: b.get(mine.id),
        lambda b: b.remove(mine.id),
        lambda b: b.enable(mine.id),
        lambda b: b.disable(mine.id),
        lambda b: b.test(mine.id),
        lambda b: b.deliveries(mine.id),
        lambda b: b.retry(delivery.delivery_id),
    ]
    for call in calls:
        with pytest.raises(NotFound):
            call(ben.webhooks)
    secret = storage.tokens.create("anna", scopes=["read"]).secret
    reading = storage.tokens.authenticate(secret).webhooks
    assert reading.get(mine.id) == anna.webhooks.get(mine.id) and reading.deliveries(mine.id).deliveries
    for call in calls[1:5] + calls[6:]:
        with pytest.raises(Forbidden):
            call(reading)
    assert anna.webhooks.remove(mine.id).id == mine.id and anna.webhooks.list() == []


def test_who_is_removed_is_told_no_more(
    storage: AudioStorageSystem, receiver: Receiver, sound: Callable[[], Path]
) -> None:
    storage.users.add("anna")
    storage.grants.give("anna", "reader", where={"x": 1})
    storage.as_user("anna").webhooks.add(receiver.url)
    storage.store_audio_file(sound(), metadata={"x": 1})
    storage.users.remove("anna")
    deliver(storage)
    assert storage.webhooks.list() == [] and receiver.calls == []
    upkeep.tidy(storage._archive, storage.jobs)
    assert plain_sql(storage.home, "SELECT count(*) FROM webhook_deliveries") == [(0,)]


# What is kept


def test_the_secret_is_shown_once_and_in_no_text(
    storage: AudioStorageSystem, receiver: Receiver, caplog: pytest.LogCaptureFixture, sound: Callable[[], Path]
) -> None:
    with caplog.at_level(logging.DEBUG):
        made = storage.webhooks.add(receiver.url)
        receiver.answer = lambda call, handler: 500
        storage.store_audio_file(sound())
        deliver(storage)
        seen = [repr(made), made.webhook.as_dict(), storage.webhooks.list(), told(storage), storage.stats()]
    assert made.as_dict()["secret"] == made.secret
    assert made.secret not in f"{seen}{caplog.text}{receiver.calls}"


@pytest.mark.parametrize("encrypted", [True, False])
def test_with_keys_the_secret_is_sealed_and_bound_to_its_address(
    tmp_path: Path, receiver: Receiver, encrypted: bool
) -> None:
    home = tmp_path / "archive"
    with AudioStorageSystem(home, encryption=KEY if encrypted else None, audit=True, key_file=str(tmp_path / "k")) as s:
        made = s.webhooks.add(receiver.url)
        with s._archive.database.read() as connection:
            [kept] = connection.execute(rows.webhooks.select()).all()
        assert kept.sealed and made.secret.encode() not in bytes(kept.secret)
        assert s.webhooks.test(1).state is DeliveryState.DELIVERED and receiver.calls[0].is_signed(made.secret)
        with s._archive.database.write() as connection:  # as somebody might who can write the database
            connection.execute(rows.webhooks.update().values(url=f"{receiver.url}/elsewhere"))
        assert s.webhooks.test(1).reason == "its secret does not open with the archive's key"
        assert len(receiver.calls) == 1


def test_deliveries_are_listed_in_pages_by_state_and_forgotten_in_time(
    storage: AudioStorageSystem, receiver: Receiver, sound: Callable[[], Path]
) -> None:
    storage.webhooks.add(receiver.url)
    for _ in range(5):
        storage.store_audio_file(sound())
    receiver.answer = lambda call, handler: 204 if call.said["audio_id"] % 2 else 500
    deliver(storage)
    page = storage.webhooks.deliveries(1, limit=3)
    rest = storage.webhooks.deliveries(1, limit=3, cursor=page.cursor)
    assert [one.audio_id for one in (*page.deliveries, *rest.deliveries)] == [5, 4, 3, 2, 1] and rest.cursor is None
    waiting = storage.webhooks.deliveries(1, state="waiting").deliveries
    assert [one.audio_id for one in waiting] == [4, 2] and storage.webhooks.get(1).waiting == 2
    assert json.dumps(page.as_dict())
    for wrong in ({"limit": 0}, {"limit": 1_001}, {"state": "lost"}):
        with pytest.raises(InvalidInput):
            storage.webhooks.deliveries(1, **wrong)  # type: ignore[arg-type]
    upkeep.tidy(storage._archive, storage.jobs)
    assert len(told(storage)) == 5
    with storage._archive.database.write() as connection:
        past = datetime.now(UTC) - timedelta(days=31)
        connection.execute(
            rows.webhook_deliveries.update().where(rows.webhook_deliveries.c.id < 4).values(created_at=past)
        )
    upkeep.tidy(storage._archive, storage.jobs)
    assert [one.audio_id for one in told(storage)] == [4, 5]


def test_deleting_a_recording_forgets_what_was_told_of_it(
    storage: AudioStorageSystem, receiver: Receiver, sound: Callable[[], Path]
) -> None:
    storage.webhooks.add(receiver.url)
    first, second = int(storage.store_audio_file(sound())), int(storage.store_audio_file(sound()))
    deliver(storage)
    storage.delete(first)
    assert [(one.event, one.audio_id) for one in told(storage)] == [
        ("recording.stored", second),
        ("recording.deleted", first),
    ]
    deliver(storage)
    assert receiver.events()[-1] == ("recording.deleted", first) and receiver.calls[-1].said["link"] is None


def test_a_backup_brings_webhooks_and_a_copy_does_not(
    tmp_path: Path, receiver: Receiver, sound: Callable[[], Path]
) -> None:
    with AudioStorageSystem(tmp_path / "one") as storage:
        made = storage.webhooks.add(receiver.url, name="kept")
        storage.store_audio_file(sound())
        storage.backups.create(tmp_path / "backup")
    assert restore_backup(str(tmp_path / "backup"), str(tmp_path / "two")).complete
    assert copy_archive(tmp_path / "one", tmp_path / "three").complete
    with AudioStorageSystem(tmp_path / "two") as restored, AudioStorageSystem(tmp_path / "three") as copied:
        assert copied.webhooks.list() == [] and told(restored) == []
        assert restored.webhooks.get(1).name == "kept"
        restored.store_audio_file(sound())
        deliver(restored)
    assert receiver.events() == [("recording.stored", 2)] and receiver.calls[0].is_signed(made.secret)


# What is given


@pytest.mark.parametrize(
    ("events", "name"), [([], ""), (["recording.lost"], ""), (["webhook.test"], ""), ([7], ""), (None, "x" * 256)]
)
def test_what_cannot_be_is_refused(storage: AudioStorageSystem, events: Any, name: str) -> None:
    wanted = {} if events is None else {"events": events}
    with pytest.raises(InvalidInput):
        storage.webhooks.add("https://example.org", name=name, **wanted)
    assert storage.webhooks.list() == []


@pytest.mark.parametrize("days", [0, -1, float("nan"), 40_000])
def test_deliveries_are_known_for_a_time_that_makes_sense(tmp_path: Path, days: float) -> None:
    with pytest.raises(InvalidSetting, match="webhook_days"):
        AudioStorageSystem(tmp_path / "archive", webhook_days=days)


def test_there_are_not_more_than_can_be_asked_for_each_change(
    storage: AudioStorageSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board, "MOST_WEBHOOKS", 2)
    for _ in range(2):
        storage.webhooks.add("https://example.org")
    with pytest.raises(Conflict, match="2 webhooks"):
        storage.webhooks.add("https://example.org")


def test_a_webhook_that_is_not_there(storage: AudioStorageSystem) -> None:
    for call in (storage.webhooks.get, storage.webhooks.test, storage.webhooks.remove, storage.webhooks.deliveries):
        with pytest.raises(NotFound, match="No webhook with id 7"):
            call(7)
    with pytest.raises(NotFound, match="No delivery with id x"):
        storage.webhooks.retry("x")


@given(st.integers(1, 20), st.floats(0, 1))
def test_waits_grow_and_end(tries: int, drawn: float) -> None:
    wait = plan.wait_after(tries, lambda: drawn)
    if tries >= plan.TRIES:
        assert wait is None
        return
    assert wait is not None
    middle = plan.WAITS[tries - 1]
    assert 0.8 * middle <= wait.total_seconds() <= 1.2 * middle + 1e-6
    following = plan.wait_after(tries + 1, lambda: 1 - drawn)
    assert following is None or following > wait


def test_all_tries_together_take_most_of_a_day() -> None:
    assert 18 * 3_600 < 0.8 * sum(plan.WAITS) < 1.2 * sum(plan.WAITS) < 30 * 3_600


@given(st.integers(0, 20), st.sampled_from([None, 200, 404, 410, 500]))
def test_a_webhook_is_given_up_after_days_or_when_it_is_gone(days: int, status: int | None) -> None:
    now = datetime(2026, 11, 28, tzinfo=UTC)
    assert plan.is_hopeless(now - timedelta(days=days), now, status) == (status == 410 or days >= 5)
