"""`watch`: whatever comes into a folder goes into the archive."""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audio_storage_system.cli import options
from audio_storage_system.cli.add import How, add_one
from audio_storage_system.cli.crowd import (
    Enough,
    Heard,
    Stopping,
    Terminated,
    exit_code_of,
    hearing,
    jobs_for,
    work_through,
)
from audio_storage_system.cli.human import count
from audio_storage_system.cli.options import OnDuplicate
from audio_storage_system.cli.output import Output
from audio_storage_system.cli.paths import AUDIO_SUFFIXES, Candidate
from audio_storage_system.cli.report import Failure, in_words
from audio_storage_system.cli.session import opened
from audio_storage_system.cli.watching import Arrivals, Memory, Stamp, being_written, look
from audio_storage_system.errors import InvalidInput
from audio_storage_system.settings import locate, shown

if TYPE_CHECKING:
    from audio_storage_system import AudioStorageSystem

SHORTEST_PAUSE = 1.0  # seconds between two looks
REST = 20  # times as long as a look took we wait for the next: at most 5 % of a core
AT_ONCE = 500  # files between two looks
PATIENCE = 30.0  # seconds until the archive's storage is tried again


def watch(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder, with all that is below it.")],
    metadata: options.MetadataValues = None,
    whisper_model: options.Model = None,
    language: options.Language = None,
    recorded_at: options.RecordedAt = None,
    on_duplicate: options.WhenDuplicate = OnDuplicate.KEEP,
    no_transcribe: options.NoTranscribe = False,
    no_embeddings: options.NoEmbeddings = False,
    background: options.Background = False,
    priority: options.PriorityName = None,
    settle: Annotated[
        float,
        typer.Option(min=0, metavar="SECONDS", help="A file is taken when it has not changed for so long."),
    ] = 5.0,
    once: Annotated[
        bool, typer.Option("--once", help="Take what is there and has settled, then end instead of waiting for more.")
    ] = False,
    jobs: options.Jobs = 0,
    archive: options.ArchivePlace = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object per line on stdout as things happen.")
    ] = False,
) -> None:
    """Add every file that comes into a folder, as `add` would, until Ctrl-C or SIGTERM.

    Files still being written, hidden ones and unfinished downloads are left alone; what was moved or renamed is not
    stored again. A file that fails is told once, and tried again when it changes or at the next start.
    """
    how = How.asked(metadata, whisper_model, language, recorded_at, on_duplicate, no_transcribe, no_embeddings)
    how = how.in_background(background, priority)
    home = Path(os.path.realpath(locate(archive)[0]))
    folder = Path(os.path.abspath(folder))  # remembered paths mean the same wherever the next start happens
    _check_folder(folder, home)
    with opened(archive, create=True) as storage:
        place = f"{home} {shown(archive)}"
        memory = Memory.of(str(folder), place, storage.notes, transcribed=how.transcribed)
        known = memory.keep_only(storage.known_hashes())
        watching = _Watch(storage, how, str(folder), home, Arrivals(settle, known), memory, jobs, Told(Output(as_json)))
        with hearing() as heard:
            code = watching.once(settle, heard) if once else watching.forever(heard)
    raise typer.Exit(code)


def _check_folder(folder: Path, home: Path) -> None:
    if not folder.is_dir():
        raise InvalidInput(reason=f"There is no folder {folder}")
    place = Path(os.path.realpath(folder))
    if place == home or home in place.parents:
        raise InvalidInput(reason=f"{folder} belongs to the archive itself and cannot be watched")


@dataclass
class Told:
    """What a watch says: an event per line, as JSON or for people."""

    out: Output
    counts: Counter[str] = field(default_factory=Counter)
    once: set[tuple[str, str]] = field(default_factory=set)

    def event(self, event: str, words: str, **values: Any) -> None:
        """Something happened."""
        self.counts[event] += 1
        self.out.event({"event": event, **values}, words)

    def remark(self, event: str, path: str, words: str) -> None:
        """The same, but only once for a path until `forget`."""
        if (event, path) not in self.once:
            self.once.add((event, path))
            self.event(event, words, path=path, message=words)

    def forget(self, event: str, paths: set[str]) -> None:
        """Let a remark about others than these be made again."""
        self.once = {(name, path) for name, path in self.once if name != event or path in paths}


