"""The memory that a very long recording takes, from the file to its vectors.

    python bench/long_recording.py --folder FOLDER [--hours 10] [--engine scripted] [--kills 2] [--silent]

The recording is written as it comes: flite's voices, and silences of 1 to 20 s between them. It is added by a process
of its own, whose memory is watched, and beside it that of its children. Decoding, voice activity, storing, passages and
vectors of all three kinds are real; only the recogniser is `audio_storage_system.testing.scripted`, which answers at
once ("second N is spoken"), so that this ends in minutes. `--engine pocketsphinx` takes a real one, at its own pace.

`--kills` adds the same file to a second archive by a process that is ended with SIGKILL so many times, each at a random
moment of what the undisturbed one took, and then once to the end: which windows the recogniser heard more than once,
and whether the segments are the same, byte for byte. `--silent`: digital silence instead, with one speech at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from audio_storage_system import AudioStorageSystem
from audio_storage_system.testing.scripted import ScriptedTranscriber
from measuring import Memory, hear_what_is_scripted, machine, spoken, verdict, write_wav

BYTES_PER_SECOND = 32_000
SPEECHES = 12
BATCH = ScriptedTranscriber.capabilities.batch_size
LIMIT_MB = 700


def talk(folder: Path, hours: float) -> Iterator[bytes]:
    """`hours` of speech and silence."""
    speeches, draw = [spoken(number, folder) for number in range(SPEECHES)], random.Random(3)
    left = int(hours * 3600 * BYTES_PER_SECOND)
    while left > 0:
        for piece in (draw.choice(speeches), bytes(draw.randrange(1, 20) * BYTES_PER_SECOND)):
            yield piece[:left]
            left = max(0, left - len(piece))


def silence(folder: Path, hours: float) -> Iterator[bytes]:
    """`hours` of digital silence, and a speech."""
    for _ in range(int(hours * 60)):
        yield bytes(60 * BYTES_PER_SECOND)
    yield spoken(0, folder)


def most_of_its_own() -> float:
    """MB of memory this process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def add(path: Path, archive: Path, engine: str) -> None:
    """Add the recording in this process, and tell what that took. What is heard stands in a file beside the archive."""
    hear_what_is_scripted()
    heard = os.open(archive.with_suffix(".heard"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    ScriptedTranscriber.before = lambda window: os.write(heard, b"%.3f\n" % window.start)  # type: ignore[assignment]
    started = time.perf_counter()
    with AudioStorageSystem(archive) as storage:
        before = most_of_its_own()
        with Memory() as memory:
            audio_id = storage.add(path, whisper_model=engine)
        said = storage.transcripts(audio_id)[0]
        report = {
            "seconds": time.perf_counter() - started,
            "duration": storage.get_recording(audio_id).duration,
            "segments": len(storage.segments(said.id)),
            "embeddings": sum(space["embeddings"] for space in storage.stats()["spaces"]),
            "before_mb": before,
            "own_mb": most_of_its_own(),
            "children_mb": memory.children,
            "both_mb": memory.both,
        }
    print(json.dumps(report))


def resumed(command: list[str], archive: Path, undisturbed: Path, seconds: float, kills: int) -> None:
    """Add it again with interruptions, and compare."""
    draw = random.Random(7)
    command = [*command, "--archive", archive.name]
    for _ in range(kills):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(draw.uniform(0.1, 0.9) * seconds)
        process.kill()
        process.wait()
        print(f"  killed; {len(heard(archive))} windows heard so far")
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    again, all_of_them = heard(archive), heard(undisturbed)
    print(f"  went on to the end in {time.perf_counter() - started:.0f} s; {len(all_of_them)} windows in all")
    verdict("windows heard again, at most a batch for each kill", len(again) - len(set(again)), BATCH * kills, unit="")
    same = set(again) == set(all_of_them) and segments(archive) == segments(undisturbed)
    print(f"  segments and their order {'are the same' if same else 'DIFFER'}")


def heard(archive: Path) -> list[str]:
    """Where each window began that the recogniser heard, again and again included."""
    return archive.with_suffix(".heard").read_text().split()


def segments(archive: Path) -> list[tuple[object, ...]]:
    """Every segment's row but for its ids."""
    query = (
        "SELECT sequence, start_seconds, end_seconds, text, confidence, words FROM segments ORDER BY transcript_id, id"
    )
    with contextlib.closing(sqlite3.connect(archive / "audio_storage.db")) as connection:
        return connection.execute(query).fetchall()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("bench-data"))
    parser.add_argument("--hours", type=float, default=10)
    parser.add_argument("--engine", default="scripted")
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--silent", action="store_true")
    parser.add_argument("--add", type=Path, help=argparse.SUPPRESS)  # the child process of this script
    parser.add_argument("--archive", default="archive", help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder = options.folder / "long_recording"
    if options.add:
        return add(options.add, folder / options.archive, options.engine)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    path = folder / "long.wav"
    write_wav(path, (silence if options.silent else talk)(folder, options.hours))
    command = [sys.executable, __file__, "--folder", str(options.folder), "--engine", options.engine]
    command += ["--add", str(path)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    print(f"{machine(folder)}\n{options.hours:g} h, {path.stat().st_size / 1e6:.0f} MB, heard by {options.engine}")
    print(f"  {found['seconds']:.0f} s, {found['duration'] / found['seconds']:.0f} x real time")
    print(f"  {found['segments']} segments, {found['embeddings']} embeddings")
    print(f"  memory before {found['before_mb']:.0f} MB, most of its own {found['own_mb']:.0f} MB,")
    print(f"  most of its children {found['children_mb']:.0f} MB, most together {found['both_mb']:.0f} MB")
    verdict("peak memory, children included", max(found["own_mb"], found["both_mb"]), LIMIT_MB, unit="MB")
    if options.kills:
        resumed(command, folder / "again", folder / "archive", found["seconds"], options.kills)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
