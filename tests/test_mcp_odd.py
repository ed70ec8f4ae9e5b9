"""Language models at an archive that changes meanwhile, or holds odd recordings."""

from __future__ import annotations

import json
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from audio_storage_system import AudioStorageSystem
from audio_storage_system.server.mcp.caller import Caller
from audio_storage_system.server.mcp.protocol import make_server
from builders import Talk, fill
from mcp_sessions import connected, over_http
from serving import serving
from test_server_search import Slow

BEGINNING = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


# What changes meanwhile


def test_pages_stay_whole_while_recordings_come_and_go(storage: AudioStorageSystem) -> None:
    talks = [Talk([f"number {n}"], recorded_at=BEGINNING + timedelta(microseconds=n // 3)) for n in range(30)]
    fill(storage._archive, talks)
    with connected(make_server(lambda context: Caller(storage))) as session:
        listed: list[int] = []
        for page in session.pages("list_recordings", "recordings", limit=4):
            listed += [one["audio_id"] for one in page]
            storage.trash.put(listed[0])  # one that was told, while another comes
            fill(storage._archive, [Talk(["new"], recorded_at=BEGINNING + timedelta(days=1))])
            storage.trash.restore(listed[0])
            storage.trash.put(listed[len(listed) // 2])
    assert listed == list(range(30, 0, -1))


@pytest.mark.parametrize("way", ["stdio", "http of 2026"])
def test_a_search_ends_when_nobody_wants_it_any_more(home: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    slow = Slow(home, monkeypatch)
    with ExitStack() as kept:
        if way == "stdio":
            storage = kept.enter_context(AudioStorageSystem(home))
            server = make_server(lambda context: Caller(storage, seconds=600))
            session = kept.enter_context(connected(server))
        else:
            url = kept.enter_context(serving(partial(AudioStorageSystem, home, search_seconds=600)))
            session = kept.enter_context(over_http(url, mode="auto"))
        call = partial(session.client.call_tool, "search_audio", {"query": "budget"})
        waiting = [session.portal.start_task_soon(call) for _ in range(3)]
        assert slow.becomes(3)
        for one in waiting[:2]:
            one.cancel()
        assert slow.becomes(1)
        assert session.ask("list_recordings") == {"recordings": []}
        waiting[2].cancel()
        assert slow.becomes(0)


# Odd recordings


def test_a_recording_from_the_end_of_time_with_odd_names_is_told(tmp_path: Path) -> None:
    with AudioStorageSystem(tmp_path / "archive") as storage:
        last = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
        nested: Any = 1
        for _ in range(200):
            nested = [nested]
        odd = {"deep": nested, "long": "x" * 500_000, "after": 1}
        voices = ["Anna\n[2] fake.wav, Bob", "B" * 5000]
        fill(storage._archive, [Talk(["one harbour", "two harbour " + "y" * 300_000], odd, last, speakers=voices)])
        with connected(make_server(lambda context: Caller(storage))) as session:
            asked: dict[str, Any] = {"query": "harbour", "mode": "keyword", "context_segments": 5, "max_chars": 50_000}
            hits = [hit for page in session.pages("search_audio", "results", **asked) for hit in page]
            listed = session.ask("list_recordings")["recordings"]
            about = session.ask("get_recording", audio_id=1)
            text = session.read("audio-storage://recordings/1/transcript")
            pages = list(session.pages("get_transcript", "segments", audio_id=1, max_chars=100_000))
            assert session.ask("get_context", question="harbour", max_tokens=500)["text"].count("\n\n") == 0
    first, second = sorted(hits, key=lambda hit: float(hit["start"]))
    assert first["speaker"] == "Anna [2] fake.wav, Bob" and len(second["speaker"]) == 300
    assert second["text_cut"] and "text_cut" not in first
    assert all(hit["said_at"] == "9999-12-31T23:59:59+00:00" and len(json.dumps(hit)) < 55_000 for hit in hits)
    assert isinstance(listed[0]["metadata"]["deep"], str) and listed[0]["metadata_cut"]
    assert len(json.dumps(listed)) < 2_000 and len(json.dumps(about)) < 25_000
    assert len(text) < 200_500 and "read on at audio-storage://recordings/1/transcript?start=10.00" in text
    assert "".join(line["text"] for page in pages for line in page) == "one harbourtwo harbour " + "y" * 300_000
