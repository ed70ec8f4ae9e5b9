"""Worker processes for the tests of crashes: real ones, which die where and when a test wants them to.

They are forked from a server process that has imported everything once, so that hundreds of them take little time.
"""

from __future__ import annotations

import importlib
import itertools
import math
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
import wave
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from sqlalchemy import select

import audio_storage_system
from audio_storage_system import AudioStorageSystem, load_audio
from audio_storage_system.archive import processing
from audio_storage_system.audio import speech_windows
from audio_storage_system.database import postgresql, tables
from audio_storage_system.jobs import JobEvent, care
from audio_storage_system.records import JobState, Segment, Word
from audio_storage_system.testing.scripted import SPEC, ScriptedTranscriber
from audio_storage_system.transcribers import TRANSCRIBERS, Window, WindowResult
from postgres_server import PATIENT_SECONDS

RATE, SPEECH_SECONDS, PAUSE_SECONDS = 16_000, 3.0, 5.5
FACTORY = "working:Talkative"
BATCH = ScriptedTranscriber.capabilities.batch_size
# What the server of processes imports before it forks: the program, and what it imports late. It cannot find tests.
PRELOADED = [
    "audio_storage_system.system",
    "audio_storage_system.blobs.local",
    "audio_storage_system.database.migrations",
    "audio_storage_system.embedders.acoustic",
    "audio_storage_system.embedders.wordllama",
    "audio_storage_system.testing.scripted",
    "av",
    "dbos._sys_db_postgres",
    "dbos._sys_db_sqlite",
    "onnxruntime",
    "py_rust_stemmers",
    "pytest",
    "soxr",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.dialects.sqlite",
    "wordllama",
]
_PACKAGE = "audio_storage_system."
# Where a process can die besides at a worker's events: a function, and whether that is before or after it has run.
POINTS = {
    "entering": ("catalogue.workers:enter", "after"),
    "claimed": ("jobs.worker:Worker._perform", "before"),
    "opened": ("pipeline.transcription:_Run.open", "after"),
    "heard": ("testing.scripted:ScriptedTranscriber.transcribe", "after"),
    "committing": ("catalogue.transcripts:note_progress", "after"),
    "committed": ("pipeline.transcription:_Run._batch", "after"),
    "finishing": ("catalogue.transcripts:finish", "after"),
    "activating": ("catalogue.transcripts:activate", "after"),
    "finished": ("pipeline.transcription:_Run.finish", "after"),
    "proceeding": ("catalogue.jobs:proceed", "after"),
    "queueing": ("jobs.runs:Runs.enqueue", "after"),
    "embedding": ("catalogue.embeddings:add", "after"),
    "embedded": ("pipeline.embedding:_Work._keep", "after"),
    "ending": ("catalogue.jobs:finish", "after"),
    "counting": ("catalogue.jobs:count_deaths", "after"),
    "handing_back": ("jobs.runs:Runs.hand_back", "before"),
    "handed_back": ("jobs.runs:Runs.hand_back", "after"),
    "striking_off": ("catalogue.workers:leave", "after"),
    "calling": ("webhooks.delivering:call", "before"),
    "called": ("webhooks.delivering:call", "after"),
    "telling": ("outbox:tell", "after"),
    "staged": ("pipeline.storing:_publish_unless_known", "before"),
    "published": ("pipeline.storing:_enter", "before"),
    "stored": ("jobs.board:Jobs.submit", "before"),
    "given": ("jobs.board:Jobs.queue", "before"),
    "queued": ("jobs.board:Jobs.queue", "after"),
    "engine_claimed": ("dbos._sys_db:SystemDatabase.start_queued_workflows", "claimed"),
    "engine_ending": ("dbos._sys_db:SystemDatabase.update_workflow_outcome", "before"),
    "engine_ended": ("dbos._sys_db:SystemDatabase.update_workflow_outcome", "after"),
}


class Talkative(ScriptedTranscriber):
    """Hears three sentences in each window, so that a few windows make several passages."""

    def _hear(self, window: Window) -> WindowResult:
        [whole] = super()._hear(window).segments
        step = (window.end - window.start) / 3
        return WindowResult(tuple(_sentence(whole.text, window.start + i * step, step) for i in range(3)), "en")


