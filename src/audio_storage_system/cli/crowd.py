"""The same work on many things at once, with progress, until it is done or someone presses Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

from audio_storage_system.cli.output import say

Item = TypeVar("Item")
Result = TypeVar("Result")
MAX_JOBS = 8


def jobs_for(wanted: int, items: int) -> int:
    """How many to work on at once: as wanted, or (0) one per core that this process may use, at most eight.

    Threads do: recognisers run outside Python's lock, in native code or in processes of their own.
    """
    if not wanted:
        affinity = getattr(os, "sched_getaffinity", None)
        wanted = min(len(affinity(0)) if affinity else os.cpu_count() or 1, MAX_JOBS)
    return max(1, min(wanted, items))


class Enough(Exception):
    """What `on_result` raises when going on with the other items makes no sense."""


class Stopping:
    """Ctrl-C as a flag. `check` raises `KeyboardInterrupt` in whatever thread calls it: what a worker has committed
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

    Raises `KeyboardInterrupt` after Ctrl-C, once the workers have stopped; a second Ctrl-C ends the process at once,
    which loses nothing that was said to be done.
    """
    with ThreadPoolExecutor(jobs, thread_name_prefix="worker") as pool:
        futures = {pool.submit(_unless(stopping, work), item): item for item in items}
        try:
            for future in as_completed(futures):
                on_result(futures[future], future.result())
        except BaseException as error:
            stopping.request()
            if isinstance(error, KeyboardInterrupt):
                _wait_patiently()
            pool.shutdown(wait=True, cancel_futures=True)
            if not isinstance(error, Enough):
                raise


def _unless(stopping: Stopping, work: Callable[[Item], Result]) -> Callable[[Item], Result]:
    def guarded(item: Item) -> Result:
        stopping.check()
        return work(item)

    return guarded


def _wait_patiently() -> None:
    say("Stopping after what is in hand; press Ctrl-C again to stop at once.")

    def end(number: int, frame: object) -> None:
        sys.stderr.flush()
        os._exit(130)

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, end)
