"""What the OpenAI-compatible server keeps, for whom, and what happens when something goes wrong meanwhile."""

from __future__ import annotations

import io
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from audio_storage_system import AudioStorageSystem
from audio_storage_system.records import JobState
from audio_storage_system.server.openai import work
from audio_storage_system.testing.scripted import ScriptedTranscriber
from audio_storage_system.transcribers import Capabilities, Window
from catalogues import FILE, ON_SQLITE
from patience import until
from serving import as_bearer, serving
from sounds import noise, wav
from working import hear, talk

pytestmark = pytest.mark.usefixtures("scripted_engine")
WAIT = 60.0


@pytest.fixture
def url(home: Path, scripted_engine: object) -> Iterator[str]:
    """A server over an archive whose engine is the scripted one, on either catalogue."""
    with serving(lambda: AudioStorageSystem(home, transcriber="scripted")) as url:
        yield f"{url}/v1"


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def short(tmp_path: Path) -> Path:
    """One window of speech."""
    return talk(tmp_path / "short.wav", seed=1, windows=1)


@pytest.fixture
def long(tmp_path: Path) -> Path:
    """Five windows of speech, which the engine takes two at a time."""
    return talk(tmp_path / "long.wav", seed=2, windows=5)


@pytest.fixture
def gone(monkeypatch: pytest.MonkeyPatch) -> list[threading.Event]:
    """What each request learns by that its client went away."""
    made: list[threading.Event] = []

    def event() -> threading.Event:
        made.append(threading.Event())
        return made[-1]

    monkeypatch.setattr(work, "Event", event)
    return made


def ask(client: openai.OpenAI, path: Path, **arguments: Any) -> Any:
    with path.open("rb") as file:
        return client.audio.transcriptions.create(**{"model": "whisper-1", "file": file, **arguments})


def test_the_same_file_again_is_answered_from_the_archive(
    client: openai.OpenAI, storage: AudioStorageSystem, short: Path
) -> None:
    one, two = (ask(client, short) for _ in range(2))
    assert (one.audio_id, one.transcript_id, one.text) == (two.audio_id, two.transcript_id, two.text)
    anew = ask(client, short, extra_body={"anew": True})
    assert anew.audio_id == one.audio_id and anew.transcript_id > one.transcript_id
    headed = ask(client, short, extra_headers={"X-Audio-Storage-Anew": "true"})
    assert headed.transcript_id > anew.transcript_id
    assert ask(client, short).transcript_id == headed.transcript_id, "the latest of its kind"
    others = [{"language": "en"}, {"prompt": "Ada"}, {"extra_body": {"keywords": ["Ada", "Babbage"]}}]
    made = {ask(client, short, **other).transcript_id for other in others}
    assert len({headed.transcript_id, *made}) == 4
    prompts = [version.parameters["prompt"] for version in storage.transcripts(one.audio_id)]
    assert prompts[-2:] == ["Ada", "Ada, Babbage."]


@ON_SQLITE
def test_an_archive_kept_by_other_means_answers_too(
    client: openai.OpenAI, storage: AudioStorageSystem, short: Path
) -> None:
    added = storage.add(short)
    assert ask(client, short).transcript_id == added.transcript_id


@ON_SQLITE
@pytest.mark.parametrize(
    "how", [{"extra_body": {"store": False}}, {"extra_headers": {"X-Audio-Storage-Store": "false"}}]
)
@pytest.mark.parametrize("stream", [False, True])
def test_nothing_stays_of_what_is_not_to_be_stored(
    client: openai.OpenAI, storage: AudioStorageSystem, long: Path, how: dict[str, Any], stream: bool
) -> None:
    answer = ask(client, long, stream=stream, **how)
    said = list(answer)[-1] if stream else answer
    assert said.text.count("is spoken") == 5 and (said.audio_id, said.transcript_id) == (None, None)
    assert storage.stats()["recordings"] == 0
    assert list(storage.home.glob("audio_files/**/*.*")) == []


def test_a_setting_keeps_everything_out_unless_a_request_says_otherwise(tmp_path: Path, short: Path) -> None:
    given: dict[str, Any] = {"transcriber": "scripted", "openai_store": False}
    with serving(lambda: AudioStorageSystem(tmp_path / "archive", **given)) as url:
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            assert ask(client, short).audio_id is None
            assert ask(client, short, extra_body={"store": True}).audio_id == 1


