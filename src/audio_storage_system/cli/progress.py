"""How far a long command is, on stderr: a bar for people, a line per file for everything else."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from audio_storage_system.cli.human import clock, shortened
from audio_storage_system.cli.output import say

NAME_WIDTH = 32


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
        self._done = 0
        self._task: Any = self._bar.add_task("", total=max(weight, 1), count=self._count) if self._bar else None

    @property
    def _count(self) -> str:
        return f"{self._done}/{self._files} files"

    def working(self, name: str, seconds: float, total: float) -> None:
        """`seconds` of this file's sound, of `total`, are transcribed."""
        if self._bar:
            text = f"{shortened(name, NAME_WIDTH)} {clock(seconds)} of {clock(total)}"
            self._bar.update(self._task, description=text)

    def done(self, name: str, outcome: str, weight: float) -> None:
        """A file is finished; `weight` is its share of the whole."""
        self._done += 1
        if self._bar:
            self._bar.update(self._task, advance=weight, count=self._count, description=shortened(name, NAME_WIDTH))
        else:
            say(f"[{self._done}/{self._files}] {name}: {outcome}")


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
