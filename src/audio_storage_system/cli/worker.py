"""`worker`: a process that does the jobs in the background."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audio_storage_system.cli import options
from audio_storage_system.cli.human import count
from audio_storage_system.cli.output import Output, say
from audio_storage_system.cli.session import opened

if TYPE_CHECKING:
    from audio_storage_system.jobs import JobEvent


def worker(
    concurrency: Annotated[
        int,
        typer.Option(
            "--concurrency",
            "-c",
            min=0,
            metavar="N",
            help="Recordings transcribed at once; 0: one per core, or one per graphics card where there is one.",
        ),
    ] = 0,
    queues: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="Which queues to take jobs from, separated by commas: transcribe, embed, remote (what asks services "
            "over the network) and upkeep. Default: all.",
        ),
    ] = "",
    name: Annotated[str, typer.Option(metavar="NAME", help="What to call this worker in listings.")] = "",
    until_done: Annotated[bool, typer.Option("--until-done", help="End when every job has ended.")] = False,
    while_input: Annotated[
        bool, typer.Option("--while-input", hidden=True, help="End when the standard input does: with who started it.")
    ] = False,
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """Do jobs in the background, until Ctrl-C or SIGTERM. Start as many workers as you like, on one machine or several.

    A worker that is told to stop finishes the window in hand and gives the rest back. The jobs of one that dies are
    taken over by others within half a minute, and go on after the last window that was kept.
    """
    out, told = Output(as_json), _Told()
    with opened(archive) as storage, _stopping() as stop:
        chosen = [part.strip() for part in queues.split(",") if part.strip()]
        if while_input:
            threading.Thread(target=_end_with_input, args=(stop,), daemon=True).start()
        made = storage.worker(concurrency=concurrency, queues=chosen, name=name, on_event=told)
        say(f"Working; {_waiting(storage.jobs.counts())}. Ctrl-C stops after the window in hand.")
        (made.run_until_idle if until_done else made.run)(stop)
        counts = storage.jobs.counts()
    out.result(
        {"done": told.done, "failed": told.failed, "counts": counts},
        f"{count(told.done, 'job')} done, {told.failed} failed by this worker; {_waiting(counts)}",
    )


def _end_with_input(stop: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    stop.set()


class _Told:
    """Tells what happens, a line each, and counts. Called from several threads."""

    def __init__(self) -> None:
        self.done = self.failed = 0
        self._lock = threading.Lock()
        self._waiting = False

    def __call__(self, event: JobEvent) -> None:
        with self._lock:
            self.done += event.what == "done"
            self.failed += event.what == "failed"
            repeated, self._waiting = self._waiting and event.what == "waiting", event.what == "waiting"
            if not repeated and (words := _in_words(event)):
                say(words)


def _in_words(event: JobEvent) -> str:
    job = event.job
    about = f"Job {job.id}" + ("" if job.audio_id is None else f", recording {job.audio_id}") if job else ""
    return {
        "began": f"{about}: {job.step}" if job else "",
        "done": f"{about}: done",
        "failed": f"{about}: failed: {event.words}",
        "again": f"{about}: {event.words}",
        "took_over": event.words,
        "waiting": f"Waiting: {event.words}",
    }.get(event.what, "")


def _waiting(counts: dict[str, int]) -> str:
    return f"{count(counts['unfinished'], 'job')} to do"


@contextmanager
def _stopping() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set."""
    stop = threading.Event()

    def request(number: int, frame: Any) -> None:
        if stop.is_set():
            os._exit(128 + number)  # what was kept stays, and others see that this worker is gone
        stop.set()  # first: the next signal may come while this is being said
        say("Stopping after what is in hand; once more to stop at once.")

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
