"""The command `mcp`: what it writes where, how it ends, which files it reads, and one question from end to end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
import wave
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError

from audio_storage_system import AudioStorageSystem, Cancellation
from audio_storage_system.cli import main
from audio_storage_system.errors import AudioStorageSystemError, Forbidden, InvalidInput, NotFound, TooLarge
from audio_storage_system.server.mcp import stdio, writing
from audio_storage_system.server.mcp.caller import Caller
from audio_storage_system.server.mcp.folders import Folders
from audio_storage_system.server.mcp.protocol import make_server
from audio_storage_system.server.mcp.stdio import lines_of
from audio_storage_system.testing.scripted import ScriptedTranscriber
from mcp_sessions import Session, connected, program
from sounds import RATE, spoken
from working import talk

HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
}
READY = {"jsonrpc": "2.0", "method": "notifications/initialized"}
PING = {"jsonrpc": "2.0", "id": 7, "method": "ping"}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """An archive with nothing in it."""
    AudioStorageSystem(tmp_path / "archive").close()
    return tmp_path / "archive"


@contextmanager
def running(place: Path, *options: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """The command as a process, spoken to without a client."""
    how = program(place, *options, **environment)
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen([how.command, *how.args], env=how.env, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


def send(process: subprocess.Popen[bytes], *messages: Any) -> None:
    assert process.stdin
    for message in messages:
        line = message if isinstance(message, bytes) else json.dumps(message).encode()
        process.stdin.write(line + b"\n")
    process.stdin.flush()


def receive(process: subprocess.Popen[bytes]) -> Any:
    assert process.stdout
    return json.loads(process.stdout.readline())


def save(samples: np.ndarray[Any, Any], path: Path) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return path


def test_add_speech_ask_and_get_the_second_it_was_said(place: Path, tmp_path: Path) -> None:
    folder = tmp_path / "inbox"
    folder.mkdir()
    first = spoken("the weather will be cold and it is going to rain", tmp_path)
    second = spoken("please remember to buy milk and bread", tmp_path)
    pause = np.zeros(4 * RATE, np.float32)
    save(np.concatenate([first, pause, second, pause]), folder / "note.wav")
    said_at = (len(first) + len(pause)) / RATE
    told: list[float] = []

    async def heard(progress: float, total: float | None, message: str | None) -> None:
        told.append(progress)

    with connected(program(place, "--allow-write", "--files", str(folder)), "auto") as session:
        assert "transcribe_file" in session.tools()
        added = session.do(
            session.client.call_tool, "transcribe_file", {"path": "note.wav", "language": "en"}, progress_callback=heard
        ).structured_content
        [hit, *_] = session.ask("search_audio", query="please remember what to buy")["results"]
        around = session.ask("get_transcript", audio_id=hit["audio_id"], start=hit["at"], end=hit["at"] + 1)
        again = session.ask("transcribe_file", path=str(folder / "note.wav"))
        found = session.ask("list_recordings")["recordings"]
    assert added["duplicate"] is False and again == {**added, "duplicate": True}
    assert told == sorted(set(told)) and told[-1] > said_at
    assert hit["audio_id"] == added["audio_id"] and abs(hit["at"] - said_at) < 1
    assert "buy" in around["segments"][0]["text"]
    assert "note.wav, 20" in hit["citation"] and f"start={hit['start']:.2f}" in hit["uri"]
    assert [one["name"] for one in found] == ["note.wav"]


def test_nothing_but_the_protocol_is_on_standard_output(place: Path, demo: Path) -> None:
    with running(place, "--allow-write", "--files", str(demo)) as process:
        arguments = {"path": "voice_note.flac"}
        call = {**PING, "method": "tools/call", "params": {"name": "transcribe_file", "arguments": arguments}}
        send(process, HELLO, READY, call)
        assert receive(process)["result"]["serverInfo"]["name"] == "audio-storage"
        answer = receive(process)
        assert answer["id"] == 7 and answer["result"]["structuredContent"]["version"]["flags"] == ["fallback"]
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, b"")
    assert b"Using pocketsphinx instead" in err, "what people are told is told on standard error"


def test_odd_lines_do_not_end_it(place: Path) -> None:
    with running(place) as process:
        send(process, HELLO, READY, b"", b"{", b"\xff\xfe", b"[]", b'{"jsonrpc": "2.0"}', b"x" * (5 << 20), PING)
        receive(process)
        assert receive(process) == {"jsonrpc": "2.0", "id": 7, "result": {}}
        _, err = process.communicate(timeout=30)
    assert process.returncode == 0 and b"left out" in err


@pytest.mark.parametrize("ready", [False, True])
def test_it_ends_at_once_when_the_client_goes(place: Path, ready: bool) -> None:
    with running(place) as process:
        if ready:
            send(process, HELLO, READY)
            receive(process)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, b"", b"")


def test_ctrl_c_ends_it_though_the_terminal_stays(place: Path) -> None:
    with running(place) as process:
        send(process, HELLO, READY)
        receive(process)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert process.stdout and process.stdout.read() == b""


class Tripping:
    """A server that Ctrl-C finds at work, and of which a part fails when the rest is cancelled."""

    def create_initialization_options(self) -> None:
        pass

    async def run(self, *arguments: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        try:
            await anyio.sleep_forever()
        except BaseException:
            raise anyio.BrokenResourceError from None


def test_ctrl_c_counts_though_a_part_fails_on_its_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stdio, "stdio_server", lambda stdin: nullcontext((None, None)))
    monkeypatch.setattr(stdio, "make_server", lambda *_: Tripping())
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            stdio.serve(lambda: pytest.fail("nobody asks"))
    finally:
        signal.signal(signal.SIGINT, before)


# Who calls


@pytest.mark.parametrize(
    ("options", "environment", "code", "words"),
    [
        ([], {"AUDIO_STORAGE_TOKEN": "ast_wrong"}, 10, "token is not accepted"),
        (["--as", "nobody"], {}, 4, "nobody"),
        (["--as", "anna"], {"AUDIO_STORAGE_TOKEN": "ast_wrong"}, 2, "either"),
        (["--files", "/"], {}, 2, "--allow-write"),
        (["--allow-write", "--files", "/nowhere/at/all"], {}, 2, "no folder"),
        (["--archive", "/nowhere/at/all"], {}, 9, "no archive"),
    ],
)
def test_what_cannot_work_is_said_at_once(
    place: Path,
    options: list[str],
    environment: dict[str, str],
    code: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main(["mcp", "--archive", str(place), *options]) == code
    out, err = capsys.readouterr()
    assert out == "" and words in err


def test_a_token_that_is_revoked_is_accepted_no_longer(place: Path) -> None:
    with AudioStorageSystem(place) as storage:
        storage.users.add("anna")
        made = storage.tokens.create("anna")
        with connected(program(place, AUDIO_STORAGE_TOKEN=made.secret)) as session:
            assert session.ask("list_recordings") == {"recordings": []}
            storage.tokens.revoke(made.token.id)
            assert session.refused("list_recordings")["code"] == "unauthorized"
            with pytest.raises(MCPError, match="revoked"):
                session.tools()


# Files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file, beside one that is nobody's business."""
    (tmp_path / "inside" / "deeper").mkdir(parents=True)
    (tmp_path / "inside" / "deeper" / "a.wav").write_bytes(b"inside")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "b.wav").write_bytes(b"outside")
    (tmp_path / "inside-not").mkdir()
    (tmp_path / "inside-not" / "c.wav").write_bytes(b"outside")
    return tmp_path / "inside"


