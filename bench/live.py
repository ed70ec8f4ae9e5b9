"""Live sessions: how soon words are there, how many can be captured at once, and whether memory stays flat.

    python bench/live.py --folder FOLDER [--parts latency,capture,soak] [--seconds 60] [--sessions 3] [--hours 1]

- latency: so many `--sessions` at once, fed in real time with the demo's speech and pauses; for each word that stayed,
  how long after it had been said it was first in a partial text; for each piece, how long after its last word it was
  final and found by search. The pause that ends a piece, 0.5 s, is part of that
- capture: `--captures` sessions at once in real time; what is missing of their sound (nothing may be), how far the
  slowest write took, and the same sound written and synced as plain files by as many threads: the floor
- soak: one session, `--hours` of sound at 20 times its speed, as recognition lags; memory of this process and its
  recognisers, every tenth of it
"""

from __future__ import annotations

import argparse
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import audio_storage_system
from audio_storage_system import AudioStorageSystem, load_audio
from audio_storage_system.live import Event, Final, Partial
from measuring import children_of, hear_what_is_scripted, machine, resident, verdict

RATE, BLOCK_SECONDS = 16_000, 0.1
BLOCK = round(RATE * BLOCK_SECONDS)
PARTIAL_SECONDS, FINAL_SECONDS, GROWTH = 0.7, 1.5, 1.1
FASTER = 20


def talk(seconds: float, seed: int = 0) -> bytes:
    """Speech with pauses, so much of it, in a noise of its own."""
    demo = Path(audio_storage_system.__file__).parent / "demo" / "voice_note.flac"
    said = np.concatenate([np.asarray(load_audio(demo)), np.zeros(2 * RATE, np.float32)])
    whole = np.resize(np.roll(20_000 * said, seed * RATE), round(seconds * RATE))
    noise = np.random.default_rng(seed).integers(-20, 20, len(whole))
    return (whole + noise).astype("<i2").tobytes()


def blocks(sound: bytes) -> list[bytes]:
    return [sound[begin : begin + 2 * BLOCK] for begin in range(0, len(sound), 2 * BLOCK)]


def feed(write: Any, sound: bytes, pace: float = 1.0) -> float:
    """Write it at so many times its speed; the seconds that the slowest write took."""
    begun, slowest = time.monotonic(), 0.0
    for number, block in enumerate(blocks(sound)):
        time.sleep(max(0.0, begun + number * BLOCK_SECONDS / pace - time.monotonic()))
        since = time.monotonic()
        write(block)
        slowest = max(slowest, time.monotonic() - since)
    return slowest


# How soon


def partial_delays(told: Sequence[tuple[float, Event]], begun: float) -> list[float]:
    """For each word that stayed, how long after it was said it was first shown where it stayed."""
    delays = []
    for final in (event for _, event in told if isinstance(event, Final) and event.segments):
        shown = [(at - begun, event.text.split()) for at, event in told if _is_of(event, final)]
        words = [word for segment in final.segments for word in segment.words]
        for number, word in enumerate(words):
            first = next((at for at, text in shown if text[number : number + 1] == [word.text]), None)
            if first is not None:
                delays.append(first - word.end)
    return delays


def _is_of(event: Event, final: Final) -> bool:
    return isinstance(event, Partial) and event.item == final.item


def final_delays(told: Sequence[tuple[float, Event]], begun: float) -> list[float]:
    """How long after its last word each piece was final and could be found."""
    finals = [(at, event) for at, event in told if isinstance(event, Final) and event.searchable]
    return [at - begun - event.segments[-1].words[-1].end for at, event in finals]


def latency(folder: Path, seconds: float, sessions: int) -> None:
    with AudioStorageSystem(folder / "latency") as storage:
        heard: list[tuple[list[tuple[float, Event]], float]] = []

        def speak(seed: int) -> None:
            told: list[tuple[float, Event]] = []
            session = storage.live(on_event=lambda event: told.append((time.monotonic(), event)))
            time.sleep(3.0)  # its recogniser is ready
            zero = time.monotonic() - BLOCK_SECONDS  # a block comes when its last sample was said
            feed(session.write, talk(seconds, seed))
            session.finish()
            heard.append((told, zero))

        _together(speak, sessions)
    partials = [delay for told, begun in heard for delay in partial_delays(told, begun)]
    finals = [delay for told, begun in heard for delay in final_delays(told, begun)]
    print(
        f"\n## {sessions} sessions at once, {seconds:.0f} s each\n\n| | number | p50, s | p95, s |\n|---|---|---|---|"
    )
    for name, delays in (("word to partial text", partials), ("last word to final and searchable", finals)):
        print(f"| {name} | {len(delays)} | {np.median(delays):.2f} | {np.percentile(delays, 95):.2f} |")
    verdict("partial text after the words, p95", float(np.percentile(partials, 95)), PARTIAL_SECONDS, unit=" s")
    verdict("final and searchable, p95", float(np.percentile(finals, 95)), FINAL_SECONDS, unit=" s")


def _together(work: Any, count: int) -> None:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# How many


def capture(folder: Path, seconds: float, sessions: int) -> None:
    missing, slowest, floor = [], [], []
    with AudioStorageSystem(folder / "capture") as storage:

        def speak(seed: int) -> None:
            sound = talk(seconds, seed)
            session = storage.live()
            slowest.append(feed(session.write, sound))
            report = session.finish(wait=0.0)
            with storage.open_audio(session.audio_id) as file:
                whole = file.read().endswith(sound)
            missing.append(report.missing_seconds if whole else seconds)

        _together(speak, sessions)

    def plain(seed: int) -> None:
        with (folder / f"plain{seed}").open("wb", buffering=0) as file:

            def write(block: bytes) -> None:
                file.write(block)
                os.fsync(file.fileno())

            floor.append(feed(write, talk(seconds, seed)))

    _together(plain, sessions)
    print(f"\n## {sessions} sessions captured at once, {seconds:.0f} s each\n")
    print(f"slowest write {1000 * max(slowest):.0f} ms; plain files, each block synced: {1000 * max(floor):.0f} ms")
    verdict("seconds missing of all of them", sum(missing), 0.0, unit=" s")


# How long


def soak(folder: Path, hours: float) -> None:
    engine = hear_what_is_scripted()
    with AudioStorageSystem(folder / "soak") as storage:
        session = storage.live(transcriber=engine)
        part = talk(360 * hours)
        sizes = []
        print(f"\n## {hours:g} h of sound at {FASTER} times its speed\n")
        print("| hours | memory, MB | behind, s |\n|---|---|---|")
        for tenth in range(10):
            feed(session.write, part, pace=FASTER)
            sizes.append(resident(os.getpid()) + sum(resident(child) for child in children_of(os.getpid())))
            behind = session._recognition._tail.behind_seconds
            print(f"| {(tenth + 1) * hours / 10:.2f} | {sizes[-1]:.0f} | {behind:.1f} |", flush=True)
        report = session.finish()
    print(f"\n{report}")
    verdict("memory at the end against after the first tenth", sizes[-1] / sizes[0], GROWTH)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--parts", default="latency,capture,soak")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--sessions", type=int, default=3)
    parser.add_argument("--captures", type=int, default=20)
    parser.add_argument("--hours", type=float, default=1.0)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    print(machine(given.folder))
    parts = given.parts.split(",")
    if "latency" in parts:
        latency(given.folder, given.seconds, given.sessions)
    if "capture" in parts:
        capture(given.folder, given.seconds, given.captures)
    if "soak" in parts:
        soak(given.folder, given.hours)


if __name__ == "__main__":
    main()
