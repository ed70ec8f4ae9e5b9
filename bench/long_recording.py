"""The memory that a very long recording takes, from the file to its vectors.

    python bench/long_recording.py --folder FOLDER [--hours 10] [--engine scripted]

The recording is written as it comes: flite's voices, and silences of 1 to 20 s between them. It is added by a process
of its own, whose memory is watched, and beside it that of its children. Decoding, voice activity, storing, passages and
vectors of all three kinds are real; only the recogniser is `audio_storage_system.testing.scripted`, which answers at
once ("second N is spoken"), so that this ends in minutes. `--engine pocketsphinx` takes a real one, at its own pace.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from audio_storage_system import AudioStorageSystem
from measuring import Memory, hear_what_is_scripted, machine, spoken, verdict, write_wav

BYTES_PER_SECOND = 32_000
SPEECHES = 12
LIMIT_MB = 700


def talk(folder: Path, hours: float) -> Iterator[bytes]:
    """`hours` of speech and silence."""
    speeches, draw = [spoken(number, folder) for number in range(SPEECHES)], random.Random(3)
    left = int(hours * 3600 * BYTES_PER_SECOND)
    while left > 0:
        for piece in (draw.choice(speeches), bytes(draw.randrange(1, 20) * BYTES_PER_SECOND)):
            yield piece[:left]
            left = max(0, left - len(piece))


def most_of_its_own() -> float:
    """MB of memory this process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def add(path: Path, archive: Path, engine: str) -> None:
    """Add the recording in this process, and tell what that took."""
    hear_what_is_scripted()
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("bench-data"))
    parser.add_argument("--hours", type=float, default=10)
    parser.add_argument("--engine", default="scripted")
    parser.add_argument("--add", type=Path, help=argparse.SUPPRESS)  # the child process of this script
    options = parser.parse_args()
    folder = options.folder / "long_recording"
    if options.add:
        return add(options.add, folder / "archive", options.engine)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    path = folder / "long.wav"
    write_wav(path, talk(folder, options.hours))
    command = [
        sys.executable,
        __file__,
        "--folder",
        str(options.folder),
        "--engine",
        options.engine,
        "--add",
        str(path),
    ]
    done = subprocess.run([*command, "--add", str(path)], check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    print(f"{machine(folder)}\n{options.hours:g} h, {path.stat().st_size / 1e6:.0f} MB, heard by {options.engine}")
    print(f"  {found['seconds']:.0f} s, {found['duration'] / found['seconds']:.0f} x real time")
    print(f"  {found['segments']} segments, {found['embeddings']} embeddings")
    print(f"  memory before {found['before_mb']:.0f} MB, most of its own {found['own_mb']:.0f} MB,")
    print(f"  most of its children {found['children_mb']:.0f} MB, most together {found['both_mb']:.0f} MB")
    verdict("peak memory, children included", max(found["own_mb"], found["both_mb"]), LIMIT_MB, unit="MB")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
