"""Jobs over HTTP: listed, given, cancelled and retried, and followed while they are done."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from audio_storage_system import AudioStorageSystem
from audio_storage_system.clock import utc_now
from audio_storage_system.jobs import Jobs, Moment
from audio_storage_system.records import Job, JobState, Priority
from audio_storage_system.server import news, protocol
from audio_storage_system.server.api import job_events
from audio_storage_system.testing.scripted import ScriptedTranscriber
from serving import as_bearer, serving
from working import work

pytestmark = pytest.mark.usefixtures("scripted_engine")

Give = Callable[..., Job]


@pytest.fixture
def client(storage: AudioStorageSystem) -> Iterator[httpx.Client]:
    """A client of a server over the archive of the test, which offers two more models."""
    offered = "scripted:b=scripted:b, scripted:c=scripted:c"
    with (
        serving(lambda: AudioStorageSystem(storage.home, transcriber="scripted", openai_models=offered)) as url,
        httpx.Client(base_url=f"{url}/api/v1", timeout=30) as made,
    ):
        yield made


@pytest.fixture
def give(storage: AudioStorageSystem, tmp_path: Path, call: Path) -> Give:
    """Stores recordings that differ, each with a job."""
    numbers = iter(range(1000))

    def made(**further: Any) -> Job:
        path = tmp_path / f"call{next(numbers)}.flac"
        path.write_bytes(call.read_bytes() + path.name.encode())
        return storage.submit(path, **further)

    return made


@contextmanager
def working(storage: AudioStorageSystem) -> Iterator[None]:
    """A worker beside the test."""
    stop = threading.Event()
    thread = threading.Thread(target=storage.worker(concurrency=1).run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        ScriptedTranscriber.before = None
        stop.set()
        thread.join(30)


def test_jobs_are_listed_page_by_page(client: httpx.Client, storage: AudioStorageSystem, give: Give) -> None:
    given = [give(priority="high" if number == 1 else "normal") for number in range(5)]
    storage.jobs.cancel(given[0].id)
    shown: list[int] = []
    cursor: dict[str, str] = {}
    while cursor is not None:
        page = client.get("/jobs", params={"limit": 2, **cursor}).json()
        shown += [job["job_id"] for job in page["items"]]
        if len(shown) == 2:
            give()  # what comes meanwhile moves nothing
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert shown == [job.id for job in reversed(given)]
    assert [j["job_id"] for j in client.get("/jobs", params={"state": "cancelled"}).json()["items"]] == [given[0].id]
    assert len(client.get("/jobs", params={"state": "waiting"}).json()["items"]) == 5
    [mine] = client.get("/jobs", params={"audio_id": given[1].audio_id}).json()["items"]
    assert mine == json.loads(json.dumps(storage.jobs.get(given[1].id).as_dict()))
    assert mine == client.get(f"/jobs/{given[1].id}").json()
    assert (mine["priority"], mine["state"], mine["kind"]) == ("high", "waiting", "add")
    assert client.get("/jobs/counts").json() == {"done": 0, "failed": 0, "cancelled": 1, "unfinished": 5}


def test_a_job_is_cancelled_and_retried(client: httpx.Client, storage: AudioStorageSystem, give: Give) -> None:
    job = give()
    assert client.post(f"/jobs/{job.id}/cancel").json()["state"] == "cancelled"
    assert client.post(f"/jobs/{job.id}/cancel").status_code == 200
    assert client.post(f"/jobs/{job.id}/retry").json()["state"] == "waiting"
    again = client.post(f"/jobs/{job.id}/retry")
    assert (again.status_code, again.json()["code"]) == (409, "conflict")
    work(storage)
    assert client.get(f"/jobs/{job.id}").json()["state"] == "done"


def test_work_is_given(client: httpx.Client, storage: AudioStorageSystem, give: Give) -> None:
    first, second = give(), give()
    work(storage)
    one = client.post(f"/recordings/{first.audio_id}/retranscribe", json={"whisper_model": "scripted:b"})
    assert (one.status_code, one.json()["kind"], one.json()["audio_id"]) == (202, "retranscribe", first.audio_id)
    options = {"whisper_model": "scripted:c", "activate": "never", "priority": "low"}
    both = client.post("/retranscribe", json={"audio_ids": [second.audio_id, first.audio_id], **options})
    assert [job["audio_id"] for job in both.json()] == [second.audio_id, first.audio_id]
    twice = client.post("/retranscribe", json={"audio_ids": [first.audio_id] * 2, **options}).json()
    assert [job["job_id"] for job in twice] == [both.json()[1]["job_id"]] * 2, "one job does it"
    assert {job["priority"] for job in both.json()} == {"low"}
    anew = client.post("/reembed", json={"kind": "audio"})
    assert (anew.status_code, anew.json()["kind"], anew.json()["audio_id"]) == (202, "reembed", None)
    work(storage)
    assert client.get("/jobs/counts").json() == {"done": 6, "failed": 0, "cancelled": 0, "unfinished": 0}
    versions = client.get(f"/recordings/{first.audio_id}/transcripts").json()["items"]
    models = [one["whisper_model"] for one in versions]
    assert models == ["scripted", "scripted:b", "scripted:c"]


# Followed


def events_of(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """The events of a stream, as browsers take it apart; comments as `{"comment": …}`."""
    event: dict[str, Any] = {}
    for line in lines:
        if line.startswith(":"):
            yield {"comment": line[1:].strip()}
        elif line:
            name, _, value = line.partition(": ")
            event[name] = json.loads(value) if name == "data" else value
        elif event:
            if "data" in event:
                yield event
            event = {}


def told(events: Iterator[dict[str, Any]]) -> dict[str, Any]:
    """The next event; on a slow machine comments keep the connection alive before it."""
    return next(event for event in events if "data" in event)


@contextmanager
def following(client: httpx.Client, path: str, **headers: str) -> Iterator[Iterator[dict[str, Any]]]:
    with client.stream("GET", path, headers=headers) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield events_of(answer.iter_lines())


def test_a_job_is_followed_to_its_end(client: httpx.Client, storage: AudioStorageSystem, give: Give) -> None:
    job = give()
    going = threading.Event()
    ScriptedTranscriber.before = lambda window: going.wait(20) and None  # type: ignore[assignment]
    with following(client, f"/jobs/{job.id}/events") as events:
        first = told(events)
        assert (first["event"], first["data"]["job_id"]) == ("waiting", job.id)
        with working(storage):
            second = told(events)
            assert (second["event"], second["data"]["worker"] is not None) == ("running", True)
            assert second["data"]["seconds"] > 0
            going.set()
            rest = [event for event in events if "data" in event]  # the stream ends
    assert rest[-1]["event"] == "done" and rest[-1]["data"]["state"] == "done"
    assert rest[-1]["id"].endswith("-end")
    ids = [event["id"] for event in (first, second, *rest)]
    assert ids == sorted(ids)
    again = client.get(f"/jobs/{job.id}/events", headers={"Last-Event-ID": rest[-1]["id"]})
    assert (again.status_code, again.content) == (204, b"")
    with following(client, f"/jobs/{job.id}/events", **{"Last-Event-ID": first["id"]}) as events:
        assert [event["event"] for event in events if "data" in event] == ["done"], (
            "who was cut off is told how it ended"
        )


def test_the_end_of_a_job_is_told_soon(client: httpx.Client, storage: AudioStorageSystem, give: Give) -> None:
    job = give()
    with following(client, f"/jobs/{job.id}/events") as events:
        assert told(events)["event"] == "waiting"
        storage.jobs.cancel(job.id)
        began = time.monotonic()
        assert [event["event"] for event in events if "event" in event] == ["cancelled"]
        assert time.monotonic() - began < 10


@pytest.mark.parametrize("of_one", [True, False])
def test_nothing_is_lost_between_the_first_look_and_the_watch(
    client: httpx.Client, storage: AudioStorageSystem, give: Give, monkeypatch: pytest.MonkeyPatch, of_one: bool
) -> None:
    job, gate, looked = give(), threading.Event(), threading.Lock()
    real = Jobs.changed

    def late(self: Jobs, since: Moment | None = None) -> tuple[list[Job], Moment]:
        if since is None and looked.acquire(blocking=False):  # the watch's first look; it is the first of all
            gate.wait(20)
        return real(self, since)

    monkeypatch.setattr(Jobs, "changed", late)
    with following(client, f"/jobs/{job.id}/events" if of_one else "/jobs/events") as events:
        threading.Timer(0.3, gate.set).start()
        assert told(events)["event"] == "waiting"
        storage.jobs.cancel(job.id)
        gate.set()
        assert told(events)["event"] == "cancelled"


def test_all_jobs_are_followed_and_nothing_is_missed_by_who_comes_back(
    client: httpx.Client, storage: AudioStorageSystem, give: Give
) -> None:
    first, second = give(), give()
    with following(client, "/jobs/events") as events:
        assert [told(events)["data"]["job_id"] for _ in range(2)] == [first.id, second.id]
        third = give()
        new = told(events)
        assert (new["event"], new["data"]["job_id"]) == ("waiting", third.id)
        storage.jobs.cancel(second.id)
        ended = told(events)
        assert (ended["event"], ended["data"]["job_id"]) == ("cancelled", second.id)
    storage.jobs.cancel(third.id)  # while nobody listens
    with following(client, "/jobs/events", **{"Last-Event-ID": ended["id"]}) as events:
        back = [told(events) for _ in range(3)]
        assert ("cancelled", third.id) in [(event["event"], event["data"]["job_id"]) for event in back]
    with following(client, "/jobs/events", **{"Last-Event-ID": "nonsense"}) as events:
        assert told(events)["data"]["job_id"] == first.id


def test_a_silent_stream_shows_that_it_lives(client: httpx.Client, give: Give, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_events, "HEARTBEAT_SECONDS", 0.3)
    with following(client, f"/jobs/{give().id}/events") as events:
        assert told(events)["event"] == "waiting"
        assert [next(events) for _ in range(2)] == [{"comment": "still here"}] * 2


def test_the_job_of_a_recording_that_is_deleted_ends_its_stream(
    client: httpx.Client, storage: AudioStorageSystem, give: Give, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_events, "HEARTBEAT_SECONDS", 0.3)
    job = give()
    with following(client, f"/jobs/{job.id}/events") as events:
        assert told(events)["event"] == "waiting"
        storage.delete(job.audio_id or 0)
        assert all("comment" in event for event in events)


def test_who_listens_too_often_is_refused(client: httpx.Client, give: Give, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(news, "STREAMS_OF_ONE", 2)
    path = f"/jobs/{give().id}/events"
    with following(client, path) as one, following(client, path) as other:
        assert [next(one)["event"], next(other)["event"]] == ["waiting"] * 2
        refused = client.get(path)
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_requests")
    until = time.monotonic() + 30
    while client.get("/jobs/counts") and time.monotonic() < until:
        with client.stream("GET", path) as answer:
            if answer.status_code == 200:
                break
        time.sleep(0.1)
    assert time.monotonic() < until, "who has left makes room"


def test_a_token_that_is_revoked_is_told_nothing_more(
    client: httpx.Client, storage: AudioStorageSystem, give: Give, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_events, "HEARTBEAT_SECONDS", 0.3)
    job = give()
    storage.users.add("anna")
    storage.grants.give("anna", "reader", audio_id=job.audio_id)
    made = storage.tokens.create("anna")
    with following(client, "/jobs/events", **as_bearer(made.secret)) as events:
        assert told(events)["data"]["job_id"] == job.id
        storage.tokens.revoke(made.token.id)
        assert all("comment" in event for event in events)


def test_a_stream_ends_when_the_server_does(storage: AudioStorageSystem, give: Give) -> None:
    """In order: what does not end by itself is cut off after a while."""
    job = give()
    with httpx.Client(timeout=30) as client:
        with serving(lambda: AudioStorageSystem(storage.home, transcriber="scripted")) as url:
            listening = client.stream("GET", f"{url}/api/v1/jobs/{job.id}/events")
            lines = listening.__enter__().iter_lines()
            assert next(events_of(lines))["event"] == "waiting"
        assert all("comment" in event for event in events_of(lines))
        listening.__exit__(None, None, None)


def test_what_is_not_read_is_not_kept() -> None:
    now = utc_now()
    job = Job(1, "add", 1, {}, Priority.NORMAL, "", 1, "x", 1, 0, 0, JobState.WAITING, None, None, now, now)
    stream = news.Stream(asyncio.Event())
    for failures in range(20_000):
        stream.offer([replace(job, failures=failures)])
    assert [one.failures for one in stream.take()] == [19_999], "the latest state is what counts"
    stream.offer([replace(job, id=number) for number in range(20_000)])
    assert stream.overrun and len(stream.take()) <= news.MOST_KEPT + 1


# Whose jobs


def test_jobs_of_others_are_not_there(client: httpx.Client, storage: AudioStorageSystem, give: Give) -> None:
    mine, theirs = give(), give()
    storage.users.add("anna")
    storage.grants.give("anna", "editor", audio_id=mine.audio_id)
    write = as_bearer(storage.tokens.create("anna", scopes=["write"]).secret)
    read = as_bearer(storage.tokens.create("anna").secret)
    assert [job["job_id"] for job in client.get("/jobs", headers=read).json()["items"]] == [mine.id]
    assert client.get("/jobs/counts", headers=read).json()["unfinished"] == 1
    for method, path in [
        ("GET", f"/jobs/{theirs.id}"),
        ("GET", f"/jobs/{theirs.id}/events"),
        ("POST", f"/jobs/{theirs.id}/cancel"),
        ("POST", f"/jobs/{theirs.id}/retry"),
        ("POST", f"/recordings/{theirs.audio_id}/retranscribe"),
    ]:
        answer = client.request(method, path, headers=write, json={} if "retranscribe" in path else None)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path
    for path, body in [
        (f"/jobs/{mine.id}/cancel", None),
        (f"/jobs/{mine.id}/retry", None),
        (f"/recordings/{mine.audio_id}/retranscribe", {}),
        ("/retranscribe", {"audio_ids": [mine.audio_id]}),
    ]:
        answer = client.post(path, headers=read, json=body)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), path
    assert client.post("/reembed", headers=write, json={}).status_code == 403, "for administrators"
    with following(client, "/jobs/events", **read) as events:
        assert told(events)["data"]["job_id"] == mine.id
        storage.jobs.cancel(theirs.id, mine.id)
        assert told(events)["data"]["job_id"] == mine.id
    assert client.post(f"/jobs/{mine.id}/retry", headers=write).status_code == 200


LARGE = 10**30


def test_odd_requests_are_refused_in_words(client: httpx.Client) -> None:
    asked: list[tuple[str, str, Any]] = [
        ("GET", "/jobs?state=lost", None),
        ("GET", "/jobs?unknown=1", None),
        ("GET", f"/jobs?audio_id={LARGE}", None),
        ("GET", "/jobs?cursor=-1", None),
        ("GET", f"/jobs?cursor={LARGE}", None),
        ("GET", "/jobs?limit=1000000", None),
        ("GET", "/jobs/0", None),
        ("GET", "/jobs/-1", None),
        ("GET", f"/jobs/{LARGE}", None),
        ("GET", "/jobs/x", None),
        ("GET", f"/jobs/{2**63 - 1}", None),
        ("GET", f"/jobs/{2**63 - 1}/events", None),
        ("POST", f"/jobs/{2**63 - 1}/cancel", None),
        ("POST", "/reembed", {"embedder": "no-such"}),
        ("POST", "/reembed", {"embedder": "a\0b"}),
        ("POST", "/reembed", {"kind": "smell"}),
        ("POST", "/reembed", {"unknown": 1}),
        ("POST", "/retranscribe", {"audio_ids": []}),
        ("POST", "/retranscribe", {"audio_ids": [LARGE]}),
        ("POST", "/retranscribe", {"audio_ids": [5, 6]}),
        ("POST", "/retranscribe", {"audio_ids": [1] * 2000}),
        ("POST", "/recordings/1/retranscribe", {"whisper_model": "no:such"}),
        ("POST", "/recordings/1/retranscribe", {"activate": "perhaps"}),
        ("POST", "/recordings/1/retranscribe", {"prompt": "\0"}),
    ]
    for method, path, body in asked:
        answer = client.request(method, path, json=body)
        assert 400 <= answer.status_code < 500, (path, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"


def test_a_stream_that_is_never_read_is_cut(
    client: httpx.Client, give: Give, monkeypatch: pytest.MonkeyPatch, lost: threading.Event
) -> None:
    """Its events fill what the kernel keeps, then the connection is cut and its place is free."""
    monkeypatch.setattr(protocol, "UNREAD_SECONDS", 0.5)
    monkeypatch.setattr(job_events, "HEARTBEAT_SECONDS", 0.0)
    monkeypatch.setattr(job_events, "HEARTBEAT", ": " + "x" * (1 << 20) + "\n\n")
    with client.stream("GET", f"/jobs/{give().id}/events") as answer:
        assert answer.status_code == 200
        assert lost.wait(60)
        with pytest.raises(httpx.HTTPError):
            for _ in answer.iter_raw():
                pass
            raise httpx.ReadError("the end")
