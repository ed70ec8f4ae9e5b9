"""Transcribing what a client sent, in a thread; it stops when the client is gone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from threading import Event
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread
from starlette.requests import Request

from audio_storage_system import AudioStorageSystem
from audio_storage_system.clock import utc_now
from audio_storage_system.errors import AudioStorageSystemError
from audio_storage_system.records import Job, Segment
from audio_storage_system.server.openai.answers import Said
from audio_storage_system.server.openai.forms import Asked, Upload

logger = logging.getLogger(__name__)

# So long workers leave a file to the request that brought it, which may wait for its turn or die with its process.
LEFT_ALONE_SECONDS = 900.0

Listener = Callable[[Sequence[Segment]], None]
T = TypeVar("T")


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


class Work:
    """One file, and what is asked of it."""

    def __init__(self, storage: AudioStorageSystem, asked: Asked, upload: Upload) -> None:
        self._storage, self._asked, self._upload = storage, asked, upload
        self._gone = Event()
        self._audio_id: int | None = None
        self._job: Job | None = None
        self._is_ours = False  # the job, and nobody else's

    @property
    def headers(self) -> dict[str, str]:
        """What can be said before it is done: where the file is kept, if it is."""
        return {} if self._audio_id is None else {"X-Audio-Id": str(self._audio_id)}

    async def done(self, request: Request, listener: Listener | None = None) -> Said:
        """What is said, when it was its turn and is done. The file is stored first where it is to be, so that a long
        queue loses nothing. Raises `ClientGone`, and what storing and transcribing raise."""
        watch = asyncio.create_task(self._watch(request))
        try:
            if self._asked.store:
                await to_thread.run_sync(self._keep)
            return await to_thread.run_sync(partial(self._hear, listener), limiter=_turns(request))
        finally:
            watch.cancel()

    async def _watch(self, request: Request) -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        self._gone.set()

    def _keep(self) -> None:
        """With a job, should this process end before it is done."""
        asked, upload, now = self._asked, self._upload, utc_now()
        given: dict[str, Any] = {"name": upload.name, "metadata": asked.metadata, "translate": asked.translate}
        given |= {"whisper_model": asked.spec, "language": asked.language, "prompt": asked.prompt}
        self._job = self._storage.submit(upload.file, delay_seconds=LEFT_ALONE_SECONDS, **given)
        self._is_ours = self._job.created_at >= now
        self._audio_id = self._job.audio_id

    def _hear(self, listener: Listener | None) -> Said:
        try:
            self._progress()
            return self._passing(listener) if self._audio_id is None else self._kept(self._audio_id, listener)
        except Exception as error:
            if self._gone.is_set():
                self._leave_to_workers()
            else:
                self._give_up(error)
            if isinstance(error, AudioStorageSystemError):
                error.details.setdefault("audio_id", self._audio_id)  # it is stored, whatever became of the rest
            raise

    def _passing(self, listener: Listener | None) -> Said:
        """Of a file that is not stored."""
        upload = self._upload
        heard = self._storage.transcribe(upload.file, name=upload.name, **self._how(listener))
        return Said(heard.segments, heard.language, heard.duration, heard.engine, heard.flags)

    def _kept(self, audio_id: int, listener: Listener | None) -> Said:
        storage = self._storage
        made = storage.generate_transcript(audio_id, reuse=not self._asked.anew, **self._how(listener))
        version, recording = storage.get_transcript(made), storage.get_recording(audio_id)
        segments = tuple(storage.segments(made))
        if self._asked.translate:
            self._end_job()
        else:
            self._embed(audio_id, int(made))
        duration = recording.duration or max((segment.end for segment in segments), default=0.0)
        return Said(segments, version.language, duration, version.engine, version.flags, audio_id, int(made))

    def _how(self, listener: Listener | None) -> dict[str, Any]:
        asked = self._asked
        return {
            "whisper_model": asked.spec,
            "language": asked.language,
            "prompt": asked.prompt,
            "translate": asked.translate,
            "progress": self._progress,
            "on_segments": listener,
        }

    def _progress(self, seconds: float = 0.0, total: float = 0.0) -> None:
        """Stop when nobody waits any more."""
        if self._gone.is_set():
            raise ClientGone

    def _embed(self, audio_id: int, transcript_id: int) -> None:
        """What was said is known by now: where it cannot be embedded, a job does that later."""
        try:
            self._storage.generate_embeddings(audio_id, transcript_id)
        except AudioStorageSystemError as error:
            logger.warning("Recording %d is transcribed, and embedded later: %s", audio_id, error)
            self._storage.jobs.submit("add", [audio_id], {})
            self._hasten()
        else:
            self._end_job()

    def _end_job(self) -> None:
        if self._job is not None:
            self._storage.jobs.done(self._job.id)

    def _hasten(self) -> None:
        if self._job is not None:
            self._storage.jobs.hasten(self._job.id)

    def _give_up(self, error: Exception) -> None:
        """The client is told, and decides whether to try again: no worker does it unasked. A job that was there before
        is somebody else's."""
        try:
            if self._job is not None and self._is_ours:
                self._storage.jobs.failed(self._job.id, error)
        except AudioStorageSystemError as further:  # the disk is full, or the recording deleted
            logger.warning("Recording %s has failed, and may be tried by a worker: %s", self._audio_id, further)

    def _leave_to_workers(self) -> None:
        """A translation, and a first version, is what the job is for; any other is one more."""
        asked, audio_id = self._asked, self._audio_id
        if audio_id is None:
            return
        given = {"whisper_model": asked.spec, "language": asked.language, "prompt": asked.prompt}
        options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        if not asked.translate and any(version.active for version in self._storage.transcripts(audio_id)):
            self._storage.retranscribe([audio_id], **options)
        self._hasten()


def _turns(request: Request) -> CapacityLimiter:
    """As many at once as the settings say, in this process."""
    state = request.app.state
    if not hasattr(state, "transcribing"):
        state.transcribing = CapacityLimiter(state.storage.settings.transcribe_at_once)
    turns: CapacityLimiter = state.transcribing
    return turns
