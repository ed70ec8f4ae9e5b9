"""What happens to jobs, as it happens: server-sent events."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Header, Request, Response, Security
from fastapi.responses import StreamingResponse
from fastapi.security import HTTPAuthorizationCredentials

from audio_storage_system import AudioStorageSystem
from audio_storage_system.errors import AudioStorageSystemError
from audio_storage_system.records import Job as JobRecord
from audio_storage_system.server import problems
from audio_storage_system.server.api.jobs import Job, JobId
from audio_storage_system.server.gate import Caller, bearer, caller
from audio_storage_system.server.news import News, Stream
from audio_storage_system.server.sending import EVENTS, GROWING

router = APIRouter(prefix="/jobs", tags=["jobs"])

HEARTBEAT_SECONDS, HEARTBEAT = 15.0, ": still here\n\n"
RETRY_MILLISECONDS = 1_000
# Who comes back is told again what happened so long before: other machines' clocks may be late.
OVERLAP = timedelta(seconds=60)
MOST_MISSED = 1_000
LAST_ID = re.compile(r"([0-9]{13})(-end)?", re.ASCII)
STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": f"Events as `{EVENTS}`, each named after the state of a job, which is its data.",
        "content": {
            EVENTS: {
                "schema": {"type": "string"},
                "example": 'id: 1764355987123\nevent: running\ndata: {"job_id": 12, "state": "running", …}\n\n',
            }
        },
    }
}
ENDED: dict[int | str, dict[str, Any]] = {204: {"description": "The job had ended when you last listened."}}

LastId = Annotated[
    str | None, Header(alias="Last-Event-ID", max_length=64, description="The id of the last event that arrived.")
]
Credentials = Annotated[HTTPAuthorizationCredentials | None, Security(bearer)]


@router.get(
    "/events",
    summary="Follow all jobs",
    response_class=StreamingResponse,
    responses={**problems.documented(), **STREAM},
)
async def follow_all(
    request: Request, storage: Caller, credentials: Credentials, last_event_id: LastId = None
) -> Response:
    """First every job that has not ended (at most 1,000) and what happened since `Last-Event-ID`; then each change,
    within about half a second. Comments keep the connection alive. A stream that is read slowly skips states."""
    last = LAST_ID.fullmatch(last_event_id or "")
    present = partial(_present, storage, _moment(last[1]) if last else None)
    return _stream(request, _Listener(request, storage, credentials), present)


@router.get(
    "/{job_id}/events",
    summary="Follow a job",
    response_class=StreamingResponse,
    responses={**problems.documented(404), **STREAM, **ENDED},
)
async def follow(
    request: Request, storage: Caller, credentials: Credentials, job_id: JobId, last_event_id: LastId = None
) -> Response:
    """Where it is now, then each change, within about half a second. The stream ends when the job does; asked again
    with the id of that last event, the answer is 204, which tells browsers to stop."""
    job = await to_thread.run_sync(storage.jobs.get, job_id)
    last = LAST_ID.fullmatch(last_event_id or "")
    if last and last[2] and job.state.ended:
        return Response(status_code=204)
    return _stream(request, _Listener(request, storage, credentials, job_id), lambda: [storage.jobs.get(job_id)])


def _moment(milliseconds: str) -> datetime:
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC) - OVERLAP


def _present(storage: AudioStorageSystem, since: datetime | None) -> list[JobRecord]:
    """What a stream begins with: what has not ended, and what happened since."""
    jobs = {job.id: job for job in storage.jobs.changed()[0]}
    if since is not None:
        jobs |= {job.id: job for job in storage.jobs.find(since=since, limit=MOST_MISSED)}
    return [jobs[id_] for id_ in sorted(jobs)]


@dataclass(frozen=True, slots=True)
class _Listener:
    """Who listens, to all jobs or to one."""

    request: Request
    storage: AudioStorageSystem
    credentials: HTTPAuthorizationCredentials | None
    job_id: int | None = None

    @property
    def who(self) -> str | None:
        return self.credentials.credentials if self.credentials else None

    def may_stay(self) -> bool:
        """Whether they are still let in, and the job is still there for them."""
        try:
            caller(self.request, self.credentials)
            if self.job_id is not None:
                self.storage.jobs.get(self.job_id)
        except AudioStorageSystemError:
            return False
        return True


def _stream(request: Request, listener: _Listener, present: Callable[[], list[JobRecord]]) -> Response:
    news: News = request.app.state.news
    news.check(listener.who)

    async def events() -> AsyncIterator[str]:
        with news.listening(listener.who, listener.storage, listener.job_id) as stream:
            yield f"retry: {RETRY_MILLISECONDS}\n\n"
            await stream.watched.wait()  # before it is asked what there is: what happens in between would be lost
            stream.offer(await to_thread.run_sync(present))
            async for event in _events(news, stream, listener):
                yield event

    return StreamingResponse(events(), media_type=EVENTS, headers=GROWING)


async def _events(news: News, stream: Stream, listener: _Listener) -> AsyncIterator[str]:
    """The events until there can be no more: the job has ended, nobody may see it any more, or the server stops."""
    until = time.monotonic() + HEARTBEAT_SECONDS
    while not (news.stopping or stream.overrun):
        for job in stream.take():
            ends = listener.job_id is not None and job.state.ended
            yield _event(job, ends=ends)
            if ends:
                return
        await stream.wait(max(0.0, until - time.monotonic()))
        if time.monotonic() >= until:
            if not await to_thread.run_sync(listener.may_stay):
                return
            yield HEARTBEAT
            until = time.monotonic() + HEARTBEAT_SECONDS


def _event(job: JobRecord, *, ends: bool) -> str:
    id_ = f"{time.time_ns() // 1_000_000}{'-end' if ends else ''}"
    return f"id: {id_}\nevent: {job.state.value}\ndata: {Job.of(job).model_dump_json()}\n\n"