@pytest.mark.parametrize("path", ["deeper/a.wav", "{}/deeper/a.wav", "deeper/../deeper/./a.wav", "link.wav"])
def test_a_file_below_the_folder_is_found(folder: Path, path: str) -> None:
    (folder / "link.wav").symlink_to("deeper/a.wav")
    with Folders([folder.parent / "outside", folder]).open(path.format(folder)) as file:
        assert file.read() == b"inside"


@pytest.mark.parametrize(
    "path",
    ["../outside/b.wav", "{}/../outside/b.wav", "/etc/passwd", "/nowhere", "link.wav", "linked/b.wav", "deep/b.wav",
     "../inside-not/c.wav", "..", "/proc/self/environ", "../archive/audio_storage.db", "mine/a.wav"],
)  # fmt: skip
def test_nothing_outside_is_told(folder: Path, path: str) -> None:
    (folder / "link.wav").symlink_to(folder.parent / "outside" / "b.wav")
    (folder / "linked").symlink_to(folder.parent / "outside")
    (folder / "deep").symlink_to("linked")
    (folder / "mine").mkdir()
    (folder / "mine" / "a.wav").write_bytes(b"the archive's own")
    with pytest.raises(Forbidden) as caught:
        Folders([folder], apart=folder / "mine").open(path.format(folder))
    assert str(caught.value) == "This server may not read files outside of the folders named with --files."