@ON_SQLITE
def test_metadata_comes_in_the_form_or_as_a_header(
    client: openai.OpenAI, storage: AudioStorageSystem, short: Path
) -> None:
    said = ask(client, short, extra_headers={"X-Audio-Storage-Metadata": '{"user": "j\\u00fcrgen"}'})
    assert storage.get_recording(said.audio_id).metadata == {"user": "jürgen"}
    ask(client, short, extra_body={"metadata": '{"session": 3}'})
    assert storage.get_recording(said.audio_id).metadata == {"user": "jürgen", "session": 3}


def test_a_model_that_the_settings_name(tmp_path: Path, short: Path) -> None:
    given: dict[str, Any] = {
        "transcriber": "scripted",
        "openai_models": "calls = scripted:other, whisper-1=scripted:one",
    }
    with serving(lambda: AudioStorageSystem(tmp_path / "archive", **given)) as url:
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            texts = [ask(client, short, model=model).text for model in ("calls", "whisper-1", "gpt-4o-transcribe")]
            assert client.models.retrieve("calls").id == "calls"
            assert {"calls", "whisper-1"} <= {model.id for model in client.models.list()}
    assert [text.split()[4:] for text in texts] == [["other"], ["one"], []]


def test_tokens_say_whose_it_is(tmp_path: Path, short: Path) -> None:
    home = tmp_path / "archive"
    with AudioStorageSystem(home) as storage:
        for name in ("anna", "ben"):
            storage.users.add(name)
        secrets = [storage.tokens.create(name, scopes=["write"]).secret for name in ("anna", "ben")]
        reader = storage.tokens.create("ben", scopes=["read"]).secret
    with serving(lambda: AudioStorageSystem(home, transcriber="scripted")) as url:

        def client(key: str) -> openai.OpenAI:
            return openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)

        annas, bens = (ask(client(secret), short) for secret in secrets)
        assert annas.audio_id != bens.audio_id
        answer = httpx.get(f"{url}/api/v1/stats", headers=as_bearer(secrets[0]), timeout=WAIT)
        assert answer.json()["recordings"] == 1
        with pytest.raises(openai.PermissionDeniedError):
            ask(client(reader), short)
        assert ask(client(reader), short, extra_body={"store": False}).text == annas.text
        for key in ("none", "ast_wrong"):
            with pytest.raises(openai.AuthenticationError) as failure:
                ask(client(key), short)
            assert failure.value.code == "invalid_api_key" and key not in str(failure.value.body)


@ON_SQLITE
def test_any_key_will_do_while_there_are_no_tokens_but_one_of_another_archive(client: openai.OpenAI, url: str) -> None:
    assert client.models.list().data
    assert httpx.get(f"{url}/models", timeout=WAIT).status_code == 200
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="ast_of_another_archive").models.list()
    headers = {"Origin": "https://evil.example", "Authorization": "Bearer none"}
    answer = httpx.get(f"{url}/models", headers=headers, timeout=WAIT)
    assert (answer.status_code, answer.json()["error"]["type"]) == (403, "permission_error")


def test_what_is_done_is_entered_in_the_audit_log_with_where_it_came_from(tmp_path: Path, short: Path) -> None:
    home = tmp_path / "archive"
    home.mkdir()
    (home / FILE).write_text(f"key_file = {json.dumps(str(tmp_path / 'key'))}\n")
    with serving(lambda: AudioStorageSystem(home, audit=True, transcriber="scripted")) as url:
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            list(ask(client, short, stream=True))
            ask(client, short, extra_body={"store": False})
    with AudioStorageSystem(home) as storage:
        entries = storage.audit.list(limit=100).entries
        assert storage.audit.verify().ok
    done = {entry.action for entry in entries if entry.origin.startswith("http:127.0.0.1@")}
    assert {"recording.stored", "transcript.made", "transcript.read", "sound.transcribed"} <= done


# While it is made


@ON_SQLITE
def test_events_come_while_the_rest_is_still_to_be_heard(client: openai.OpenAI, long: Path) -> None:
    goes_on = threading.Event()
    hear(lambda window: None if window.start < 15 else (goes_on.wait(WAIT), None)[1])
    events = iter(ask(client, long, stream=True))
    first = next(events)
    assert not goes_on.is_set() and first.delta.startswith("second 0")
    goes_on.set()
    *rest, done = events
    assert len(rest) == 4 and first.delta + "".join(event.delta for event in rest) == done.text


