"""A live session: sound comes in piece by piece, is on the disk at once, and is text and can be found soon after."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from audio_storage_system.access import Role
from audio_storage_system.archive import Archive, processing, underway
from audio_storage_system.archive.underway import Intent
from audio_storage_system.audio.spool import Spool, SpoolWriter, take_spool
from audio_storage_system.catalogue import metadata, recordings, schemas
from audio_storage_system.errors import AudioStorageSystemError, Conflict, InvalidInput, NotFound, SessionHeld
from audio_storage_system.live.capture import Capture, Sound
from audio_storage_system.live.events import Ended, Event, Events, LiveReport, Suspended
from audio_storage_system.live.recognition import Recognition
from audio_storage_system.live.tail import Tail
from audio_storage_system.pipeline import check_spec
from audio_storage_system.records import Job, Metadata, Recording

logger = logging.getLogger(__name__)

LEAST_RATE, MOST_RATE, MOST_CHANNELS = 4_000, 384_000, 8
DEFAULT_RATE = 16_000
# Between two looks at whether sound is to be made durable, and between two signs of life in the catalogue.
SYNC_SECONDS, BEAT_SECONDS = 0.25, 10.0
FINISH_SECONDS = 30.0
# What makes live text where nothing else is asked for: it tells what it understands while it listens.
BUNDLED, ITS_LANGUAGES = "pocketsphinx", (None, "en")

Submit = Callable[[int, Mapping[str, Any]], Job]
Tell = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a live session is to be: see `AudioStorageSystem.live`. `transcriber` makes the text that is live,
    `whisper_model` the version that comes after."""

    sample_rate: int = DEFAULT_RATE
    channels: int = 1
    values: Metadata = field(default_factory=dict)
    language: str | None = None
    transcriber: str | None = None
    whisper_model: str | None = None
    resume_seconds: float = 0.0

    def check(self) -> None:
        """Raise `InvalidInput` for what no session can be."""
        if not LEAST_RATE <= self.sample_rate <= MOST_RATE:
            raise InvalidInput(reason=f"sample_rate is from {LEAST_RATE:,} to {MOST_RATE:,} Hz, not {self.sample_rate}")
        if not 1 <= self.channels <= MOST_CHANNELS:
            raise InvalidInput(reason=f"there are 1 to {MOST_CHANNELS} channels, not {self.channels}")
        if not 0 <= self.resume_seconds <= 86_400:
            raise InvalidInput(reason=f"resume_seconds is from 0 to 86,400, not {self.resume_seconds:g}")