def test_what_is_no_file_is_refused_without_waiting(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "locked.wav").write_bytes(b"")
    errors: dict[str, type[AudioStorageSystemError]] = {
        "pipe": InvalidInput,
        "deeper": InvalidInput,
        "missing.wav": NotFound,
        "deeper/a.wav/x": InvalidInput,
        "x" * 4000: InvalidInput,
        ".": InvalidInput,
    }
    for path, error in errors.items():
        with pytest.raises(error):
            Folders([folder]).open(path)
    with pytest.raises(TooLarge):
        Folders([folder]).open("deeper/a.wav", max_bytes=5)


def test_what_is_no_audio_is_told_as_such(place: Path, folder: Path) -> None:
    with connected(program(place, "--allow-write", "--files", str(folder))) as session:
        assert session.refused("transcribe_file", path="deeper/a.wav")["code"] == "not_audio"
        assert session.refused("transcribe_file", path="../outside/b.wav")["code"] == "forbidden"
        assert session.refused("transcribe_file", path="deeper/b.wav")["code"] == "not_found"
        assert session.ask("list_recordings") == {"recordings": []}


# Long calls


@pytest.fixture
def open_place(place: Path, scripted_engine: type[ScriptedTranscriber]) -> Iterator[AudioStorageSystem]:
    """The archive, with an engine that a test can hold up."""
    with AudioStorageSystem(place, transcriber="scripted") as storage:
        yield storage


@pytest.fixture
def scripted(open_place: AudioStorageSystem, folder: Path) -> Iterator[Session]:
    """A session with it in this process, over a folder with a long recording."""
    talk(folder / "long.wav", 1, 12)
    with connected(make_server(lambda context: Caller(open_place, True, Folders([folder])))) as session:
        yield session


def test_a_call_that_is_cancelled_stops_and_goes_on_the_next_time(
    open_place: AudioStorageSystem,
    scripted: Session,
    scripted_engine: type[ScriptedTranscriber],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heard: list[float] = []
    begun, told, released = threading.Event(), threading.Event(), threading.Event()
    cancel = Cancellation.cancel
    monkeypatch.setattr(Cancellation, "cancel", lambda one: (cancel(one), told.set())[0])

    def wait(window: Any) -> None:
        heard.append(window.start)
        begun.set()
        assert released.wait(60)

    monkeypatch.setattr(scripted_engine, "before", wait)
    future = scripted.portal.start_task_soon(scripted.client.call_tool, "transcribe_file", {"path": "long.wav"})
    assert begun.wait(60)
    future.cancel()
    assert told.wait(60)
    released.set()
    assert scripted.ask("list_recordings")["recordings"], "others are answered, and the sound is stored"
    until = time.monotonic() + 60
    while any(model.users for model in open_place.models()):
        assert time.monotonic() < until, "it goes on"
        time.sleep(0.02)
    before = len(heard)
    added = scripted.ask("transcribe_file", path="long.wav")
    assert before < 12 and len(heard) <= 12 + 2, "it stopped, and what was kept was not done again"
    assert added["duplicate"] and added["version"]["outcome"] == "ok"


def test_a_long_transcription_ends_at_its_deadline_and_goes_on_the_next_time(
    scripted: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "TRANSCRIBE_SECONDS", 0.0)
    error = scripted.refused("transcribe_file", path="long.wav")
    assert error["code"] == "deadline_exceeded" and error["retryable"] and "call again" in error["message"]
    monkeypatch.setattr(writing, "TRANSCRIBE_SECONDS", 600.0)
    assert scripted.ask("transcribe_file", path="long.wav")["version"]["outcome"] == "ok"


def test_a_search_ends_at_its_deadline(place: Path) -> None:
    with AudioStorageSystem(place) as storage:
        with connected(make_server(lambda context: Caller(storage, seconds=0.0))) as session:
            assert session.refused("search_audio", query="x")["code"] == "deadline_exceeded"
            assert session.refused("get_context", question="x")["code"] == "deadline_exceeded"


# Lines


@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_lines_are_those_that_were_written(chunk: int) -> None:
    given = b"one\ntwo\r\n\n" + b"x" * 20 + b"\nlast " + b"y" * 10
    source, sink = os.pipe()

    def write() -> None:
        for place in range(0, len(given), chunk):
            os.write(sink, given[place : place + chunk])
        os.close(sink)

    threading.Thread(target=write).start()
    assert list(lines_of(source, max_bytes=16)) == ["one", "two\r", "", "last " + "y" * 10]
    os.close(source)


def test_an_in_process_client_is_the_same(place: Path) -> None:
    with AudioStorageSystem(place) as storage:
        with connected(make_server(lambda context: Caller(storage))) as session:
            assert isinstance(session.client, Client) and session.ask("list_recordings") == {"recordings": []}
