"""What the benchmarks share: the machine they ran on, work that takes turns, memory of processes, speech to hear."""

from __future__ import annotations

import os
import platform
import sqlite3
import statistics
import subprocess
import threading
import time
import wave
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

from audio_storage_system.testing import scripted
from audio_storage_system.transcribers import TRANSCRIBERS

MIB = 1 << 20
VOICES = ("slt", "rms", "awb", "kal16")
WORDS = (
    "The harbour master counted seven boats before the morning fog had lifted from the water.",
    "We should move the budget review to Thursday, because the figures from the second quarter are late.",
    "Please call the garden centre and ask whether the apple trees have arrived.",
    "Nobody expected the bridge to open a year early, and yet the first train crossed it yesterday.",
    "She wrote the recipe on the back of a ticket, with twice as much butter as the book asks for.",
)


def machine(folder: Path) -> str:
    """The machine's shape, in one line."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    system = subprocess.run(["df", "--output=fstype", str(folder)], capture_output=True, text=True).stdout.split()[-1]
    return (
        f"{len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB memory, Python {platform.python_version()}, "
        f"SQLite {sqlite3.sqlite_version}, {system}, load {os.getloadavg()[0]:.1f} at the end"
    )


class Took(NamedTuple):
    """Seconds by the clock, seconds of CPU (child processes included), and what other programs used meanwhile."""

    wall: float
    cpu: float
    others: float


def timed(work: Callable[[], Any]) -> Took:
    """What one call takes."""
    wall, cpu, machine = time.perf_counter(), cpu_seconds(), machine_seconds()
    work()
    cpu = cpu_seconds() - cpu
    return Took(time.perf_counter() - wall, cpu, max(0.0, machine_seconds() - machine - cpu))


def cpu_seconds() -> float:
    """CPU time so far of this process, of the children it has waited for, and of those that run."""
    ticks = 0
    for child in children_of(os.getpid()):
        fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return sum(os.times()[:4]) + ticks / os.sysconf("SC_CLK_TCK")


def machine_seconds() -> float:
    """CPU time so far of everything on this machine: all but idling and waiting for the disk."""
    user, nice, system, _idle, _waiting, *rest = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")


def in_turns(contenders: Mapping[str, Callable[[int], Any]], turns: int) -> dict[str, list[Took]]:
    """What each contender took in each turn. They alternate, so that a slow minute of the machine hits all, and each
    begins with nothing of another's left to be written."""
    took: dict[str, list[Took]] = {name: [] for name in contenders}
    for turn in range(turns):
        for name, work in contenders.items():
            os.sync()
            took[name].append(timed(lambda work=work, turn=turn: work(turn)))  # type: ignore[misc]
    return took


def totals(took: Mapping[str, Iterable[Took]]) -> dict[str, Took]:
    """Each contender's turns together."""
    return {name: Took(*map(sum, zip(*turns, strict=True))) for name, turns in took.items()}


def medians(took: Mapping[str, Iterable[Took]]) -> dict[str, Took]:
    """Each contender's middle turn, figure by figure: a slow minute of the machine decides nothing."""
    return {name: Took(*map(statistics.median, zip(*turns, strict=True))) for name, turns in took.items()}


def verdict(what: str, value: float, target: float, *, at_least: bool = False, unit: str = "x") -> None:
    """One line: a number, its target and whether it is reached."""
    reached = value >= target if at_least else value <= target
    sign = "at least" if at_least else "at most"
    print(f"{what}: {value:.3f} {unit} (target {sign} {target:g} {unit}: {'reached' if reached else 'MISSED'})")


def write_wav(path: Path, blocks: Iterable[bytes], rate: int = 16_000) -> None:
    """A mono 16-bit WAV file, written as its blocks come."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        for block in blocks:
            file.writeframesraw(block)


def spoken(number: int, folder: Path) -> bytes:
    """About half a minute of speech as 16 kHz samples of 16 bits, by one of flite's voices; each number differs."""
    path, first = folder / f"spoken-{number}.wav", number % len(WORDS)
    text = " ".join([f"This is recording number {number}.", *WORDS[first:], *WORDS[:first]])
    subprocess.run(["flite", "-voice", VOICES[number % len(VOICES)], "-t", text, "-o", str(path)], check=True)
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)
        samples: bytes = file.readframes(file.getnframes())
    path.unlink()
    return samples


def hear_what_is_scripted() -> str:
    """Make the recogniser that answers at once known; its spec."""
    registered: Any = TRANSCRIBERS.builtin
    registered[scripted.SPEC] = scripted.FACTORY
    return scripted.SPEC


class Memory:
    """Watches the resident memory of the processes below this one: MB, the most at any moment; `both` with its own."""

    def __init__(self, every: float = 0.05) -> None:
        self.children = self.both = 0.0
        self._every, self._stop = every, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(self._every):
            children = sum(map(resident, children_of(os.getpid())))
            self.children = max(self.children, children)
            self.both = max(self.both, children + resident(os.getpid()))


def resident(process: int) -> float:
    """MB of memory a process has now; nothing for one that has ended."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except (FileNotFoundError, ProcessLookupError):
        return 0.0


def children_of(process: int) -> list[int]:
    """The processes below a process, theirs included."""
    found: list[int] = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            direct = [int(child) for child in task.read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
        found += [one for child in direct for one in (child, *children_of(child))]
    return found
