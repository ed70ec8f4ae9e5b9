"""Importing: a transcript that was made elsewhere becomes a version like any other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection

from audio_storage_system import outbox
from audio_storage_system.audit import OFF, Audit
from audio_storage_system.catalogue import locks, passages, recordings, transcripts
from audio_storage_system.database import Database
from audio_storage_system.database.tables import transcripts as table
from audio_storage_system.formats.reading import TranscriptFile, last_end
from audio_storage_system.passages import LONGEST_SECONDS, Grouper
from audio_storage_system.records import Outcome, Recording, Segment, Span, Transcript
from audio_storage_system.transcribers.languages import language_code

ENGINE = "import"
PAUSE = 1.0  # seconds without a cue that end a stretch of speech
AT_ONCE = 500  # segments in one transaction, about
SLACK = 1.0  # seconds by which a last cue may outlast its recording unremarked


@dataclass(frozen=True, slots=True)
class ImportedVersion:
    """The version that a file became. `known`: it had been imported before."""

    transcript_id: int
    known: bool
    warnings: tuple[str, ...]


def import_version(
    database: Database,
    audio_id: int,
    file: TranscriptFile,
    *,
    language: str | None,
    activate: bool | None,
    audit: Audit = OFF,
) -> ImportedVersion:
    """Make a version of a recording from a transcript file, unless these bytes were imported for it before.

    Search follows it where it followed none, or as `activate` says. What a crash cut short, the next call finishes.
    Raises `NotFound`.
    """
    with database.read() as connection:
        recording = recordings.get(connection, audio_id)
    windows = list(_windows(file.segments, recording.duration))
    work = _Work(database, recording, file, language_code(language or file.language), audit)
    transcript_id, known = work.open()
    if not known:
        for batch in _batches(windows):
            work.commit(transcript_id, batch)
        work.finish(transcript_id)
    work.follow(transcript_id, activate)
    return ImportedVersion(transcript_id, known, file.warnings + _beyond(file.segments, recording.duration))


def _beyond(segments: Sequence[Segment], duration: float | None) -> tuple[str, ...]:
    late = sum(segment.start > duration for segment in segments) if duration else 0
    if duration is None or (not late and last_end(segments) <= duration + SLACK):
        return ()
    end = last_end(segments)
    return (f"its last cue ends at {end:.1f} s, the recording at {duration:.1f} s; {late} cues lie beyond its end",)


@dataclass(frozen=True, slots=True)
class _Window:
    """A stretch of speech: cues without a long pause between them. `first`: how many cues lie before it."""

    sequence: int
    first: int
    span: Span
    segments: list[Segment]


def _windows(segments: Sequence[Segment], duration: float | None) -> Iterator[_Window]:
    """The stretches of speech, in order, none beyond the end of the recording; a very long one in several."""
    limit = duration if duration else float("inf")
    sequence = begun = 0
    end = 0.0
    for number, segment in enumerate(segments):
        if number > begun and (segment.start - end >= PAUSE or number - begun >= AT_ONCE):
            yield _window(sequence, begun, segments[begun:number], end, limit)
            sequence, begun = sequence + 1, number
        end = max(end, segment.end)
    if segments:
        yield _window(sequence, begun, segments[begun:], end, limit)


def _window(sequence: int, first: int, segments: Sequence[Segment], end: float, limit: float) -> _Window:
    return _Window(sequence, first, Span(min(segments[0].start, limit), min(end, limit)), list(segments))


def _batches(windows: list[_Window]) -> Iterator[list[_Window]]:
    batch: list[_Window] = []
    for window in windows:
        batch.append(window)
        if sum(len(item.segments) for item in batch) >= AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


@dataclass(frozen=True, slots=True)
class _Work:
    database: Database
    recording: Recording
    file: TranscriptFile
    language: str | None
    audit: Audit

    def open(self) -> tuple[int, bool]:
        """The version for these bytes, made if there is none, and whether it was complete."""
        with self._write() as connection:
            for version in self._versions(connection):
                if version.parameters.get("sha256") == self.file.file_hash:
                    return version.id, version.outcome is not None
            return self._start(connection), False

    def _versions(self, connection: Connection) -> list[Transcript]:
        return transcripts.select_where(
            connection, table.c.audio_file_id == self.recording.id, table.c.engine == ENGINE
        )

    def _start(self, connection: Connection) -> int:
        parameters: dict[str, Any] = {
            "format": self.file.format,
            "file": self.file.name,
            "sha256": self.file.file_hash,
            "model": self.file.model,
        }
        return transcripts.start(
            connection,
            self.recording.id,
            asked=self.file.model or ENGINE,
            engine=ENGINE,
            parameters=parameters,
            language=self.language,
        )

    def commit(self, transcript_id: int, windows: list[_Window]) -> None:
        """Keep these windows, with the passages they close, unless that was done."""
        with self._write() as connection:
            done = transcripts.windows_done(connection, transcript_id)
            grouper = self._grouper(connection, transcript_id)
            for window in windows:
                if window.sequence >= done:
                    kept = transcripts.commit_window(
                        connection, transcript_id, window.sequence, window.span, window.segments, window.first
                    )
                    self._keep(connection, transcript_id, grouper, kept)

    def _grouper(self, connection: Connection, transcript_id: int) -> Grouper:
        """Grouping as it stands after what is stored: the same wherever it is taken up."""
        count, last = passages.last_of(connection, transcript_id)
        grouper = Grouper(sequence=count)
        self._keep(connection, transcript_id, grouper, transcripts.segments_after(connection, transcript_id, last))
        return grouper

    def _keep(
        self,
        connection: Connection,
        transcript_id: int,
        grouper: Grouper,
        segments: list[Segment],
        *,
        last: bool = False,
    ) -> None:
        closed = grouper.push([_bounded(segment) for segment in segments]) + (grouper.finish() if last else [])
        passages.add(
            connection,
            closed,
            transcript_id=transcript_id,
            audio_id=self.recording.id,
            owner_id=self.recording.owner_id,
            language=self.language,
        )

    def finish(self, transcript_id: int) -> None:
        """Close the last passage and end the version."""
        with self._write() as connection:
            if transcripts.outcome_of(connection, transcript_id) is not None:
                return  # by another process
            self._keep(connection, transcript_id, self._grouper(connection, transcript_id), [], last=True)
            outcome = Outcome.OK if self.file.segments else Outcome.SILENCE
            transcripts.finish(connection, transcript_id, outcome=outcome, reason=None)
            self._note(connection, "transcript.imported", transcript_id)
            facts = {"transcript_id": transcript_id, "engine": ENGINE, "outcome": outcome, "job_id": None}
            outbox.tell(connection, outbox.Event.TRANSCRIBED, self.recording.id, **facts)

    def follow(self, transcript_id: int, activate: bool | None) -> None:
        """Let search follow the version where that is wanted."""
        with self._write() as connection:
            present = transcripts.active_of(connection, self.recording.id)
            followed = present.id if present and present.active else None
            wanted = followed is None if activate is None else activate
            if wanted and followed != transcript_id:
                transcripts.activate(connection, transcript_id)
                self._note(connection, "transcript.activated", transcript_id)

    def _note(self, connection: Connection, action: str, transcript_id: int) -> None:
        self.audit.note(connection, action, self.recording.id, transcript_id=transcript_id)

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        with self.database.write(locks.of_recording(self.recording.id)) as connection:
            recordings.must_exist(connection, self.recording.id)
            yield connection


def _bounded(segment: Segment) -> Segment:
    """A cue that is shown for hours says nothing of when it was spoken; and how a passage sounds is computed with all
    of it in memory."""
    return replace(segment, end=min(segment.end, segment.start + LONGEST_SECONDS))
