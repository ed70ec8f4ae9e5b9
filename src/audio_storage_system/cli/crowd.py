"""The same work on many things at once, with progress, until it is done or someone stops it: Ctrl-C or SIGTERM."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Any, TypeVar

from audio_storage_system.cli.output import say
from audio_storage_system.machine import usable_cores

Item = TypeVar("Item")
Result = TypeVar("Result")
MAX_JOBS = 8
INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM  # as a shell counts them


def jobs_for(wanted: int, items: int) -> int:
    """How many to work on at once: as wanted, or (0) one per core that this process may use, at most eight.

    Threads do: recognisers run outside Python's lock, in native code or in processes of their own.
    """
    if not wanted:
        wanted = min(usable_cores(), MAX_JOBS)
    return max(1, min(wanted, items))


class Enough(Exception):
    """What `on_result` raises when going on with the other items makes no sense."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends work in the way that Ctrl-C does."""


def exit_code_of(stop: KeyboardInterrupt) -> int:
    """The exit code of a command that was stopped: 130 by Ctrl-C, 143 by SIGTERM."""
    return TERMINATED if isinstance(stop, Terminated) else INTERRUPTED


class Stopping:
    """A stop as a flag. `check` raises `KeyboardInterrupt` in whatever thread calls it: what a worker has committed
    stays, and the rest is taken up by the next run."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def __bool__(self) -> bool:
        return self._event.is_set()

    def request(self) -> None:
        """Ask every worker to stop at its next `check`."""
        self._event.set()

    def check(self) -> None:
        """Stop here if that was asked for."""
        if self:
            raise KeyboardInterrupt


def work_through(
    items: Sequence[Item],
    work: Callable[[Item], Result],
    *,
    jobs: int,
    stopping: Stopping,
    on_result: Callable[[Item, Result], None],
) -> None:
    """Call `work` for each item, `jobs` at a time, and `on_result` in this thread as each is done, until that raises
    `Enough`.

    Raises `KeyboardInterrupt` after Ctrl-C and `Terminated` after SIGTERM, once the workers have stopped; a second
    signal ends the process at once, which loses nothing that was said to be done.
    """
    with hearing() as heard, ThreadPoolExecutor(jobs, thread_name_prefix="worker") as pool:
        try:
            futures = {pool.submit(_unless(stopping, work), item): item for item in items}
            for future in as_completed(futures):
                heard.check()
                on_result(futures[future], future.result())
            heard.check()
        except BaseException as error:
            stopping.request()
            if isinstance(error, KeyboardInterrupt):
                _wait_patiently(error)
            pool.shutdown(wait=True, cancel_futures=True)
            if not isinstance(error, Enough):
                raise


def _unless(stopping: Stopping, work: Callable[[Item], Result]) -> Callable[[Item], Result]:
    def guarded(item: Item) -> Result:
        stopping.check()
        return work(item)

    return guarded


class Heard:
    """Which signal to stop has come, if any. It is raised where the main thread is then, as `KeyboardInterrupt` or
    `Terminated`. That may be in something that swallows it, such as a callback of a weak reference: `check` raises it
    again."""

    def __init__(self) -> None:
        self._stop: type[KeyboardInterrupt] | None = None

    def note(self, number: int, frame: object) -> None:
        """As a handler of signals."""
        _end_at_the_next_signal()
        self._stop = Terminated if number == signal.SIGTERM else KeyboardInterrupt
        raise self._stop

    @property
    def any(self) -> bool:
        """Whether one has come."""
        return self._stop is not None

    def check(self) -> None:
        """Stop here if one has."""
        if self._stop is not None:
            raise self._stop


@contextmanager
def hearing() -> Iterator[Heard]:
    """Ctrl-C and SIGTERM are raised while the block runs, unless this process is to ignore them. The next one ends it
    at once, also after the block, while the archive is being closed. Only the main thread can be told of signals."""
    heard = Heard()
    if threading.current_thread() is not threading.main_thread():
        yield heard
        return
    ours = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
    before: dict[signal.Signals, Any] = {number: signal.signal(number, heard.note) for number in ours}
    try:
        yield heard
    finally:
        for number, handler in () if heard.any else before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def _wait_patiently(stop: KeyboardInterrupt) -> None:
    if threading.current_thread() is threading.main_thread():
        _end_at_the_next_signal()
    again = "another signal stops" if isinstance(stop, Terminated) else "press Ctrl-C again to stop"
    say(f"Stopping after what is in hand; {again} at once.")


def _end_at_the_next_signal() -> None:
    def end(number: int, frame: object) -> None:
        os._exit(128 + number)

    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGTERM, end)
