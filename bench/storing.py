"""Storing WAV files of 1 MiB each, against doing less with the same files in the same run.

    python bench/storing.py --folder FOLDER [--files 1000]

- shell: `sha256sum` over all, `cp` of all into a folder, `sync` (an fsync) of each copy: three processes per turn, and
  the first file is safe when the last is copied
- shell by file: the same three per file, so that each is safe before the next begins
- python: per file, read + SHA-256 + write + fsync, and nothing else
- floor: the least that makes our promises: the same to a temporary name, a link to the key, an fsync of the folder (a
  name is not durable without), and one row committed in SQLite (WAL, synchronous=FULL)
- ours: `AudioStorageSystem.store_audio_file` file by file; also from two threads, as `audio-storage add` does

They take turns of 100 files each, and the middle turn is told. The files are in the page cache for all of them.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import sqlite3
import subprocess
import wave
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from audio_storage_system import AudioStorageSystem
from measuring import MIB, Took, in_turns, machine, medians, verdict

PER_TURN = 100
BLOCK = MIB // 4  # the fastest size here; ours is the same


def make_files(folder: Path, count: int) -> list[Path]:
    """WAV files of 1 MiB with random samples: no two are equal."""
    folder.mkdir(parents=True)
    paths = [folder / f"{number:05}.wav" for number in range(count)]
    for path in paths:
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, 16_000, 0, "NONE", ""))
            file.writeframes(os.urandom(MIB - 44))
    return paths


def shell(folder: Path, paths: list[Path]) -> None:
    names = [str(path) for path in paths]
    subprocess.run(["sha256sum", *names], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["cp", "-t", str(folder), *names], check=True)
    subprocess.run(["sync", *(str(folder / path.name) for path in paths)], check=True)


def shell_by_file(folder: Path, paths: list[Path]) -> None:
    script = (
        'target=$1; shift; for file; do sha256sum "$file"; cp -t "$target" "$file"; sync "$target/${file##*/}"; done'
    )
    names = map(str, paths)
    subprocess.run(["bash", "-c", script, "-", str(folder), *names], check=True, stdout=subprocess.DEVNULL)


def copy(path: Path, target: Path) -> str:
    """Read, hash, write, fsync."""
    digest = hashlib.sha256()
    with path.open("rb") as source, target.open("wb", buffering=0) as file:
        while block := source.read(BLOCK):
            digest.update(block)
            file.write(block)
        os.fsync(file.fileno())
    return digest.hexdigest()


def python(folder: Path, paths: list[Path]) -> None:
    for path in paths:
        copy(path, folder / path.name)


def floor(folder: Path, paths: list[Path]) -> None:
    connection = sqlite3.connect(folder / "catalogue.db", isolation_level=None)
    connection.executescript(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE IF NOT EXISTS f (hash UNIQUE, path)"
    )
    for path in paths:
        temporary = folder / "temporary"
        digest = copy(path, temporary)
        os.link(temporary, folder / path.name)
        descriptor = os.open(folder, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        temporary.unlink()
        connection.execute("INSERT INTO f VALUES (?, ?)", (digest, path.name))
    connection.close()


def store(storage: AudioStorageSystem, paths: list[Path], threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(storage.store_audio_file, paths))


def compare(folder: Path, paths: list[Path]) -> dict[str, Took]:
    """The middle turn of each."""
    turns = [paths[at : at + PER_TURN] for at in range(0, len(paths), PER_TURN)]
    places = {name: folder / name for name in ("shell", "shell by file", "python", "floor")}
    for place in places.values():
        place.mkdir()
    with AudioStorageSystem(folder / "one") as one, AudioStorageSystem(folder / "two") as two:
        contenders: dict[str, Callable[[int], None]] = {
            "shell": lambda turn: shell(places["shell"], turns[turn]),
            "shell by file": lambda turn: shell_by_file(places["shell by file"], turns[turn]),
            "python": lambda turn: python(places["python"], turns[turn]),
            "floor": lambda turn: floor(places["floor"], turns[turn]),
            "ours": lambda turn: store(one, turns[turn], threads=1),
            "ours, 2 threads": lambda turn: store(two, turns[turn], threads=2),
        }
        return medians(in_turns(contenders, len(turns)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("bench-data"))
    parser.add_argument("--files", type=int, default=1000)
    options = parser.parse_args()
    folder = options.folder / "storing"
    shutil.rmtree(folder, ignore_errors=True)
    paths = make_files(folder / "source", options.files)
    took = compare(folder, paths)
    print(f"{machine(folder)}\n{len(paths)} files of 1 MiB")
    for name, (wall, cpu, others) in took.items():
        wall, cpu, others = (1000 * seconds / min(PER_TURN, len(paths)) for seconds in (wall, cpu, others))
        print(f"  {name:16} {wall:6.2f} ms per file, of these {cpu:5.2f} of CPU (others: {others:.2f})")
    ours = took["ours"].wall
    verdict("speed of ours / shell", took["shell"].wall / ours, 0.7, at_least=True)
    for name in ("shell by file", "python", "floor"):
        print(f"speed of ours / {name}: {took[name].wall / ours:.3f} x")
    print(f"speed of ours with 2 threads / shell: {took['shell'].wall / took['ours, 2 threads'].wall:.3f} x")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
