"""Live: recording from a stream, with its text while it is spoken."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from audio_storage_system import live
from audio_storage_system.archive import Archive
from audio_storage_system.archive.captures import Recovered, recover
from audio_storage_system.errors import AudioStorageSystemError
from audio_storage_system.jobs import Jobs
from audio_storage_system.live import Event, Listening, LiveReport, LiveSession, Wanted
from audio_storage_system.records import Job, Metadata

logger = logging.getLogger(__name__)


class Living:
    """What is recorded and understood as it comes in."""

    _archive: Archive
    _jobs: Jobs
    _sessions: weakref.WeakSet[LiveSession]

    def live(
        self,
        *,
        sample_rate: int = live.session.DEFAULT_RATE,
        channels: int = 1,
        metadata: Metadata | None = None,
        language: str | None = None,
        whisper_model: str | None = None,
        transcriber: str | None = None,
        resume: str | None = None,
        resume_seconds: float = 0.0,
        on_event: Callable[[Event], None] | None = None,
    ) -> LiveSession:
        """A live session: sound that is written to it is on the disk at once, becomes text while it is spoken, and each
        piece of speech can be found as soon as it is over. `with` ends it; its recording is then complete, and workers
        make the version of the whole model.

        sample_rate (Hz), channels: of the sound to come. metadata, language, whisper_model: as of `add`; the model is
        for the version that comes after. transcriber: what makes the live text; default the bundled recogniser for
        English or where no language is set, else the archive's. on_event: told what happens, from any thread, beside
        `LiveSession.events`; it must return soon.

        resume: the id of a session to go on with, which was suspended, or whose process is gone; the sound's form, the
        metadata and the models are then its own. resume_seconds: for how long such a session is left alone by others;
        then whoever opens the archive, or a worker, completes the recording. 0 is at once.

        Raises `InvalidInput`, `UnknownSpec`, `Forbidden`, `NotFound` and `SessionHeld` (for `resume`), `StorageFailed`.
        """
        tell = on_event or (lambda event: None)
        if resume is not None:
            session = live.resume(self._archive, resume, self._submitted, tell)
        else:
            wanted = Wanted(sample_rate, channels, metadata or {}, language, transcriber, whisper_model, resume_seconds)
            session = live.begin(self._archive, wanted, self._submitted, tell)
        self._sessions.add(session)
        return session

    def record_live(
        self,
        duration: float | None = None,
        *,
        metadata: Metadata | None = None,
        language: str | None = None,
        whisper_model: str | None = None,
        transcriber: str | None = None,
        device: int | str | None = None,
        on_event: Callable[[Event], None] | None = None,
        on_level: Callable[[float], None] | None = None,
        stop: threading.Event | None = None,
    ) -> LiveReport:
        """A live session of what the microphone hears, for `duration` seconds (or until `stop` is set, or Ctrl-C); what
        became of it. As `record_and_store_audio` and `live` otherwise. Raises `MicrophoneUnavailable`, also where the
        device goes away: what was said until then is stored."""

        tell = on_event or (lambda event: None)
        wanted = Wanted(values=metadata or {}, language=language, transcriber=transcriber, whisper_model=whisper_model)
        live.check(self._archive, wanted)

        def begin(rate: int) -> LiveSession:
            session = live.begin(self._archive, replace(wanted, sample_rate=rate), self._submitted, tell)
            self._sessions.add(session)
            return session

        return live.listen(begin, Listening(duration, device, on_level, stop))

    def recover(self) -> list[Recovered]:
        """Store what was recorded by processes that are gone, and complete live sessions that nobody came back to in
        their time; what they were. Opening an archive does it too. Not for views: raises `Forbidden`."""
        self._archive.access.require_admin("recover what others recorded")
        return recover(self._archive)

    def _submitted(self, audio_id: int, options: Mapping[str, Any]) -> Job:
        """The job that the end of a session has left, in its queue."""
        return self._jobs.submit("add", [audio_id], options)[0]

    def _leave_sessions(self) -> None:
        """End the sessions that are open: those that may be resumed are left to that."""
        for session in list(self._sessions):
            if session.ended:
                continue
            try:
                session.suspend() if session.resume_seconds else session.finish()
            except AudioStorageSystemError as error:
                logger.warning(
                    "The live session %s is completed by whoever opens the archive next: %s", session.id, error
                )
