"""How far a long command is, on stderr: a bar for people, a line per file for everything else."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from audio_storage_system.cli.human import clock, shortened
from audio_storage_system.cli.output import say

NAME_WIDTH = 32
RECENT = 200  # files by which the pace is told
EVERY_SECONDS = 30.0  # between two lines about the whole, where there is no terminal
# Seconds between two lines where stderr is no terminal.
QUIET_SECONDS = 10.0


class Shown:
    """A bar on the terminal for as long as the block runs; `_bar` is `None` where stderr is none."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._bar: Any = make() if sys.stderr.isatty() else None

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()


class Progress(Shown):
    """Progress over files of known sizes. Safe to tell from several threads."""

    def __init__(self, files: int, weight: float) -> None:
        super().__init__(_bar)
        self._files = files
        self._pace = Pace(weight)
        self._task: Any = self._bar.add_task("", total=max(weight, 1), count=self._count("")) if self._bar else None

    def _count(self, remarks: str) -> str:
        return ", ".join(part for part in (f"{self._pace.done:,}/{self._files:,} files", remarks) if part)

    def working(self, name: str, seconds: float, total: float) -> None:
        """`seconds` of this file's sound, of `total`, are transcribed."""
        if self._bar:
            text = f"{shortened(name, NAME_WIDTH)} {clock(seconds)} of {clock(total)}"
            self._bar.update(self._task, description=text)

    def done(self, name: str, outcome: str, weight: float, remarks: str = "") -> None:
        """A file is finished; `weight` is its share of the whole. `remarks`: what to know of all of them so far."""
        self._pace.note(weight, time.monotonic())
        if self._bar:
            count = f"{self._count(remarks)}, {self._pace}"
            self._bar.update(self._task, advance=weight, count=count, description=shortened(name, NAME_WIDTH))
            return
        say(f"[{self._pace.done}/{self._files}] {name}: {outcome}")
        if self._pace.is_due(time.monotonic()):
            say(f"{self._count(remarks)}, {self._pace}, about {clock(self._pace.seconds_left)} left")


class Pace:
    """How fast files are finished, over the last of them: those that are stored already go much faster than others."""

    def __init__(self, weight: float) -> None:
        self.done = 0
        self._left = weight
        self._recent: deque[tuple[float, float]] = deque([(time.monotonic(), 0.0)], maxlen=RECENT)
        self._told = time.monotonic()

    def note(self, weight: float, now: float) -> None:
        """A file is finished."""
        self.done += 1
        self._left -= weight
        self._recent.append((now, weight))

    def is_due(self, now: float) -> bool:
        """Whether it is time for a line about the whole."""
        if now - self._told < EVERY_SECONDS:
            return False
        self._told = now
        return True

    @property
    def _elapsed(self) -> float:
        return max(self._recent[-1][0] - self._recent[0][0], 1e-6)

    @property
    def seconds_left(self) -> float:
        """As long as the rest takes at this pace."""
        lately = sum(weight for _, weight in self._recent) - self._recent[0][1]
        return max(self._left, 0.0) * self._elapsed / lately if lately else 0.0

    def __str__(self) -> str:
        each = (len(self._recent) - 1) / self._elapsed
        return f"{each:,.0f}/s" if each >= 9.95 else f"{each:.1f}/s" if each >= 1 else f"{each * 60:.1f}/min"


class Counting(Shown):
    """Progress over many things of one kind in stages, with rate and time left."""

    def __init__(self, noun: str) -> None:
        super().__init__(_counting_bar)
        self._noun = noun
        self._stage = ""
        self._first = 0
        self._began = self._said = time.monotonic()
        self._task: Any = self._bar.add_task("", total=None, text="") if self._bar else None

    def tell(self, stage: str, done: int, total: int) -> None:
        """In this stage, `done` of `total` are there."""
        if stage != self._stage:
            self._stage, self._first, self._began = stage, done, time.monotonic()
        text = self._text(done, total)
        if self._bar:
            self._bar.update(self._task, total=total or None, completed=done, text=text)
        elif time.monotonic() - self._said >= QUIET_SECONDS:
            self._said = time.monotonic()
            say(text)

    def _text(self, done: int, total: int) -> str:
        text = f"{self._stage}: {done:,} of {total:,} {self._noun}"
        rate = (done - self._first) / max(time.monotonic() - self._began, 1e-3)
        return f"{text}, {rate:,.0f}/s, {clock((total - done) / rate)} left" if rate and done < total else text


def _counting_bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bars

    text = TextColumn("{task.fields[text]}", markup=False)
    return Bars(BarColumn(), text, console=Console(stderr=True), transient=True)


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    return Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[count]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