class LiveSession:
    """One recording while it is made; a context manager that ends it. Safe to use from several threads.

    id: what it can be resumed by, in any process on this machine: whoever knows it and may change the recording.
    audio_id: its recording, which is there from the beginning, with the status `recording`.
    """

    def __init__(
        self, archive: Archive, writer: SpoolWriter, recording: Recording, intent: Intent, submit: Submit, tell: Tell
    ) -> None:
        self.id = writer.folder.name
        self.audio_id = recording.id
        self.sample_rate, self.channels = writer.sample_rate, writer.channels
        self.started_at: datetime = recording.recorded_at
        self.resume_seconds = intent.resume_seconds
        self._archive, self._recording, self._intent, self._submit = archive, recording, intent, submit
        self._events = Events(tell)
        tail = Tail(writer.folder, archive.key_for("spool"), writer.frames)
        self._capture = Capture(writer, tail.put)
        self._recognition = Recognition(
            archive,
            recording,
            tail,
            asked=intent.transcriber,
            fallback=archive.settings.transcriber_fallback or None,
            language=intent.language,
            tell=self._events.put,
        )
        self._ending = threading.RLock()
        self._spool: Spool | None = None  # once nothing can be written any more
        self._report: LiveReport | None = None
        self._suspended = False
        self._heard_all = False
        self._over = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name=f"live {self.id[:8]}", daemon=True)
        self._keeper.start()

    def write(self, sound: Sound) -> None:
        """Append sound: bytes of interleaved little-endian 16-bit samples, or an array of floating-point samples in
        -1…1 (or of 16-bit ones), of the shape (frames,) or (frames, channels).

        It is on the disk when this returns, and durable within a second. It never waits for recognition. Raises
        `InvalidInput` for what is not whole frames, `Conflict` once the session has ended, and `StorageFull`,
        `ArchiveReadOnly` or `StorageFailed` where the disk refuses: what is not written again counts as missing then.
        """
        self._check_open()
        self._capture.write(sound)

    def skip(self, seconds: float) -> None:
        """Note that so much sound was lost here, before it came in: the report says where and how much."""
        self._check_open()
        frames = round(seconds * self.sample_rate)
        if frames < 0:
            raise InvalidInput(reason="seconds that were lost are not negative")
        if frames:
            self._capture.skip(frames)

    @property
    def seconds(self) -> float:
        """How much sound has come in so far."""
        return self._capture.seconds

    @property
    def position(self) -> float:
        """How much of it is safe on the disk, whatever happens to this machine: what a client need not keep."""
        return self._capture.durable_seconds

    def flush(self) -> float:
        """Make all that came in durable; how much that is, in seconds: from where a client goes on that was away."""
        self._check_open()
        self._capture.flush()
        return self._capture.durable_seconds

    def events(self, timeout: float | None = None) -> Iterator[Event]:
        """What happens, as it does, until the session is over, or nothing happens for `timeout` seconds. Each event
        goes to one reader."""
        return self._events.read(timeout)

    @property
    def ended(self) -> bool:
        """Whether it is over here: finished or suspended."""
        return self._over.is_set()

    def finish(self, wait: float = FINISH_SECONDS) -> LiveReport:
        """End the session: its recording is complete when this returns, and the job for the whole model is given. Again
        it gives the same report. `wait`: for how many seconds what was said last may take to become text; what takes
        longer is left to the whole model.

        Raises `Conflict` for one that was suspended, and `StorageFailed` where the archive cannot be written now: then
        it may be called again, and otherwise whoever opens the archive next does it.
        """
        with self._ending:
            if self._suspended:
                raise Conflict(reason=f"The live session {self.id} was suspended; resume it to finish it")
            if self._report is None:
                self._stop()
                self._heard_all = self._recognition.finish(wait) or self._heard_all
                self._report = self._finished(self._closed())
                self._events.put(Ended(self._report))
        return self._report

    def suspend(self) -> float:
        """Leave the session to whoever resumes it, in this process or another; how much of it is on the disk, in
        seconds. Nobody else touches it for `resume_seconds` from now, then whoever opens the archive, or a worker,
        completes it. Raises `Conflict` for one that has ended."""
        with self._ending:
            self._check_open()
            self._stop()
            self._recognition.stop()
            self._suspended = True
            spool = self._closed()
            position = spool.seconds
            spool.release()
            self._events.put(Suspended(position))
        return position

    def close(self) -> None:
        """`finish`, unless it is over."""
        if not self._suspended:
            self.finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._over.is_set():
            raise Conflict(reason=f"The live session {self.id} has ended")

    def _stop(self) -> None:
        self._over.set()
        self._keeper.join()

    def _closed(self) -> Spool:
        """The spool, which is ours: also where an earlier attempt to close it failed, and let go of it."""
        if self._spool is None and not self._capture.closed:
            self._spool = self._capture.close()
        if self._spool is None:
            self._spool = take_spool(self._archive.spool / self.id, self._archive.key_for("spool"))
        if self._spool is None:
            raise NotFound(kind="live session", id=self.id)
        return self._spool

    def _finished(self, spool: Spool) -> LiveReport:
        if spool.seconds == 0:
            underway.forget(self._archive, self._recording)
            spool.discard()
            return LiveReport(self.id, None, 0.0, 0.0, (), None, None)
        about = (self._archive, spool, self._recording, self._intent)
        done = underway.complete(*about, heard=self._heard_all)
        spool.discard()
        self._queue(done.audio_id)
        return LiveReport(
            session=self.id,
            audio_id=done.audio_id,
            seconds=done.report.seconds,
            missing_seconds=done.report.missing_seconds,
            gaps=done.report.gaps,
            transcript_id=done.said.id if done.said else None,
            job_id=done.job_id,
            duplicate=done.duplicate,
        )

    def _queue(self, audio_id: int) -> None:
        """Have the job that was left for it wait in its queue. A worker's sweep does that too."""
        try:
            self._submit(audio_id, self._intent.options)
        except AudioStorageSystemError as error:
            logger.warning("The job of recording %d will be queued by a worker: %s", audio_id, error)

    def _keep(self) -> None:
        """Make durable what would lie about while nothing comes in, and give signs of life."""
        rounds, said = 0, ""
        while not self._over.wait(SYNC_SECONDS):
            rounds += 1
            try:
                self._capture.sync()
                if rounds % round(BEAT_SECONDS / SYNC_SECONDS) == 0:
                    self._beat()
                said = ""
            except AudioStorageSystemError as error:
                if str(error) != said:
                    logger.warning("The live session %s cannot be looked after now: %s", self.id, error)
                said = str(error)

    def _beat(self) -> None:
        with self._archive.database.write() as connection:
            recordings.live_on(connection, self.audio_id, self._capture.seconds)


