"""What happens to jobs, told to many who listen: one look at the catalogue serves all streams of one caller.

A stream keeps the latest state of each job until it is sent, so that one which is read slowly skips states, and one
that is not read keeps no more than that (`protocol` cuts its connection).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager, suppress

from anyio import to_thread

from audio_storage_system import AudioStorageSystem
from audio_storage_system.errors import AudioStorageSystemError, TooManyRequests
from audio_storage_system.jobs import Moment
from audio_storage_system.records import Job

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
# Looking takes no larger share of the time, where there are tens of thousands of jobs: news come more slowly then.
SHARE_OF_TIME, SLOWEST_POLL_SECONDS = 0.3, 5.0
STREAMS_OF_ONE, STREAMS = 16, 400
# News that nobody fetches; more of them end the stream, and who listened asks again.
MOST_KEPT = 5_000


class Stream:
    """News of jobs for one listener, of one job or of all. watched: set once every change from then on is told."""

    def __init__(self, watched: asyncio.Event, job_id: int | None = None) -> None:
        self.watched = watched
        self._job_id = job_id
        self._told: dict[int, Job] = {}
        self._kept: dict[int, Job] = {}
        self._rang = asyncio.Event()

    @property
    def overrun(self) -> bool:
        """Whether there was more than is kept."""
        return len(self._kept) > MOST_KEPT

    def offer(self, jobs: Iterable[Job]) -> None:
        """Keep what is new for who listens."""
        for job in jobs:
            known = self._kept.get(job.id) or self._told.get(job.id)
            late = known is not None and known.updated_at > job.updated_at
            if self._job_id in (None, job.id) and known != job and not late and not self.overrun:
                self._kept[job.id] = job
        if self._kept:
            self._rang.set()

    def ring(self) -> None:
        """Have who waits look."""
        self._rang.set()

    async def wait(self, seconds: float) -> None:
        """Until there is something to look at, or so many seconds have passed."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._rang.wait(), seconds)

    def take(self) -> list[Job]:
        """What is new, by id."""
        self._rang.clear()
        news, self._kept = [self._kept[id_] for id_ in sorted(self._kept)], {}
        for job in news:
            self._told.pop(job.id, None)
            if not job.state.ended:
                self._told[job.id] = job
        return news


class _Watch:
    """Looks at the jobs that one caller may see, as long as somebody listens."""

    def __init__(self, storage: AudioStorageSystem) -> None:
        self.streams: set[Stream] = set()
        self.looked = asyncio.Event()
        self._storage = storage
        self._since: Moment | None = None
        self._task = asyncio.create_task(self._look())

    def stop(self) -> None:
        self._task.cancel()

    def ring(self) -> None:
        """Have all who wait look."""
        self.looked.set()
        for stream in self.streams:
            stream.ring()

    async def _look(self) -> None:
        while True:
            began = time.monotonic()
            try:
                jobs, self._since = await to_thread.run_sync(self._storage.jobs.changed, self._since)
            except AudioStorageSystemError as error:
                logger.warning("What happens to jobs cannot be seen: %s", error)
            else:
                self.looked.set()
                for stream in self.streams:
                    stream.offer(jobs)
            spared = (time.monotonic() - began) / SHARE_OF_TIME
            await asyncio.sleep(max(POLL_SECONDS, min(spared, SLOWEST_POLL_SECONDS)))


class News:
    """Every stream of this process. For its event loop only."""

    def __init__(self) -> None:
        self.stopping = False
        self._watches: dict[Hashable, _Watch] = {}

    def check(self, who: Hashable) -> None:
        """Raises `TooManyRequests` where one stream more would be too many, for who asks or altogether."""
        watch = self._watches.get(who)
        everyone = sum(len(watch.streams) for watch in self._watches.values())
        if everyone >= STREAMS or (watch and len(watch.streams) >= STREAMS_OF_ONE):
            raise TooManyRequests(seconds=5.0)

    @contextmanager
    def listening(self, who: Hashable, storage: AudioStorageSystem, job_id: int | None) -> Iterator[Stream]:
        """A stream of what `storage` shows of jobs from now on, of one job or of all. Raises as `check`."""
        self.check(who)
        watch = self._watches.get(who)
        if watch is None:
            watch = self._watches[who] = _Watch(storage)
        stream = Stream(watch.looked, job_id)
        watch.streams.add(stream)
        try:
            yield stream
        finally:
            watch.streams.discard(stream)
            if not watch.streams:
                del self._watches[who]
                watch.stop()

    def stop(self) -> None:
        """End every stream: the server is to stop."""
        self.stopping = True
        for watch in self._watches.values():
            watch.ring()
