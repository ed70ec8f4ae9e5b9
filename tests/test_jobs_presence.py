"""Which workers live, as the others see them."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio_storage_system.catalogue.workers import WorkerRow
from audio_storage_system.jobs import presence
from audio_storage_system.machine import process_place

ROW = WorkerRow(1, "w", "h", "", 1, "", [], datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC), 0)


@given(st.lists(st.tuples(st.floats(0.1, 10), st.booleans()), max_size=30))
def test_a_worker_is_dead_when_it_gave_no_sign_for_so_long_by_our_own_clock(
    moments: list[tuple[float, bool]],
) -> None:
    now, last, beats = 0.0, 0.0, 0
    watch = presence.Watch(clock=lambda: now)
    assert watch.dead([ROW]) == []
    for passed, beaten in moments:
        now += passed
        beats += beaten
        last = now if beaten else last
        row = replace(ROW, beats=beats, heartbeat_at=datetime(1970 if beaten else 2100, 1, 1, tzinfo=UTC))
        assert (watch.dead([row]) == [row]) == (now - last >= presence.DEAD_AFTER_SECONDS)


def test_a_process_of_this_machine_that_is_gone_is_dead_at_once() -> None:
    if not process_place():
        pytest.skip("which processes there are is not told on this system")
    child = subprocess.Popen([shutil.which("true") or "true"])
    row = replace(ROW, place=process_place(), process=child.pid)
    child.wait()
    assert presence.is_gone(row)
    assert not presence.is_gone(replace(row, process=1))
    assert not presence.is_gone(replace(row, place="elsewhere"))
