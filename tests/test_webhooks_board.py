"""Whose webhooks are, what is kept of them, and what can be one."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio_storage_system import AudioStorageSystem, copy_archive, restore_backup
from audio_storage_system.errors import (
    Conflict,
    Forbidden,
    InvalidInput,
    InvalidSetting,
    NotFound,
)
from audio_storage_system.jobs import upkeep
from audio_storage_system.webhooks import DeliveryState, Webhooks, board, plan, rows
from catalogues import plain_sql
from receiving import Receiver, deliver, told

pytestmark = pytest.mark.usefixtures("scripted_engine", "private_receivers")

KEY = bytes(range(32))


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
