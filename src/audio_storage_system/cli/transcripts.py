"""`transcripts`: the versions of what is said."""

from __future__ import annotations

from typing import Annotated

import typer

from audio_storage_system.cli import options
from audio_storage_system.cli.listing import show_segments, show_versions
from audio_storage_system.cli.output import Output
from audio_storage_system.cli.session import opened

app = typer.Typer(help="The versions of what is said in a recording. None is ever overwritten.")

TranscriptId = Annotated[int, typer.Argument(metavar="TRANSCRIPT")]


@app.command("list")
def list_versions(
    audio_id: Annotated[int, typer.Argument(metavar="ID", help="The recording.")],
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """List every version of a recording's transcript; * marks the one that search follows."""
    out = Output(as_json)
    with opened(archive) as storage:
        versions = storage.transcripts(audio_id)
    out.document({"audio_id": audio_id, "transcripts": [version.as_dict() for version in versions]})
    show_versions(versions, out)


@app.command("show")
def show_version(
    transcript_id: TranscriptId, archive: options.ArchivePlace = None, as_json: options.AsJson = False
) -> None:
    """Show one version with its times."""
    out = Output(as_json)
    with opened(archive) as storage:
        version, segments = storage.get_transcript(transcript_id), storage.segments(transcript_id)
    out.document({**version.as_dict(), "segments": [segment.as_dict() for segment in segments]})
    show_versions([version], out)
    out.line()
    show_segments(segments, out)


@app.command("activate")
def activate(
    transcript_id: TranscriptId, archive: options.ArchivePlace = None, as_json: options.AsJson = False
) -> None:
    """Let search follow this version from now on. It can be undone in the same way."""
    out = Output(as_json)
    with opened(archive) as storage:
        storage.activate_transcript(transcript_id)
        version = storage.get_transcript(transcript_id)
    out.document(version.as_dict())
    out.line(f"Search follows transcript {transcript_id} of recording {version.audio_id} now.")
