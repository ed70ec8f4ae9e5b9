"""Workers that die while they call webhooks, and several at once: nothing is lost, nor doubled without cause."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from audio_storage_system import AudioStorageSystem
from audio_storage_system.webhooks import DeliveryState
from catalogues import plain_sql
from receiving import Call, Receiver
from sounds import noise, wav
from working import Plan, ended, kill, start

pytestmark = [
    pytest.mark.usefixtures("scripted_engine", "private_receivers"),
    pytest.mark.skipif(sys.platform == "win32", reason="processes are killed by signals"),
]
KILLED = -signal.SIGKILL


def sounds(folder: Path, count: int) -> list[Path]:
    paths = [folder / f"{number}.wav" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(wav(noise(0.2, seed=number)))
    return paths


def fill(home: Path, receiver: Receiver, folder: Path, count: int) -> None:
    """An archive that has something to tell of each of so many recordings."""
    with AudioStorageSystem(home, transcriber="scripted") as storage:
        storage.webhooks.add(receiver.url)
        for path in sounds(folder, count):
            storage.store_audio_file(path)


def worker(home: Path, **further: Any) -> Any:
    return start(Plan(str(home), dict(os.environ), **further))


@pytest.mark.parametrize("point", ["calling", "called"])
def test_what_a_killed_worker_was_sending_is_sent_by_another_under_the_same_id(
    home: Path, receiver: Receiver, tmp_path: Path, point: str
) -> None:
    fill(home, receiver, tmp_path, 1)
    assert ended(worker(home, die_at=(point, 1))) == KILLED
    assert len(receiver.calls) == (point == "called")
    assert ended(worker(home)) == 0
    assert len(receiver.calls) == (point == "called"), "it may be at it still"
    plain_sql(home, "UPDATE webhook_deliveries SET due_at = created_at")  # its lease is over
    assert ended(worker(home)) == 0
    assert len(receiver.calls) == 1 + (point == "called")
    assert len({(call.said["delivery_id"], call.body) for call in receiver.calls}) == 1
    with AudioStorageSystem(home) as storage:
        [one] = storage.webhooks.deliveries(1).deliveries
    assert (one.state, one.attempts) == (DeliveryState.DELIVERED, 2)


def test_a_call_that_kills_whoever_makes_it_is_given_up(home: Path, receiver: Receiver, tmp_path: Path) -> None:
    fill(home, receiver, tmp_path, 1)
    plain_sql(home, "UPDATE webhook_deliveries SET attempts = 7")
    assert ended(worker(home, die_at=("calling", 1))) == KILLED
    plain_sql(home, "UPDATE webhook_deliveries SET due_at = created_at")
    assert ended(worker(home, die_at=("calling", 1))) == 0, "it is not called again"
    with AudioStorageSystem(home) as storage:
        assert [one.state for one in storage.webhooks.deliveries(1).deliveries] == [DeliveryState.FAILED]


def test_a_change_that_is_cut_short_is_not_told(home: Path, receiver: Receiver, tmp_path: Path) -> None:
    fill(home, receiver, tmp_path, 0)
    [path] = sounds(tmp_path, 1)
    assert ended(worker(home, submit=(str(path),), die_at=("telling", 1))) == KILLED
    with AudioStorageSystem(home) as storage:  # the bytes were there, and are adopted: that is told
        assert [one.event for one in storage.webhooks.deliveries(1).deliveries] == ["recording.stored"]
        assert len(storage.list_recordings()) == 1


def test_several_workers_call_once(home: Path, receiver: Receiver, tmp_path: Path) -> None:
    def slowly(call: Call, handler: BaseHTTPRequestHandler) -> int:
        time.sleep(0.01)
        return 204

    receiver.answer = slowly
    fill(home, receiver, tmp_path, 60)
    assert [ended(process) for process in [worker(home) for _ in range(2)]] == [0, 0]
    assert Counter(call.said["audio_id"] for call in receiver.calls) == dict.fromkeys(range(1, 61), 1)


def test_whatever_dies_every_event_arrives_in_order(home: Path, receiver: Receiver, tmp_path: Path) -> None:
    """Workers are killed at any moment while receivers fail now and then."""
    numbers = iter(range(10_000))
    receiver.answer = lambda call, handler: 500 if next(numbers) % 5 == 4 else 204
    fill(home, receiver, tmp_path, 12)
    with AudioStorageSystem(home) as storage:
        storage.trash.put(*range(1, 13))
        storage.trash.restore(*range(1, 13))
    for round_ in range(4):
        process = worker(home, until_done=False)
        time.sleep(0.6 + 0.15 * round_)
        kill(process)
        plain_sql(home, "UPDATE webhook_deliveries SET due_at = created_at WHERE outcome IS NULL")
    while plain_sql(home, "SELECT id FROM webhook_deliveries WHERE outcome IS NULL"):
        plain_sql(home, "UPDATE webhook_deliveries SET due_at = created_at WHERE outcome IS NULL")
        assert ended(worker(home)) == 0
    for audio_id in range(1, 13):
        heard = list(dict.fromkeys(call.event for call in receiver.calls if call.said["audio_id"] == audio_id))
        assert (
            heard == ["recording.stored", "recording.trashed", "recording.restored"][: len(heard)] and len(heard) >= 3
        )
