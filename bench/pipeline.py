"""The whole pipeline against the bare recogniser on the same sound in the same run, and two cores against one.

    python bench/pipeline.py --folder FOLDER [--files 16] [--pieces 1]

- bare: pocketsphinx in its worker process, given the speech windows of each file, which were cut beforehand; what it
  hears is dropped. With two threads it has two workers: what two cores can give on this machine at this moment.
- ours: `AudioStorageSystem.add`: probing, hashing, storing, decoding, finding the speech windows, the same recogniser
  in the same kind of worker, a commit per window, passages, and their vectors of all three kinds.

With one thread they take turns file by file; it uses one core, since the pipeline waits while its worker listens. Each
has heard two other files before, so that loading models counts for nobody. A file is about half a minute of one of
flite's voices, or several such pieces. What other programs used meanwhile is told: it was not to be had.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from audio_storage_system import AudioStorageSystem
from audio_storage_system.audio import speech_windows, stream
from audio_storage_system.transcribers import TranscribeOptions, Window, open_transcriber
from measuring import Took, in_turns, machine, spoken, totals, verdict, write_wav

ENGINE = "pocketsphinx"
BYTES_PER_SECOND = 32_000
CORES = 2


def make_files(folder: Path, count: int, pieces: int) -> list[Path]:
    paths = [folder / f"{number:03}.wav" for number in range(count)]
    for number, path in enumerate(paths):
        write_wav(path, (spoken(number * pieces + piece, folder) for piece in range(pieces)))
    return paths


class Bare:
    """The recogniser alone."""

    def __init__(self, paths: list[Path]) -> None:
        self.engine = open_transcriber(ENGINE)
        self.windows = [windows_of(path) for path in paths]

    def hear(self, number: int) -> None:
        for window in self.windows[number]:
            self.engine.transcribe([window], TranscribeOptions())


class Ours:
    """The pipeline, with an archive of its own."""

    def __init__(self, archive: Path, paths: list[Path]) -> None:
        self.storage = AudioStorageSystem(archive)
        self.paths = paths

    def hear(self, number: int) -> None:
        self.storage.add(self.paths[number], whisper_model=ENGINE)


def windows_of(path: Path) -> list[Window]:
    with stream(path) as blocks:
        return [Window(item.start, item.samples) for item in speech_windows(blocks)]


def compare(folder: Path, paths: list[Path]) -> dict[str, Took]:
    """What each took for all files but the first two, which warm them up."""
    bare, one, two = Bare(paths), Ours(folder / "one", paths), Ours(folder / "two", paths)
    numbers = range(2, len(paths))
    with bare.engine, one.storage, two.storage, ThreadPoolExecutor(2) as pool:
        for party in (bare, one, two):
            list(pool.map(party.hear, range(2)))
        alone: dict[str, Callable[[int], object]] = {
            "bare, 1 thread": lambda turn: bare.hear(numbers[turn]),
            "ours, 1 thread": lambda turn: one.hear(numbers[turn]),
        }
        together: dict[str, Callable[[int], object]] = {
            "bare, 2 threads": lambda turn: list(pool.map(bare.hear, numbers)),
            "ours, 2 threads": lambda turn: list(pool.map(two.hear, numbers)),
        }
        return totals(in_turns(alone, len(numbers)) | in_turns(together, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("bench-data"))
    parser.add_argument("--files", type=int, default=16)
    parser.add_argument("--pieces", type=int, default=1, help="half minutes in each file")
    options = parser.parse_args()
    folder = options.folder / "pipeline"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    paths = make_files(folder, 2 + options.files, options.pieces)
    sound = sum(path.stat().st_size for path in paths[2:]) / BYTES_PER_SECOND
    took = compare(folder, paths)
    print(f"{machine(folder)}\n{options.files} files, {sound:.0f} s of sound")
    for name, (wall, cpu, others) in took.items():
        print(
            f"  {name:16} {wall:7.2f} s, {wall / sound:.3f} x real time, {cpu:7.2f} s of CPU (others: {others:.2f} s)"
        )
    bare, ours, bare_two, ours_two = took.values()
    verdict("wall time of ours / bare, 1 thread", ours.wall / bare.wall, 1.05)
    print(f"CPU time of ours / bare, 1 thread: {ours.cpu / bare.cpu:.3f} x")
    verdict("ours, speed with 2 threads / 1 thread", ours.wall / ours_two.wall, 1.8, at_least=True)
    print(f"bare, speed with 2 threads / 1 thread: {bare.wall / bare_two.wall:.3f} x")
    for name, (wall, cpu, others) in (("bare", bare_two), ("ours", ours_two)):
        print(
            f"{name}, 2 threads: {cpu / (CORES * wall - others):.0%} of the two cores' time that others left was used"
        )
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
