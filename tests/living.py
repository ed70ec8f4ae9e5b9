"""Sound for live sessions, and what a session told."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import audio_storage_system
from audio_storage_system import AudioStorageSystem, load_audio
from audio_storage_system.live import Event, Final, LiveSession

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