@pytest.mark.parametrize("stream", [False, True])
def test_when_the_client_goes_away_a_job_finishes_it(
    client: openai.OpenAI, url: str, storage: AudioStorageSystem, long: Path, gone: list[threading.Event], stream: bool
) -> None:
    began, goes_on, starts = threading.Event(), threading.Event(), list[float]()

    def wait(window: Window) -> None:
        starts.append(window.start)
        if len(starts) == 3:
            began.set()
            assert goes_on.wait(WAIT)

    hear(wait)
    endpoint = f"{url}/audio/transcriptions"
    sent = threading.Thread(target=send_and_leave, args=(endpoint, long, {"stream": str(stream).lower()}, began))
    sent.start()
    sent.join(WAIT)
    assert gone[-1].wait(WAIT)
    goes_on.set()
    [job] = until(storage.jobs.find, WAIT)
    [version] = storage.transcripts(job.audio_id)
    assert version.outcome is None, "it was left where it was"
    hear(lambda window: starts.append(window.start))
    storage.worker(concurrency=1).run_until_idle(threading.Event())
    assert storage.jobs.get(job.id).state is JobState.DONE
    assert len(starts) == len(set(starts)) == 5, "what was kept is not heard again"
    said = ask(client, long)
    assert (said.audio_id, said.transcript_id) == (job.audio_id, version.id)
    assert storage.search_similar_audio("spoken", limit=1)[0].similarity > 0


@ON_SQLITE
@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
def test_a_job_finishes_a_translation_when_the_client_goes_away(
    client: openai.OpenAI,
    url: str,
    storage: AudioStorageSystem,
    long: Path,
    gone: list[threading.Event],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ScriptedTranscriber, "capabilities", Capabilities(batch_size=2, translates=True))
    began, goes_on, starts = threading.Event(), threading.Event(), list[float]()

    def wait(window: Window) -> None:
        starts.append(window.start)
        began.set()
        assert goes_on.wait(WAIT)

    hear(wait)
    sent = threading.Thread(target=send_and_leave, args=(f"{url}/audio/translations", long, {}, began))
    sent.start()
    sent.join(WAIT)
    assert gone[-1].wait(WAIT)
    goes_on.set()
    [job] = until(storage.jobs.find, WAIT)
    assert job.kind == "translate"
    [version] = storage.transcripts(job.audio_id)
    assert version.outcome is None, "it was left where it was"
    storage.worker(concurrency=1).run_until_idle(threading.Event())
    assert storage.jobs.get(job.id).state is JobState.DONE
    with long.open("rb") as file:
        said: Any = client.audio.translations.create(model="whisper-1", file=file)
    [version] = storage.transcripts(job.audio_id)
    assert (said.transcript_id, version.active, version.language) == (version.id, False, "en")
    assert len(starts) == len(set(starts)) == 5, "what was kept is not heard again"
    assert {job.state for job in storage.jobs.find()} == {JobState.DONE}


def send_and_leave(url: str, path: Path, fields: dict[str, str], began: threading.Event) -> None:
    """A client that goes away once the work on its file has begun."""
    body = httpx.Request(
        "POST",
        url,
        data={"model": "whisper-1", **fields},
        files={"file": ("long.wav", path.read_bytes())},
    )
    head = f"POST {body.url.path} HTTP/1.1\r\nHost: {body.url.netloc.decode()}\r\n"
    head += "".join(f"{name}: {body.headers[name]}\r\n" for name in ("content-type", "content-length"))
    with socket.create_connection((body.url.host, body.url.port or 80)) as connection:
        connection.sendall(f"{head}\r\n".encode() + body.read())
        assert began.wait(WAIT)


@ON_SQLITE
def test_a_failure_before_the_first_event_has_a_status(
    client: openai.OpenAI, storage: AudioStorageSystem, long: Path
) -> None:
    def fail(window: Window) -> None:
        raise RuntimeError("the engine broke down")

    hear(fail)
    for stream in (False, True):
        with pytest.raises(openai.InternalServerError) as failure:
            ask(client, long, stream=stream)
        assert failure.value.type == "server_error" and "the engine broke down" in failure.value.message
        [recording] = storage.list_recordings()
        assert failure.value.response.headers["x-audio-id"] == str(recording.id), "it is stored"