def _sentence(text: str, start: float, seconds: float) -> Segment:
    words = (f"{text} " * 4).split()
    step = seconds / len(words)
    timed = tuple(Word(start + i * step, start + (i + 1) * step, word, 0.9) for i, word in enumerate(words))
    return Segment(start, start + seconds, " ".join(words), timed, confidence=0.9)


def register() -> None:
    """Make the engine of these tests known in this process."""
    cast(Any, TRANSCRIBERS.builtin)[SPEC] = FACTORY


@dataclass(frozen=True)
class Plan:
    """What a process is to do: work on the archive at `place`, or `submit` files to it. `die_at`: a worker's event or
    one of POINTS, and for the how-manieth time."""

    place: str
    environment: dict[str, str]
    submit: tuple[str, ...] = ()
    concurrency: int = 1
    name: str = ""
    die_at: tuple[str, int] | None = None
    milliseconds: float = 0.0  # that the engine takes for a window
    heard: str = ""  # a file that gets a line for each window that the engine hears
    most: str = ""  # a file that says how many windows all may hear by now, until the worker is told to stop
    told: str = ""  # a file that gets a line for each event
    deadly: tuple[str, ...] = ()  # names of windows that kill who hears them
    jumps: int | None = None  # the seed of a wall clock that jumps
    until_done: bool = True
    drops: int = 0  # runs that the engine takes and does not begin
    most_deaths: int = care.MOST_DEATHS


def processes() -> Any:
    """The server of worker processes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def start(plan: Plan) -> Any:
    """A process that does what is planned."""
    process = processes().Process(target=carry_out, args=(plan,))
    process.start()
    return process


def kill(process: Any) -> None:
    process.kill()
    process.join()


def ended(process: Any, seconds: float = 120.0) -> int:
    """How a process ended, waited for: its exit code, or minus the signal."""
    process.join(seconds)
    if process.is_alive():
        os.kill(process.pid, signal.SIGUSR1)  # it tells where it hangs
        process.join(1)
        kill(process)
        raise AssertionError("a worker did not come to its end")
    return int(process.exitcode)


# In the child


def carry_out(plan: Plan) -> None:
    """The main function of a process."""
    import faulthandler

    faulthandler.register(signal.SIGUSR1, all_threads=True)
    os.environ.update(plan.environment)
    register()
    postgresql.CONNECT_TIMEOUT_SECONDS = PATIENT_SECONDS
    care.MOST_DEATHS = plan.most_deaths
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    if plan.jumps is not None:
        _let_the_clock_jump(random.Random(plan.jumps))
    if plan.drops:
        _drop(plan.drops)
    ScriptedTranscriber.before = _hearing(plan)  # type: ignore[assignment]
    on_event = _dying(plan, lambda event: _note(plan.told, f"{event.what} {event.words}"))
    with AudioStorageSystem(plan.place, transcriber=SPEC) as storage:
        for path in plan.submit:
            job = storage.submit(path, metadata={"name": Path(path).name})
            _note(plan.told, f"acknowledged {Path(path).name} {job.id}")
        if not plan.submit:
            worker = storage.worker(concurrency=plan.concurrency, name=plan.name, on_event=on_event)
            (worker.run_until_idle if plan.until_done else worker.run)(stop)


def _note(path: str, line: str) -> None:
    """Add a line to a file, in one piece whoever else does."""
    if path:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(descriptor, f"{os.getpid()} {time.monotonic():.3f} {line.strip()}\n".encode())
        os.close(descriptor)


def name_of(window: Window) -> str:
    """The same for the same sound."""
    return f"{window.start:.3f}-{zlib.crc32(window.samples.tobytes()):08x}"


def first_window(storage: AudioStorageSystem, audio_id: int) -> str:
    """What the first window of a recording is called."""
    window = next(speech_windows(processing.source_of(storage._archive, audio_id).blocks()))
    return name_of(Window(window.start, window.samples))


def _hearing(plan: Plan) -> Callable[[Window], None]:
    most, heard = Path(plan.most), Path(plan.heard)
    if plan.most:
        _wrap("jobs.worker:Worker._wait_for_hands", "before", lambda: most.unlink(missing_ok=True))

    def before(window: Window) -> None:
        name = name_of(window)
        _note(plan.heard, name)
        if name in plan.deadly:
            _die()
        while plan.most and len(heard.read_text().splitlines()) > _most(most):
            time.sleep(0.02)
        time.sleep(plan.milliseconds / 1000)

    return before


def _most(file: Path) -> float:
    with suppress(FileNotFoundError):
        return int(file.read_text() or 0)  # nothing stands there while it is written
    return math.inf


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _dying(plan: Plan, tell: Callable[[JobEvent], None]) -> Callable[[JobEvent], None]:
    """Arrange the death that is planned; what is told of events."""
    point, times = plan.die_at or ("", 0)
    countdown = itertools.count(1)

    def come() -> None:
        if next(countdown) == times:
            _die()

    if point in POINTS:
        _wrap(*POINTS[point], come)

    def on_event(event: JobEvent) -> None:
        tell(event)
        if event.what == point:
            come()

    return on_event


def _wrap(target: str, when: str, come: Callable[[], None]) -> None:
    module, _, path = target.partition(":")
    owner: Any = importlib.import_module(module if module.startswith("dbos") else _PACKAGE + module)
    *way, name = path.split(".")
    for step in way:
        owner = getattr(owner, step)
    whole = owner.__dict__[name]
    function = getattr(whole, "__func__", whole)

    def wrapped(*args: Any, **options: Any) -> Any:
        if when == "before":
            come()
        result = function(*args, **options)
        if when == "after" or (when == "claimed" and result[0]):
            come()
        return result

    setattr(owner, name, type(whole)(wrapped) if isinstance(whole, classmethod) else wrapped)


def _drop(times: int) -> None:
    """The engine's database fails right after a run was taken, so many times."""
    from dbos import _queue

    whole, countdown = _queue.execute_dequeued_workflow, itertools.count(1)

    def failing(*given: Any) -> Any:
        if next(countdown) <= times:
            raise ConnectionError
        return whole(*given)

    _queue.execute_dequeued_workflow = failing


