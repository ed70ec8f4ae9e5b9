"""`transcripts`: the versions of what is said."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from audio_storage_system.cli import options
from audio_storage_system.cli.human import count
from audio_storage_system.cli.listing import show_segments, show_versions
from audio_storage_system.cli.output import Output
from audio_storage_system.cli.session import opened

if TYPE_CHECKING:
    from audio_storage_system.pipeline import Comparison

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
    out.result(version.as_dict(), f"Search follows transcript {transcript_id} of recording {version.audio_id} now.")


@app.command("diff")
def diff(
    before: Annotated[int, typer.Argument(metavar="A", help="A transcript.")],
    after: Annotated[int, typer.Argument(metavar="B", help="Another of the same recording.")],
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """Show where two versions differ, word by word, with times in seconds: what only A says, and what only B says.

    Case and punctuation do not count. Without colours it is written as [-what A says-] {+what B says+}.
    """
    out = Output(as_json)
    with opened(archive) as storage:
        found = storage.diff_transcripts(before, after)
    out.document({"before": before, "after": after, **found.as_dict()})
    show_difference(found, out)


def show_difference(found: Comparison, out: Output, most: int | None = None) -> None:
    """A line for each change (the first `most`), then the sum."""
    for change in found.changes[:most]:
        span = f"{change.start:9.2f}–{change.end:<9.2f}"
        old = [(out.marked("[-", change.before, "-]"), "red strike")] if change.before else []
        new = [(out.marked("{+", change.after, "+}"), "green")] if change.after else []
        between = [(" ", "")] if old and new else []
        lead, trail = f"{change.lead} ".lstrip(), f" {change.trail}".rstrip()
        out.styled((span + " ", "dim"), (lead, ""), *old, *between, *new, (trail, ""))
    if most is not None and len(found.changes) > most:
        out.line(f"… and {count(len(found.changes) - most, 'more place')}")
    counts = f"{found.changed} changed, {found.removed} removed, {found.added} added"
    out.line(f"{found.agreement:.1%} agreement ({found.words_before} and {found.words_after} words): {counts}")
