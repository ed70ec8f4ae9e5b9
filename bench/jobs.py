"""Background jobs: what they cost beyond the synchronous calls, how they scale, and how soon others take over.

    python bench/jobs.py --folder FOLDER [--data DATA] [--parts overhead,workers,queue,takeover,fairness]

- overhead: many tiny recordings and a recogniser that answers at once; `storage.add` against `submit` and a worker in
  this process, in turns of 20 recordings; the difference is what a job costs
- workers: pocketsphinx on real speech (`--data`; else flite's voices) by one worker process, by two, and by one that
  does two recordings at once; they are warm, which the first recordings are for
- queue: so many runs waiting (`--runs`), on SQLite and PostgreSQL; how fast they are queued, and how fast a worker
  claims and ends them at the start and at the end. In between the others are taken out of the queue, their rows stay
- takeover: a worker process is killed, or stopped with SIGSTOP; the seconds until another says that it takes over
- fairness: one owner has `--many` jobs waiting, then 99 others bring one each; when are theirs done
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

import audio_storage_system
from audio_storage_system import AudioStorageSystem, load_audio
from audio_storage_system.catalogue import jobs
from audio_storage_system.jobs.engine import Engine
from audio_storage_system.jobs.runs import Run
from audio_storage_system.records import Priority
from measuring import Took, hear_what_is_scripted, in_turns, machine, medians, spoken, timed, verdict, write_wav

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # for a server of its own
from postgres_server import started

PER_TURN, STEPS = 20, 2
CLAIMS = 2_000
AT_ONCE = 4
WORKER = (sys.executable, "-m", "audio_storage_system.cli", "worker", "--concurrency")


# What a job costs


def tiny(folder: Path, count: int) -> list[Path]:
    """Recordings of a second of speech, no two equal."""
    demo = Path(audio_storage_system.__file__).parent / "demo" / "voice_note.flac"
    speech = (20_000 * np.asarray(load_audio(demo))[:16_000]).astype("<i2")
    draw = np.random.default_rng(1)
    paths = [folder / f"{number:05}.wav" for number in range(count)]
    for path in paths:
        write_wav(path, [(speech + draw.integers(-20, 20, len(speech), dtype="<i2")).astype("<i2").tobytes()])
    return paths


def overhead(folder: Path, turns: int) -> None:
    engine, paths = hear_what_is_scripted(), tiny(folder, PER_TURN * (turns + 1))
    with (
        AudioStorageSystem(folder / "sync", transcriber=engine) as plain,
        AudioStorageSystem(folder / "jobs", transcriber=engine) as queued,
        working(queued),
    ):

        def part(turn: int) -> list[Path]:
            return paths[turn * PER_TURN : (turn + 1) * PER_TURN]

        def add(turn: int) -> None:
            for path in part(turn):
                plain.add(path)

        def submit(turn: int) -> None:
            for path in part(turn):
                queued.submit(path)
            wait(queued)

        add(turns)  # what is loaded once
        submit(turns)
        took = medians(in_turns({"add": add, "submit and work": submit}, turns))
    report("ms per recording", took, 1000 / PER_TURN)
    for name, index in (("wall", 0), ("CPU", 1)):
        more = 1000 * (took["submit and work"][index] - took["add"][index]) / PER_TURN / STEPS
        verdict(f"cost of a job per recording and step, {name}", more, 20, unit="ms")


def wait(storage: AudioStorageSystem) -> None:
    """Until all have ended, looking more often than `jobs.wait`."""
    while storage.jobs.counts()["unfinished"]:
        time.sleep(0.03)


@contextmanager
def working(storage: AudioStorageSystem) -> Iterator[None]:
    """A worker in this process."""
    stop = threading.Event()
    thread = threading.Thread(target=storage.worker(concurrency=1).run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


# One worker against two


def speech(folder: Path, data: Path | None, copies: int) -> list[Path]:
    """Real speech, or flite's; each file is told apart by a little noise."""
    found = sorted((data / "speech").glob("*.flac")) if data else []
    paths = []
    for number in range(copies * (len(found) or 12)):
        path = folder / f"speech{number:03}.wav"
        if found:
            samples = np.asarray(load_audio(found[number % len(found)]))
            noise = np.random.default_rng(number).integers(-4, 4, len(samples))
            write_wav(path, [(30_000 * samples + noise).astype("<i2").tobytes()])
        else:
            write_wav(path, [spoken(number, folder)])
        paths.append(path)
    return paths