def _let_the_clock_jump(draw: random.Random) -> None:
    """The wall clock is a day ahead or behind, which changes at any moment."""
    from audio_storage_system import clock

    class Jumping(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + timedelta(days=draw.choice((-1, 0, 1)))

    clock.datetime = Jumping  # type: ignore[misc]


# Recordings, and what became of them


@cache
def speech() -> np.ndarray[Any, Any]:
    """Three seconds of it."""
    path = Path(audio_storage_system.__file__).parent / "demo" / "voice_note.flac"
    return (20_000 * np.asarray(load_audio(path))[: int(SPEECH_SECONDS * RATE)]).astype("<i2")


def talk(path: Path, seed: int, windows: int) -> Path:
    """A WAV file of so many windows of speech, in a noise that no other seed makes."""
    draw = np.random.default_rng(seed)
    pause = np.zeros(int(PAUSE_SECONDS * RATE), "<i2")
    whole = np.concatenate([part for _ in range(windows) for part in (speech(), pause)])
    whole = whole + draw.integers(-20, 20, len(whole), dtype="<i2")
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes(whole.astype("<i2").tobytes())
    return path


def talks(folder: Path, sizes: Sequence[int]) -> list[Path]:
    """Recordings of so many windows each."""
    folder.mkdir(exist_ok=True)
    return [talk(folder / f"talk{seed}.wav", seed, windows) for seed, windows in enumerate(sizes)]


@dataclass
class Told:
    """All that an archive tells of one recording, its ids left out."""

    bytes: bytes
    versions: list[Any]
    segments: list[Any]
    windows: list[Any]
    passages: list[Any]
    spans: list[Any]  # of the embeddings, with their kinds
    vectors: dict[Any, Any] = field(compare=False)


def told(storage: AudioStorageSystem) -> dict[str, Told]:
    """What is stored, by the name of the file that it was."""
    return {recording.original_name: _told(storage, recording.id) for recording in storage.list_recordings()}


def _told(storage: AudioStorageSystem, audio_id: int) -> Told:
    versions = storage.transcripts(audio_id)
    with storage.open_audio(audio_id) as file:
        data = file.read()
    with storage._archive.database.read() as connection:

        def rows(table: Any, *names: str) -> list[Any]:
            mine = table.c.transcript_id.in_([said.id for said in versions])
            query = select(*(table.c[name] for name in names)).where(mine)
            return [tuple(row) for row in connection.execute(query.order_by(table.c.transcript_id, table.c.sequence))]

        spans = ("start_seconds", "end_seconds")
        made = tables.embeddings.c
        vectors = {
            (row.embedding_type, row.start_seconds, row.end_seconds): np.frombuffer(row.embedding_data, "<f4")
            for row in connection.execute(select(*made).where(made.audio_file_id == audio_id))
        }
        found = connection.execute(
            select(made.embedding_type, made.start_seconds, made.end_seconds, made.passage_id.is_not(None))
            .where(made.audio_file_id == audio_id)
            .order_by(made.embedding_type, made.start_seconds, made.end_seconds)
        )
        return Told(
            bytes=data,
            versions=[(said.outcome, said.active, said.transcription, said.engine, said.language) for said in versions],
            segments=rows(tables.segments, "sequence", *spans, "text", "confidence", "words"),
            windows=rows(tables.transcription_windows, "sequence", *spans),
            passages=rows(tables.passages, "sequence", *spans, "text"),
            spans=[tuple(row) for row in found],
            vectors=vectors,
        )


def check(place: str | Path, expected: dict[str, Told], names: Sequence[str] | None = None) -> None:
    """Everything is as if nothing had ever happened, and nothing is left over. `names`: of what was acknowledged."""
    wanted = {name: expected[name] for name in (expected if names is None else names)}
    with AudioStorageSystem(place, create=False) as storage:
        _check_nothing_is_left(storage)
        found = told(storage)
        assert {name: found.get(name) for name in wanted} == wanted
        assert set(found) <= set(expected)
        for name, one in wanted.items():
            assert all(np.allclose(one.vectors[key], found[name].vectors[key], atol=1e-5) for key in one.vectors)
        hits = storage.search_similar_audio('"is spoken"', mode="keyword", limit=100)
        assert {hit.original_name for hit in hits} >= set(wanted)
        assert all(hit.similarity == hit.similarity for hit in hits)  # each has its vector


def _check_nothing_is_left(storage: AudioStorageSystem) -> None:
    unfinished = [job for job in storage.jobs.find(limit=None) if job.state is not JobState.DONE]
    assert (unfinished, storage.jobs.workers()) == ([], [])
    runs = storage.jobs.runs
    assert sum(runs.waiting().values()) == 0
    archive = storage._archive
    keys = {recording.file_path for recording in storage.list_recordings()}
    assert set(archive.blobs.keys("audio_files")) == keys
    assert [path.name for path in (archive.home / ".staging").glob("*") if path.suffix != ".lock"] == []
    assert not archive.spool.exists() or list(archive.spool.iterdir()) == []


def heard_again(path: Path) -> int:
    """How many windows were heard more than once, each time counted."""
    names = [line.split()[2] for line in path.read_text().splitlines()] if path.exists() else []
    return len(names) - len(set(names))


def command(heard: str, most: str, *arguments: str) -> None:
    """The program with the engine of these tests."""
    from audio_storage_system.cli import main

    register()
    ScriptedTranscriber.before = _hearing(Plan("", {}, heard=heard, most=most))  # type: ignore[assignment]
    sys.argv = ["audio-storage", *arguments]
    main()


if __name__ == "__main__":
    sys.modules["working"] = sys.modules["__main__"]
    command(*sys.argv[1:])


def work(storage: AudioStorageSystem, on_event: Callable[[JobEvent], None] = lambda event: None) -> None:
    """A worker here that does one thing at a time, until nothing is left to do."""
    storage.worker(concurrency=1, on_event=on_event).run_until_idle(threading.Event())


def hear(act: Callable[[Window], None] | None) -> None:
    """Have this done before the engine for tests hears a window."""
    ScriptedTranscriber.before = act  # type: ignore[assignment]


def fill(path: Path) -> None:
    """Take all the room that is left."""
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


@contextmanager
def disk(folder: Path, size: str) -> Iterator[None]:
    """A small disk of its own for this folder; skipped where nobody may have one."""
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip("no small disk can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