def check(archive: Archive, wanted: Wanted) -> Intent:
    """Raise what `begin` would, before anybody speaks; what is to become of the session."""
    archive.access.require_scope(Role.EDITOR, "store recordings")
    wanted.check()
    metadata.validate(wanted.values)
    return _intent(archive, wanted)


def begin(archive: Archive, wanted: Wanted, submit: Submit, tell: Tell) -> LiveSession:
    """A new live session. Raises `InvalidInput`, `UnknownSpec`, `Forbidden`, `StorageFailed`."""
    intent = check(archive, wanted)
    owner_id = processing.owner_of(archive, wanted.values)
    with archive.database.read() as connection:
        if violation := schemas.first_violation(connection, owner_id, wanted.values):
            raise violation.as_error()
    told = underway.spool_metadata(owner_id, wanted.values, intent)
    folder, key = archive.spool / uuid4().hex, archive.key_for("spool")
    writer = SpoolWriter(folder, wanted.sample_rate, wanted.channels, told, key)
    try:
        recording = underway.enter(archive, Spool(folder, key=key), owner_id, wanted.values)
    except BaseException:
        writer.close().discard()
        raise
    return LiveSession(archive, writer, recording, intent, submit, tell)


def resume(archive: Archive, session: str, submit: Submit, tell: Tell) -> LiveSession:
    """The live session with this id, whose process let go of it or is gone, as it was left. Raises `NotFound` where
    there is none to go on with (any more) that who asks may change, `SessionHeld`."""
    nowhere = NotFound(kind="live session", id=session)
    if not re.fullmatch(r"[0-9a-f]{32}", session):
        raise nowhere
    spool = take_spool(archive.spool / session, archive.key_for("spool"))
    if spool is None:
        raise SessionHeld(session=session) if (archive.spool / session).exists() else nowhere
    try:
        intent, recording = underway.intent_of(spool), underway.find(archive, spool)
        if intent is None or recording is None:
            raise nowhere
        with archive.database.read() as connection:
            about: dict[str, Any] = {"kind": "live session", "id": session}
            archive.access.require(connection, recording.id, Role.EDITOR, "record on", **about)
        underway.note_resumed(archive, recording, spool.seconds)
        writer = SpoolWriter.resume(spool)
    except BaseException:
        spool.release()
        raise
    return LiveSession(archive, writer, recording, intent, submit, tell)


def _intent(archive: Archive, wanted: Wanted) -> Intent:
    """As it is set here, whoever completes it."""
    task = processing.task_of(archive, wanted.whisper_model, wanted.language)
    given = {"whisper_model": task.asked, "language": task.language}
    options = {name: value for name, value in given.items() if value is not None}
    own = BUNDLED if task.language in ITS_LANGUAGES else archive.settings.transcriber
    asked = own if wanted.transcriber is None else wanted.transcriber
    check_spec(asked)
    return Intent(options, wanted.resume_seconds, asked, task.language)
