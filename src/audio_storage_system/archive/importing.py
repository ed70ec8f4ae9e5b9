"""Transcripts that exist already, with their audio."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from audio_storage_system import pipeline
from audio_storage_system.access import Role
from audio_storage_system.archive import processing, sidecars
from audio_storage_system.archive.opening import Archive
from audio_storage_system.catalogue import recordings
from audio_storage_system.formats import reading
from audio_storage_system.records import Metadata


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of a transcript file. `duplicate`: the audio was stored before; `known`: so was this transcript.
    `warnings` say what was odd about the file."""

    audio_id: int
    transcript_id: int
    duplicate: bool
    known: bool
    active: bool
    segments: int
    language: str | None
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**asdict(self), "warnings": list(self.warnings)}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the caller says about an import: see `AudioStorageSystem.import_transcript`."""

    language: str | None
    activate: bool | None
    metadata: Metadata | None
    embedded: bool


def import_transcript(
    archive: Archive,
    audio: str | os.PathLike[str] | int,
    given: str | os.PathLike[str] | BinaryIO,
    wanted: Wanted,
    name: str = "",
) -> Imported:
    """Store the audio and make a version of the file or stream, which is read first: one that cannot be read stores
    nothing."""
    if isinstance(given, str | os.PathLike):
        file = reading.read_file(Path(given))
    else:
        file = reading.read_stream(given, name)
    stored = _stored(archive, audio, wanted.metadata)
    made = pipeline.import_version(
        archive.database, stored.audio_id, file, language=wanted.language, activate=wanted.activate, audit=archive.audit
    )
    if wanted.embedded:
        source = processing.source_of(archive, stored.audio_id)
        processing.embed(archive, stored.audio_id, made.transcript_id, source)
    else:
        sidecars.refresh(archive, stored.audio_id)
    version = processing.version_of(archive, made.transcript_id)
    return Imported(
        audio_id=stored.audio_id,
        transcript_id=made.transcript_id,
        duplicate=stored.duplicate,
        known=made.known,
        active=version.active,
        segments=len(file.segments),
        language=version.language,
        warnings=made.warnings,
    )


def _stored(archive: Archive, audio: str | os.PathLike[str] | int, values: Metadata | None) -> pipeline.Stored:
    if isinstance(audio, str | os.PathLike):
        return processing.store(archive, Path(audio), values, None, "keep")
    with archive.database.read() as connection:
        archive.access.require(connection, int(audio), Role.EDITOR, "add a transcript to")
        recordings.refuse_unfinished(connection, int(audio))
        return pipeline.Stored(recordings.get(connection, int(audio)).id, duplicate=True)