def workers(folder: Path, data: Path | None) -> None:
    paths = speech(folder, data, 2)
    teams = {"1 worker": (1,), "2 workers": (1, 1), "1 worker, 2 at once": (2,)}
    took = {
        name: [team(folder / f"team{number}", paths, at_once)] for number, (name, at_once) in enumerate(teams.items())
    }
    report(f"s for {len(paths) - 4} recordings", {name: turns[0] for name, turns in took.items()}, 1)
    alone = took["1 worker"][0].wall
    verdict("speed of 2 workers / 1", alone / took["2 workers"][0].wall, 1.8, at_least=True)
    print(f"speed of 1 worker with 2 at once / 1: {alone / took['1 worker, 2 at once'][0].wall:.3f} x")


def team(home: Path, paths: Sequence[Path], at_once: Sequence[int]) -> Took:
    """What the recordings after the first four took these workers."""
    with AudioStorageSystem(home, transcriber="pocketsphinx") as storage, processes(home, at_once):

        def work(part: Sequence[Path]) -> None:
            for path in part:
                storage.submit(path)
            wait(storage)

        work(paths[:4])
        return timed(lambda: work(paths[4:]))


@contextmanager
def processes(home: Path, at_once: Sequence[int]) -> Iterator[list[subprocess.Popen[str]]]:
    """Worker processes, told to stop at the end."""
    environment = {**os.environ, "AUDIO_STORAGE_TRANSCRIBER": "pocketsphinx"}
    running = [
        subprocess.Popen(
            [*WORKER, str(number), "--archive", str(home)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for number in at_once
    ]
    try:
        yield running
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.communicate()


# A long queue


def queue(folder: Path, runs: int) -> None:
    with AudioStorageSystem(folder / "sqlite") as storage:
        measure_queue("SQLite", storage, runs)
    with started() as server, AudioStorageSystem(server.url(), blobs=(folder / "blobs").as_uri()) as storage:
        measure_queue("PostgreSQL", storage, runs)


def measure_queue(name: str, storage: AudioStorageSystem, count: int) -> None:
    runs = storage.jobs.runs
    waiting = [Run(number, 1, "transcribe", 700_000_000 + number) for number in range(count)]
    took = timed(lambda: runs.enqueue(waiting))
    verdict(f"{name}, {count} runs queued", count / took.wall, 1000, at_least=True, unit="runs/s")
    with draining(storage) as times:
        reach(times, CLAIMS)
        first = rate(times[:CLAIMS])
    left = times[-1][1] + 1
    runs.cancel([run.id for run in waiting[left + CLAIMS : -CLAIMS]])
    with draining(storage) as times:
        reach(times, 2 * CLAIMS)
        last = rate(times[-CLAIMS:])
    print(f"{name}, claimed and ended, {AT_ONCE} at once: {first:.0f} runs/s at the start, {last:.0f} at the end")
    verdict(f"{name}, end / start", last / first, 0.8, at_least=True)


@contextmanager
def draining(storage: AudioStorageSystem) -> Iterator[list[tuple[float, int]]]:
    """A worker that does nothing with each run but note when it came, and which it was."""
    times: list[tuple[float, int]] = []

    def perform(job_id: int, number: int) -> str:
        times.append((time.monotonic(), job_id))
        return "done"

    storage.jobs.runs.make_queues({})
    engine = Engine(
        storage.jobs.runs, f"bench-{time.monotonic_ns()}", {"transcribe": AT_ONCE}, perform, lambda name: name
    )
    engine.start()
    try:
        yield times
    finally:
        engine.pause()
        time.sleep(0.5)  # those in hand
        engine.stop()


def reach(times: list[tuple[float, int]], count: int) -> None:
    while len(times) < count:
        time.sleep(0.01)


def rate(times: Sequence[tuple[float, int]]) -> float:
    return (len(times) - 1) / (times[-1][0] - times[0][0])


# Others take over


def takeover(folder: Path) -> None:
    for how in (signal.SIGKILL, signal.SIGSTOP):
        home, path = folder / how.name, folder / f"{how.name}.wav"
        write_wav(path, (spoken(number, folder) for number in range(12)))
        with AudioStorageSystem(home, transcriber="pocketsphinx") as storage:
            job = storage.submit(path)
            with processes(home, (1,)) as [first], processes(home, (1,)) as [second]:
                while not storage.jobs.get(job.id).seconds_done:  # it is at it
                    time.sleep(0.1)
                taker, other = holder(storage, job.id, first, second)
                taker.send_signal(how)
                began = time.monotonic()
                until_said(other, "gives no sign of life")
                verdict(f"taken over after {how.name}", time.monotonic() - began, 30, unit="s")
                taker.kill()


def holder(
    storage: AudioStorageSystem, job_id: int, *both: subprocess.Popen[str]
) -> tuple[subprocess.Popen[str], subprocess.Popen[str]]:
    """Who has the job in hand, and the other one."""
    name = storage.jobs.get(job_id).worker or ""
    mine = next(process for process in both if name.startswith(f"worker-{process.pid}@"))
    return mine, next(process for process in both if process is not mine)


def until_said(process: subprocess.Popen[str], words: str) -> None:
    assert process.stderr
    while words not in (line := process.stderr.readline()):
        assert line, "it ended"


# Fairness


def fairness(folder: Path, many: int) -> None:
    with AudioStorageSystem(folder / "fair") as storage:
        made = give(storage, "who has many", many)
        with draining(storage) as times:
            reach(times, 50)
            began = time.monotonic()
            took = timed(lambda: made.update({owner: give(storage, owner, 1)["last"] for owner in map(str, range(99))}))
            reach(times, 600)
        at = {job_id: (moment - began, place) for place, (moment, job_id) in enumerate(times)}
        singles = [at[job_id] for owner, job_id in made.items() if owner != "last"]
        print(f"99 owners gave a job each in {took.wall:.2f} s, while one had {many} waiting")
        print(f"  the last of the 99 was begun {max(singles)[0]:.2f} s after the first was given, as number")
        print(f"  {max(place for _, place in singles)} of all runs: the owner of many had {many} before them")


def give(storage: AudioStorageSystem, owner: str, count: int) -> dict[str, int]:
    """Jobs without a recording, as many rows as real ones; the last one's id."""
    with storage._archive.database.write() as connection:
        made = jobs.add(
            connection, "add", [None] * count, step="transcribe", options={}, priority=Priority.NORMAL, share=owner
        )
    storage.jobs.runs.enqueue([Run.of(job, "transcribe") for job in made])
    return {"last": made[-1].id}


def report(what: str, took: dict[str, Took], times: float) -> None:
    for name, (wall, cpu, others) in took.items():
        print(f"  {name:18} {times * wall:7.2f} {what}, CPU {times * cpu:7.2f} (others: {times * others:.2f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("bench-data"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--parts", default="overhead,workers,queue,takeover,fairness")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--many", type=int, default=10_000)
    options = parser.parse_args()
    parts: dict[str, Callable[[Path], None]] = {
        "overhead": lambda folder: overhead(folder, options.turns),
        "workers": lambda folder: workers(folder, options.data),
        "queue": lambda folder: queue(folder, options.runs),
        "takeover": takeover,
        "fairness": lambda folder: fairness(folder, options.many),
    }
    folder = options.folder / "jobs"
    for name in options.parts.split(","):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        print(f"{name}:", flush=True)
        parts[name](folder)
        print(machine(folder), flush=True)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
