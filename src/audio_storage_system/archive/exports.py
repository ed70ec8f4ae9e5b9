"""Transcripts as files, and beside each other."""

from __future__ import annotations

from sqlalchemy import Connection

from audio_storage_system import formats
from audio_storage_system.archive.opening import Archive
from audio_storage_system.catalogue import recordings, transcripts, trash
from audio_storage_system.errors import InvalidInput, NotFound
from audio_storage_system.formats import Document
from audio_storage_system.pipeline import Comparison, compare
from audio_storage_system.records import Transcript


def export(archive: Archive, audio_id: int, format_name: str, transcript_id: int | None = None) -> str:
    """A version (default: the one that search follows) as `srt`, `vtt`, `txt`, `tsv` or `json`.

    Raises `UnknownSpec` for another format, `NotFound`.
    """
    formats.find(format_name)
    with archive.database.read() as connection:
        archive.access.require(connection, audio_id)
        recording = recordings.get(connection, audio_id)
        if transcript_id is not None:
            archive.access.require_version(connection, transcript_id)
        said = _version(connection, audio_id, transcript_id)
        pieces = transcripts.segments_of(connection, said.id)
    document = Document(tuple(pieces), said.language, recording.duration, said.engine, said.flags)
    return formats.write(format_name, document)


def differences(archive: Archive, before: int, after: int) -> Comparison:
    """Where two versions of one recording differ. Raises `NotFound`, `InvalidInput`."""
    with archive.database.read() as connection:
        for transcript_id in (before, after):
            archive.access.require_version(connection, transcript_id)
        versions = [transcripts.get(connection, transcript_id) for transcript_id in (before, after)]
        if versions[0].audio_id != versions[1].audio_id:
            of = " and ".join(f"{version.id} of recording {version.audio_id}" for version in versions)
            raise InvalidInput(reason=f"Only versions of one recording can be compared; these are transcript {of}")
        trash.refuse(connection, versions[0].audio_id)
        said = [transcripts.segments_of(connection, version.id) for version in versions]
    for version in versions:
        archive.audit.read("transcript.read", version.audio_id, transcript_id=version.id)
    return compare(*said)


def _version(connection: Connection, audio_id: int, transcript_id: int | None) -> Transcript:
    """The version asked for, which must be one of this recording's."""
    if transcript_id is None:
        said = transcripts.active_of(connection, audio_id)
    else:
        said = transcripts.get(connection, transcript_id)
    if said is None or said.audio_id != audio_id:
        raise NotFound(kind=f"transcript of recording {audio_id}", id=transcript_id or "active")
    return said
