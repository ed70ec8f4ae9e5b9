"""Sound for live sessions, and what a session told."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np

import audio_storage_system
import working
from audio_storage_system import AudioStorageSystem, load_audio
from audio_storage_system.live import Event, Final, LiveSession
from audio_storage_system.testing.scripted import FACTORY, SPEC
from audio_storage_system.transcribers import TRANSCRIBERS

RATE = 16_000
BLOCK = RATE // 10
Sound = np.ndarray[Any, np.dtype[np.int16]]


@cache
def speech(seconds: float = 3.0) -> Sound:
    """So much of somebody talking."""
    path = Path(audio_storage_system.__file__).parent / "demo" / "voice_note.flac"
    return (20_000 * np.asarray(load_audio(path))[: int(seconds * RATE)]).astype("<i2")


def pause(seconds: float = 1.0) -> Sound:
    """So much in which nobody does, in a quiet room."""
    return np.random.default_rng(7).integers(-20, 20, int(seconds * RATE), dtype="<i2")


@cache
def sentences(count: int) -> Sound:
    """Pieces of speech of two seconds, each with a pause after it, no two alike."""
    draw = np.random.default_rng(count)
    parts = [part for _ in range(count) for part in (speech(2.0), pause())]
    whole = np.concatenate(parts)
    return (whole + draw.integers(-9, 9, len(whole))).astype("<i2")


def blocks(sound: Sound, size: int = BLOCK) -> Iterator[bytes]:
    """The sound as it comes from a device."""
    for begin in range(0, len(sound), size):
        yield sound[begin : begin + size].tobytes()


def begin(storage: AudioStorageSystem, **options: Any) -> LiveSession:
    """A session with the engine for tests."""
    return storage.live(transcriber="scripted", **options)


def speak(session: LiveSession, sound: Sound) -> None:
    """All of it, as fast as the disk takes it."""
    for block in blocks(sound):
        session.write(block)


def finals(session: LiveSession, count: int, seconds: float = 20.0) -> list[Final]:
    """The next so many final pieces."""
    found: list[Final] = []
    for event in session.events(seconds):
        if isinstance(event, Final):
            found.append(event)
            if len(found) == count:
                return found
    raise AssertionError(f"{len(found)} final pieces, not {count}")


def stored(storage: AudioStorageSystem, audio_id: int) -> Sound:
    """The samples of a recording."""
    with storage.open_audio(audio_id) as file:
        data = file.read()
    return np.frombuffer(data[data.index(b"data") + 8 :], "<i2")


def kinds(events: list[Event]) -> list[str]:
    """Of what kinds they are, without what comes at any time."""
    return [event.type for event in events if event.type not in ("partial", "lag")]


# Processes that record and die


@dataclass(frozen=True)
class Plan:
    """What a process is to do: record `sound` into the archive at `place`, or go on with the session `resume`.
    `die_at`: one of POINTS, and for the how-manieth time; `told`: a file that gets a line for each thing that is
    promised; `pace`: how much faster than it was spoken."""

    place: str
    told: str
    count: int = 3
    resume: str = ""
    die_at: tuple[str, int] = ("", 0)
    pace: float = 30.0
    resume_seconds: float = 0.0
    finish: bool = True


# Where it can die: a function, and whether that is before or after it has run.
POINTS = {
    "spooled": ("audio.spool:SpoolWriter.__init__", "after"),
    "entering": ("catalogue.recordings:add", "after"),
    "entered": ("archive.underway:enter", "after"),
    "written": ("live.capture:Capture.write", "after"),
    "entering_piece": ("audio.spool:SpoolWriter._enter", "before"),
    "begun": ("live.version:LiveVersion.open", "after"),
    "committing": ("catalogue.passages:add", "after"),
    "kept": ("live.version:LiveVersion.keep", "after"),
    "embedded": ("live.version:LiveVersion.embed", "after"),
    "closed": ("audio.spool:SpoolWriter.close", "after"),
    "staged": ("blobs.local:LocalBlobStore.stage", "after"),
    "published": ("blobs.local:LocalBlobStore.publish", "after"),
    "completing": ("catalogue.recordings:complete", "after"),
    "completed": ("archive.underway:complete", "after"),
    "submitting": ("jobs.board:Jobs.submit", "before"),
    "resuming": ("audio.spool:SpoolWriter._end_for", "after"),
}


def start(plan: Plan) -> Any:
    """A process that does what is planned."""
    process = working.processes().Process(target=carry_out, args=(plan,))
    process.start()
    return process


def carry_out(plan: Plan) -> None:
    """The main function of a process."""
    cast(Any, TRANSCRIBERS.builtin)[SPEC] = FACTORY
    point, times = plan.die_at
    if point:
        countdown = itertools.count(1)
        working._wrap(*POINTS[point], lambda: working._die() if next(countdown) == times else None)

    def tell(event: Event) -> None:
        if isinstance(event, Final) and event.segments:
            working._note(plan.told, f"final {event.item}")

    sound = sentences(plan.count)
    with AudioStorageSystem(plan.place, transcriber=SPEC) as storage:
        options: dict[str, Any] = {"resume": plan.resume or None, "resume_seconds": plan.resume_seconds}
        session = storage.live(transcriber=SPEC, metadata={"room": "blue"}, on_event=tell, **options)
        working._note(plan.told, f"session {session.id} {session.audio_id}")
        begun = time.monotonic()
        for number, block in enumerate(blocks(sound[round(session.seconds * RATE) :])):
            session.write(block)
            working._note(plan.told, f"written {session.seconds:.4f}")
            time.sleep(max(0.0, begun + number * 0.1 / plan.pace - time.monotonic()))
        if plan.finish:
            report = session.finish()
            working._note(plan.told, f"report {report.missing_seconds:.2f}")
        else:
            time.sleep(60)


@dataclass
class Told:
    """What was promised until a process died."""

    session: str = ""
    audio_id: int | None = None
    seconds: float = 0.0
    finals: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, path: Path) -> Told:
        told = cls()
        for line in path.read_text().splitlines() if path.exists() else ():
            match line.split()[2:]:
                case ["session", session, audio_id]:
                    told.session, told.audio_id = session, int(audio_id)
                case ["written", seconds]:
                    told.seconds = float(seconds)
                case ["final", item]:
                    told.finals.add(int(item))
        return told
