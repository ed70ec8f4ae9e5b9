"""The version of a recording that is made while it is spoken: each piece is stored once, and found at once."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection

from audio_storage_system import pipeline
from audio_storage_system.archive import Archive
from audio_storage_system.catalogue import locks, passages, recordings, transcripts
from audio_storage_system.errors import Conflict, NotFound
from audio_storage_system.passages import Grouper
from audio_storage_system.pipeline import Source
from audio_storage_system.pipeline.engines import Choice
from audio_storage_system.pipeline.sources import Samples, cut
from audio_storage_system.records import Recording, Segment, Span
from audio_storage_system.transcribers import TranscribeOptions, WindowResult

logger = logging.getLogger(__name__)


@dataclass
class SpokenSource(Source):
    """The sound of one piece of speech, which begins at `start`, in place of the whole recording."""

    start: float = 0.0

    def pieces(self, spans: list[Span]) -> Iterator[tuple[int, Samples]]:
        """As of `Source`; what lies elsewhere is left out."""
        here = [Span(span.start - self.start, span.end - self.start) for span in spans]
        return cut(self.blocks(), here)


@dataclass(frozen=True, slots=True)
class Spent:
    """In seconds: what understanding a piece took, and how much of the recording is there by now."""

    processing: float
    recorded: float


@dataclass
class LiveVersion:
    """One version being made. `heard_until`: the second up to which it is stored."""

    archive: Archive
    recording: Recording
    id: int
    language: str | None
    windows: int
    segments: int
    passages: int
    heard_until: float

    @classmethod
    def open(
        cls, archive: Archive, recording: Recording, asked: str, choice: Choice, options: TranscribeOptions
    ) -> LiveVersion:
        """The version that an interrupted session has begun, else a new one. Raises `NotFound` where the recording is
        no longer recorded."""
        transcriber = choice.transcriber
        flags = [transcripts.LIVE, *([transcripts.FALLBACK] if choice.fallback else [])]
        parameters = {"model": transcriber.model, **transcriber.parameters(options), "live": True}
        with archive.database.write(locks.of_recording(recording.id)) as connection:
            _must_be_recorded(connection, recording)
            id_ = transcripts.find_live(connection, recording.id) or transcripts.start(
                connection,
                recording.id,
                asked=asked,
                engine=transcriber.engine,
                parameters=parameters,
                language=options.language,
                flags=flags,
            )
            return cls(
                archive,
                recording,
                id_,
                transcripts.get(connection, id_).language,
                transcripts.windows_done(connection, id_),
                transcripts.segment_count(connection, id_),
                passages.last_of(connection, id_)[0],
                transcripts.heard_until(connection, recording.id),
            )

    def keep(self, span: Span, result: WindowResult, spent: Spent) -> list[Segment]:
        """Store what was said in a piece of speech, in one short transaction with its passage; its segments. Raises
        `NotFound` where the recording is gone, and `Conflict` where another process goes on with it."""
        language = self.language or result.language
        with self.archive.database.write(locks.of_recording(self.recording.id)) as connection:
            _must_be_recorded(connection, self.recording, spent.recorded)
            if transcripts.windows_done(connection, self.id) != self.windows:
                raise Conflict(reason=f"Transcript {self.id} is being made by another process too")
            kept = transcripts.commit_window(connection, self.id, self.windows, span, result.segments, self.segments)
            grouper = Grouper(sequence=self.passages)
            closed = grouper.push(kept) + grouper.finish()  # found at once, not when there is enough for a long one
            about = {"transcript_id": self.id, "audio_id": self.recording.id, "owner_id": self.recording.owner_id}
            passages.add(connection, closed, **about, language=language)
            transcripts.note_progress(connection, self.id, language, spent.processing)
        self.windows += 1
        self.segments += len(kept)
        self.passages += len(closed)
        self.language, self.heard_until = language, span.end
        return kept

    def embed(self, start: float, samples: Samples) -> bool:
        """Make the vectors of what was just kept; whether it is found by what it means now. What fails is made by the
        job that comes after."""
        source = SpokenSource(self.archive.blobs, "", pipeline.as_waveform(samples), start=start)
        try:
            embedders = self.archive.spaces.available()
            made = pipeline.embed(self.archive.database, source, embedders, self.recording.id, self.id)
        except Exception as error:  # an embedder may be anybody's code, or a service
            logger.warning("What was said could not be embedded yet: %s", error)
            return False
        self.archive.indexing.made(made, self.archive.follow)
        return embedders.text is not None


def _must_be_recorded(connection: Connection, recording: Recording, seconds: float | None = None) -> None:
    alive = recordings.live_on(connection, recording.id, recording.duration or 0.0 if seconds is None else seconds)
    if not alive:
        raise NotFound(kind="recording in progress", id=recording.id)