@dataclass
class _Watch:
    storage: AudioStorageSystem
    how: How
    folder: str
    home: Path
    arrivals: Arrivals
    memory: Memory
    jobs: int
    told: Told
    stopping: Stopping = field(default_factory=Stopping)
    exit_code: int | None = None  # set where going on makes no sense
    enduring: bool = False  # what may pass is waited for
    patience: float = 0.0

    def forever(self, heard: Heard) -> int:
        """Look, add what has settled, wait, until a signal; the exit code."""
        self.enduring = True
        self._begin()
        try:
            while self.exit_code is None:
                heard.check()
                took, due = self._look(AT_ONCE)
                self._add(due)
                if len(due) < AT_ONCE:
                    time.sleep(max(SHORTEST_PAUSE, REST * took, self.patience))
        except KeyboardInterrupt as stop:
            self.exit_code = 0 if isinstance(stop, Terminated) else 130
        return self._end()

    def once(self, settle: float, heard: Heard) -> int:
        """Add what is there and does not change for as long as that takes to know; the exit code."""
        self._begin()
        try:
            _, due = self._look()
            if not due:
                time.sleep(settle)
                _, due = self._look()
            heard.check()
            self._add(due)
        except KeyboardInterrupt as stop:
            self.exit_code = exit_code_of(stop)
        for path in self.arrivals.waiting if self.exit_code is None else ():
            self.told.remark("left", path, f"{path} is still being written, left alone")
        return self._end()

    def _begin(self) -> None:
        known = len(self.memory.entries)
        words = f"Watching {self.folder}" + (f", {count(known, 'file')} in it known from before" if known else "")
        self.told.event("watching", words, folder=self.folder, known=known)

    def _end(self) -> int:
        counts = {event: self.told.counts[event] for event in ("added", "known", "failed")}
        self.told.event("stopped", f"Stopped: {', '.join(f'{n} {event}' for event, n in counts.items())}", **counts)
        return self.exit_code if self.exit_code is not None else int(bool(counts["failed"]))

    def _look(self, limit: int | None = None) -> tuple[float, list[tuple[str, Stamp]]]:
        """How long the look took, and the first files that are due: settled, and open for writing nowhere."""
        begun = time.monotonic()
        seen = look(self.folder, self.home)
        for path, message in seen.problems:
            self.told.remark("unreadable", path, message)
        self.told.forget("unreadable", {path for path, _ in seen.problems})
        ready = self.arrivals.settled(seen.files, time.monotonic(), complete=not seen.problems)
        due = list(islice((item for item in ready if not self._is_open(item[0])), limit))
        return time.monotonic() - begun, due

    def _is_open(self, path: str) -> bool:
        if not being_written(path):
            return False
        self.told.remark("waiting", path, f"{path} is open for writing somewhere, waiting for that to end")
        return True

    def _add(self, due: list[tuple[str, Stamp]]) -> None:
        self.patience = 0.0
        if due:
            jobs = jobs_for(self.jobs, len(due))
            work_through(due, self._work, jobs=jobs, stopping=self.stopping, on_result=self._done)

    def _work(self, item: tuple[str, Stamp]) -> dict[str, Any] | Failure | None:
        path = Path(item[0])
        candidate = Candidate(path, path.suffix.lower() in AUDIO_SUFFIXES, self.folder)
        return add_one(self.storage, self.how, candidate, lambda seconds, total: self.stopping.check())

    def _done(self, item: tuple[str, Stamp], result: dict[str, Any] | Failure | None) -> None:
        path, stamp = item
        if isinstance(result, Failure) and result.fatal:
            self._hold(result)
            raise Enough
        if isinstance(result, Failure) and not os.path.lexists(path):
            return  # moved on meanwhile: it will be seen where it is now
        self.arrivals.note(path, stamp)
        if isinstance(result, Failure):
            self.told.event("failed", f"Failed: {path}: {result.message}", **result.as_dict())
            return
        self.memory.note(path, stamp, None if result is None else result["file_hash"])
        if result is not None:
            event = "known" if result["duplicate"] else "added"
            self.told.event(event, f"{result['audio_id']:>6}  {path}  {in_words(result)}", **result)

    def _hold(self, failure: Failure) -> None:
        """The archive itself refuses. Where that may pass, everything is tried again later."""
        if failure.retryable and self.enduring:
            self.patience = PATIENCE
            self.told.remark("holding", failure.code, f"{failure.message} Trying again every {PATIENCE:.0f} s.")
            self.stopping = Stopping()
            return
        self.exit_code = failure.fatal
        self.told.event("error", f"Error: {failure.message}", **failure.as_dict())
