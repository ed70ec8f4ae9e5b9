"""Transcription: window by window, each committed once, so that an interrupted one goes on where it stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from sqlalchemy import Connection

from audio_storage_system import outbox
from audio_storage_system.audio import SpeechWindow, Waveform, speech_windows
from audio_storage_system.audit import OFF, Audit
from audio_storage_system.catalogue import locks, passages, recordings, transcripts
from audio_storage_system.database import Database
from audio_storage_system.errors import (
    AudioStorageSystemError,
    Conflict,
    EngineUnavailable,
    NotAudio,
    ServiceFailed,
    StorageFailed,
    TranscriptionFailed,
)
from audio_storage_system.passages import Grouper
from audio_storage_system.pipeline.activation import Decision, Judged, Rule, decide
from audio_storage_system.pipeline.batches import batches
from audio_storage_system.pipeline.differences import compare
from audio_storage_system.pipeline.engines import Choice, Engines
from audio_storage_system.pipeline.sources import Samples, Source
from audio_storage_system.records import Outcome, Passage, Recording, Span, Transcript
from audio_storage_system.registry import split_spec
from audio_storage_system.transcribers import (
    TranscribeOptions,
    Transcriber,
    Window,
    WindowResult,
    resolve_transcriber,
)

Progress = Callable[[float, float], None]


@dataclass(frozen=True, slots=True)
class Task:
    """What to transcribe with: a spec or Whisper size, a language or `None`, and the engine that may stand in.

    `activate`: by which rule search follows the result, see `activation.decide`. `progress` is called with the seconds
    of sound done so far, and all there are: after each batch, and while none comes, as in a long silence. What it
    raises stops the work, which can be taken up again. `job_id`: of the job that this is done for, which tells itself
    when it is given up.
    """

    asked: str
    language: str | None = None
    fallback: str | None = None
    prompt: str | None = None
    activate: Rule | None = None
    progress: Progress = field(default=lambda seconds, total: None)
    audit: Audit = OFF
    job_id: int | None = None

    @property
    def options(self) -> TranscribeOptions:
        return TranscribeOptions(language=self.language or None, prompt=self.prompt)


class Made(int):
    """The id of a new version. `decision`: whether search follows it, and why; `None` where another process, which made
    the same version at the same time, decided."""

    decision: Decision | None

    @classmethod
    def of(cls, transcript_id: int, decision: Decision | None) -> Made:
        """The id with what was decided."""
        made = cls(transcript_id)
        made.decision = decision
        return made


def transcribe(database: Database, engines: Engines, source: Source, audio_id: int, task: Task) -> Made:
    """Make a new version of what was said, or go on with one that was interrupted; its id.

    Raises `TranscriptionFailed` when it ends in a failure, which is kept as the version's outcome, or `StorageFailed`.
    The recording and its other versions are untouched by either.
    """
    with database.read() as connection:
        recording = recordings.get(connection, audio_id)
    with ExitStack() as stack:
        try:
            choice = stack.enter_context(engines.borrow(task.asked, language=task.language, fallback=task.fallback))
        except EngineUnavailable as error:
            _note_unavailable(database, recording, task, error)
            raise _failed(recording.id, error, Outcome.ENGINE_UNAVAILABLE) from error
        while not (run := _Run.open(database, recording, task, choice)).to_its_end(source):
            if run.succeeded():  # by another process, which was faster
                break
    return Made.of(run.transcript_id, run.decision)


def transcribe_sample(
    engines: Engines, waveform: Waveform, task: Task, check: Callable[[], None] = lambda: None
) -> str:
    """What is said in a sample, which is not stored. `check` is called before each batch of windows; it may raise."""
    windows = (Window(item.start, item.samples) for item in speech_windows(iter([np.asarray(waveform)])))
    with engines.borrow(task.asked, language=task.language, fallback=task.fallback) as choice:
        transcriber = choice.transcriber
        texts = [
            segment.text.strip()
            for batch in batches(windows, transcriber.capabilities.batch_size)
            for result in _heard(transcriber, batch, task, check)
            for segment in result.segments
        ]
    return " ".join(texts)


def _heard(
    transcriber: Transcriber, batch: Sequence[Window], task: Task, check: Callable[[], None]
) -> list[WindowResult]:
    check()
    return transcriber.transcribe(batch, task.options)


def outcome_of(error: BaseException) -> Outcome:
    """The kind of failure an error means."""
    kinds: list[tuple[type[BaseException], Outcome]] = [
        (MemoryError, Outcome.OUT_OF_MEMORY),
        (ServiceFailed, Outcome.SERVICE_FAILED),
        (EngineUnavailable, Outcome.ENGINE_UNAVAILABLE),
        (NotAudio, Outcome.DECODE_FAILED),
    ]
    return next((outcome for kind, outcome in kinds if isinstance(error, kind)), Outcome.FAILED)


def _failed(audio_id: int, error: BaseException, outcome: Outcome) -> AudioStorageSystemError:
    failure = TranscriptionFailed(audio_id=audio_id, reason=str(error) or type(error).__name__)
    failure.details["outcome"] = outcome
    return failure


def _note_unavailable(database: Database, recording: Recording, task: Task, error: EngineUnavailable) -> None:
    """Keep that the engine asked for could not run: one version per engine, however often it is tried."""
    engine = split_spec(resolve_transcriber(task.asked))[0]
    parameters = {"language": task.language}
    with database.write(locks.of_recording(recording.id)) as connection:
        recordings.must_exist(connection, recording.id)
        transcript_id = transcripts.find_unfinished(
            connection, recording.id, asked=task.asked, engine=engine, parameters=parameters
        ) or transcripts.start(
            connection,
            recording.id,
            asked=task.asked,
            engine=engine,
            parameters=parameters,
            language=task.language,
        )
        transcripts.finish(connection, transcript_id, outcome=Outcome.ENGINE_UNAVAILABLE, reason=str(error))
        made = {"transcript_id": transcript_id, "engine": engine, "outcome": Outcome.ENGINE_UNAVAILABLE}
        task.audit.note(connection, "transcript.made", recording.id, **made)
        _tell_failed(connection, recording.id, task, transcript_id, Outcome.ENGINE_UNAVAILABLE)


def _tell_failed(connection: Connection, audio_id: int, task: Task, transcript_id: int, outcome: Outcome) -> None:
    if task.job_id is None:
        facts = {"step": "transcribe", "code": outcome.value, "transcript_id": transcript_id, "job_id": None}
        outbox.tell(connection, outbox.Event.FAILED, audio_id, **facts)


@dataclass
class _Run:
    """One version being made."""

    database: Database
    recording: Recording
    task: Task
    transcriber: Transcriber
    transcript_id: int
    options: TranscribeOptions
    done: int  # windows committed, which are the first ones
    segments: int
    grouper: Grouper
    until: float = 0.0  # seconds of sound done
    since: float = field(default_factory=time.monotonic)
    decision: Decision | None = None
    callers: BaseException | None = None  # what `progress` raised, which is no failure of ours

    @classmethod
    def open(cls, database: Database, recording: Recording, task: Task, choice: Choice) -> _Run:
        """A new version, or the one that the same work left unfinished, with what it has so far."""
        transcriber = choice.transcriber
        parameters = {"model": transcriber.model, **transcriber.parameters(task.options)}
        work: dict[str, Any] = {"asked": task.asked, "engine": transcriber.engine, "parameters": parameters}
        with database.write(locks.of_recording(recording.id)) as connection:
            recordings.must_exist(connection, recording.id)
            transcript_id = transcripts.find_unfinished(connection, recording.id, **work)
            if transcript_id is None:
                flags = [transcripts.FALLBACK] if choice.fallback else []
                transcript_id = transcripts.start(connection, recording.id, **work, language=task.language, flags=flags)
                return cls(database, recording, task, transcriber, transcript_id, task.options, 0, 0, Grouper())
            transcripts.reopen(connection, transcript_id)
            count, last_segment = passages.last_of(connection, transcript_id)
            loose = transcripts.segments_after(connection, transcript_id, last_segment)
            grouper = Grouper(sequence=count)
            grouper.push(loose)
            return cls(
                database,
                recording,
                task,
                transcriber,
                transcript_id,
                replace(task.options, language=transcripts.get(connection, transcript_id).language),
                transcripts.windows_done(connection, transcript_id),
                transcripts.segment_count(connection, transcript_id),
                grouper,
            )

    def to_its_end(self, source: Source) -> bool:
        """Transcribe every window that is not done yet, batch by batch; false when another process was faster.

        What the archive's storage refuses leaves the version unfinished, to be taken up again; so does whatever
        `progress` raises. Any other error is the version's outcome, raised as `TranscriptionFailed`.
        """
        try:
            self._work(source)
        except (Exception, MemoryError) as error:
            if error is self.callers or isinstance(error, StorageFailed):
                raise
            if isinstance(error, Conflict):
                return False
            outcome = outcome_of(error)
            self.finish(outcome, str(error) or type(error).__name__)
            raise _failed(self.recording.id, error, outcome) from error
        self.finish(Outcome.OK if self.segments else Outcome.SILENCE, None, source.warnings)
        return True

    def _work(self, source: Source) -> None:
        """Batch after batch."""
        size = self.transcriber.capabilities.batch_size
        for batch in batches(speech_windows(self._heard(source), skip=self.done), size):
            self._batch(batch)
            self.until = batch[-1].end
            self._tell()

    def _heard(self, source: Source) -> Iterator[Samples]:
        for block in source.blocks():
            self._tell()
            yield block

    def _tell(self) -> None:
        try:
            self.task.progress(self.until, max(self.recording.duration or 0.0, self.until))
        except BaseException as error:
            self.callers = error
            raise

    def _batch(self, batch: list[SpeechWindow]) -> None:
        windows = [Window(item.start, item.samples) for item in batch]
        language = self.options.language
        if language is None and self.transcriber.capabilities.detects_language:
            language = self.transcriber.detect_language(windows[0])
            self.options = replace(self.options, language=language)
        results = self.transcriber.transcribe(windows, self.options)
        with self.database.write(locks.of_recording(self.recording.id)) as connection:
            recordings.must_exist(connection, self.recording.id)
            if transcripts.windows_done(connection, self.transcript_id) != self.done:
                raise Conflict(reason=f"Transcript {self.transcript_id} is being made by another process too")
            for item, window, result in zip(batch, windows, results, strict=True):
                self._commit(connection, item.sequence, window, result)
            transcripts.note_progress(connection, self.transcript_id, self.options.language, self._lap())

    def _commit(self, connection: Connection, sequence: int, window: Window, result: WindowResult) -> None:
        span = Span(window.start, window.end)
        kept = transcripts.commit_window(connection, self.transcript_id, sequence, span, result.segments, self.segments)
        self.done = sequence + 1
        self.segments += len(kept)
        self.options = replace(self.options, language=self.options.language or result.language)
        self._keep(connection, self.grouper.push(kept))

    def _keep(self, connection: Connection, closed: list[Passage]) -> None:
        passages.add(
            connection,
            closed,
            transcript_id=self.transcript_id,
            audio_id=self.recording.id,
            owner_id=self.recording.owner_id,
            language=self.options.language,
        )

    def finish(self, outcome: Outcome, reason: str | None, warnings: Sequence[str] = ()) -> None:
        """End the version, and have search follow it where that is wanted. A success stands against another process's
        failure, and a failure is nothing while another process goes on.

        The last passage is closed only when the version is complete: a failed one may be taken up again.
        """
        agreements = self._agreements() if outcome.succeeded and self.task.activate == "if-better" else {}
        with self.database.write(locks.of_recording(self.recording.id)) as connection:
            present = transcripts.outcome_of(connection, self.transcript_id)
            if present is not None and present.succeeded:
                return
            if not outcome.succeeded and transcripts.windows_done(connection, self.transcript_id) != self.done:
                return
            recordings.warn(connection, self.recording.id, warnings)
            if outcome.succeeded:
                self._keep(connection, self.grouper.finish())
            transcripts.note_progress(connection, self.transcript_id, self.options.language, self._lap())
            transcripts.finish(connection, self.transcript_id, outcome=outcome, reason=reason)
            if outcome.succeeded:
                self.decision = self._decide(connection, agreements)
                if self.decision.follow:
                    transcripts.activate(connection, self.transcript_id)
            self._note(connection, outcome)

    def _note(self, connection: Connection, outcome: Outcome) -> None:
        of = {"transcript_id": self.transcript_id, "engine": self.transcriber.engine, "outcome": outcome}
        active = self.decision is not None and self.decision.follow
        self.task.audit.note(connection, "transcript.made", self.recording.id, **of, active=active)
        if outcome.succeeded:
            outbox.tell(connection, outbox.Event.TRANSCRIBED, self.recording.id, **of, job_id=self.task.job_id)
        else:
            _tell_failed(connection, self.recording.id, self.task, self.transcript_id, outcome)

    def succeeded(self) -> bool:
        """Whether the version is complete by now."""
        with self.database.read() as connection:
            outcome = transcripts.outcome_of(connection, self.transcript_id)
        return outcome is not None and outcome.succeeded

    def _decide(self, connection: Connection, agreements: dict[int, float]) -> Decision:
        """Whether search follows this version, of what is true in this transaction."""
        new = self._judged(connection, transcripts.get(connection, self.transcript_id))
        present = transcripts.active_of(connection, self.recording.id)
        if present is None or not present.active:
            return decide(self.task.activate, None, new)
        if self.task.activate == "if-better" and present.id not in agreements:  # it was made active just now
            agreements[present.id] = self._agreement(connection, present.id)
        agreement = agreements.get(present.id, 0.0)
        return decide(self.task.activate, self._judged(connection, present), new, agreement)

    def _judged(self, connection: Connection, version: Transcript) -> Judged:
        return Judged.of(version, transcripts.segments_of(connection, version.id))

    def _agreements(self) -> dict[int, float]:
        """How far the version that search follows by now agrees with this one: long texts take a while to compare,
        which must not happen while writing."""
        with self.database.read() as connection:
            present = transcripts.active_of(connection, self.recording.id)
            return {present.id: self._agreement(connection, present.id)} if present and present.active else {}

    def _agreement(self, connection: Connection, other: int) -> float:
        said = (transcripts.segments_of(connection, id_) for id_ in (other, self.transcript_id))
        return compare(*said).agreement

    def _lap(self) -> float:
        before, self.since = self.since, time.monotonic()
        return self.since - before