@pytest.mark.parametrize("asked", ["transcriptions", "translations", "stream"])
@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
def test_no_worker_tries_again_what_the_client_was_told_of(
    client: openai.OpenAI, storage: AudioStorageSystem, long: Path, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    monkeypatch.setattr(ScriptedTranscriber, "capabilities", Capabilities(batch_size=2, translates=True))
    monkeypatch.setattr(work, "LEFT_ALONE_SECONDS", 0.0)
    kind = client.audio.translations if asked == "translations" else client.audio.transcriptions
    starts = list[float]()

    def fail(window: Window) -> None:
        starts.append(window.start)
        if window.start > 15:
            raise MemoryError("the engine broke down")

    def send() -> Any:
        with long.open("rb") as file:
            said: Any = kind.create(model="whisper-1", file=file, **({"stream": True} if asked == "stream" else {}))
            return list(said)[-1] if asked == "stream" else said

    hear(fail)
    with pytest.raises(openai.APIError, match="the engine broke down"):
        send()
    [job] = storage.jobs.find()
    assert (job.state, job.code) == (JobState.FAILED, "out_of_memory") and "broke down" in (job.reason or "")
    tried = len(starts)
    storage.worker(concurrency=1).run_until_idle(threading.Event())
    assert len(starts) == tried, "the client decides"
    hear(None)
    assert send().text.count("is spoken") == 5
    assert [job.state for job in storage.jobs.find()] == [JobState.DONE, JobState.FAILED]


@ON_SQLITE
def test_a_failure_leaves_the_job_that_somebody_else_gave(
    client: openai.OpenAI, storage: AudioStorageSystem, long: Path
) -> None:
    def fail(window: Window) -> None:
        raise MemoryError("the engine broke down")

    given = storage.submit(long)
    hear(fail)
    with pytest.raises(openai.APIError, match="the engine broke down"):
        ask(client, long)
    hear(None)
    storage.worker(concurrency=1).run_until_idle(threading.Event())
    [job] = storage.jobs.find()
    assert (job.id, job.state) == (given.id, JobState.DONE)


@ON_SQLITE
def test_a_failure_after_that_ends_the_events(client: openai.OpenAI, storage: AudioStorageSystem, long: Path) -> None:
    def fail(window: Window) -> None:
        if window.start > 15:
            raise RuntimeError("the engine broke down")

    hear(fail)
    events = ask(client, long, stream=True)
    told = []
    with pytest.raises(openai.APIError, match="the engine broke down"):
        for event in events:
            told.append(event.delta)  # noqa: PERF401 - it ends with an error
    assert len(told) == 2
    hear(None)
    assert ask(client, long).text.count("is spoken") == 5


@pytest.mark.parametrize("at_once", [1, 2])
def test_no_more_are_transcribed_at_once_than_the_settings_say(tmp_path: Path, at_once: int) -> None:
    changed, running, most = threading.Condition(), [0], [0]

    def count(window: Window) -> None:
        with changed:
            running[0] += 1
            most[0] = max(most[0], running[0])
            changed.notify_all()
            changed.wait_for(lambda: most[0] >= at_once, timeout=60)
        time.sleep(0.1)
        with changed:
            running[0] -= 1

    paths = [talk(tmp_path / f"{seed}.wav", seed=seed, windows=1) for seed in range(4)]
    given: dict[str, Any] = {"transcriber": "scripted", "transcribe_at_once": at_once}
    hear(count)
    with serving(lambda: AudioStorageSystem(tmp_path / "archive", **given)) as url, ThreadPoolExecutor(4) as pool:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        said = list(pool.map(lambda path: ask(client, path).audio_id, paths))
    assert sorted(said) == [1, 2, 3, 4]
    assert most == [at_once]


@ON_SQLITE
def test_silence_is_a_result(client: openai.OpenAI) -> None:
    file = ("quiet.wav", io.BytesIO(wav(noise(2, level=1e-5))))
    answer: Any = client.audio.transcriptions.create(model="whisper-1", file=file, response_format="verbose_json")
    assert (answer.text, answer.segments, answer.language) == ("", [], "")
    file = ("quiet.wav", io.BytesIO(wav(noise(2, level=1e-5))))
    [done] = client.audio.transcriptions.create(model="whisper-1", file=file, stream=True)
    assert done.type == "transcript.text.done" and done.text == ""


@ON_SQLITE
def test_what_is_in_the_trash_stays_there(client: openai.OpenAI, storage: AudioStorageSystem, short: Path) -> None:
    storage.trash.put(ask(client, short).audio_id)
    with pytest.raises(openai.ConflictError, match="trash"):
        ask(client, short)
