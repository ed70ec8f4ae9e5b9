"""`list` and `show`: what is in the archive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from audio_storage_system.cli import options
from audio_storage_system.cli.human import clock, moment, shortened, size
from audio_storage_system.cli.output import Output, say
from audio_storage_system.cli.session import opened
from audio_storage_system.notation import parse_where

if TYPE_CHECKING:
    from audio_storage_system.records import Recording, Segment, Transcript

TEXT_WIDTH = 60


def list_recordings(
    where: options.Where = None,
    since: options.Since = None,
    until: options.Until = None,
    language: options.SpokenLanguage = None,
    speaker: options.Speaker = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="How many; 0: all.")] = 50,
    offset: Annotated[int, typer.Option(min=0, help="How many to leave out.")] = 0,
    as_user: options.AsUser = None,
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """List recordings, the latest first, each with the transcript that search follows."""
    out = Output(as_json)
    limits: dict[str, Any] = {"where": parse_where(where), "since": since, "until": until}
    with opened(archive, as_user=as_user) as storage:
        found = storage.list_recordings(
            **limits, language=language, speaker=speaker, limit=limit or None, offset=offset
        )
        rows = [(recording, _followed(storage.transcripts(recording.id))) for recording in found]
    out.document({"recordings": [{**r.as_dict(), "transcript": _brief(t)} for r, t in rows]})
    columns = ("id", "recorded", "length", "size", "name", "transcript", "metadata")
    out.table(columns, [_row(r, t) for r, t in rows], right=("id", "length", "size"))
    if not rows and not as_json:
        say("No recordings.")


def show(
    audio_id: Annotated[int, typer.Argument(metavar="ID")],
    as_user: options.AsUser = None,
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """Show a recording: what it is, its metadata, its transcripts, and what is said in it, with times."""
    out = Output(as_json)
    with opened(archive, as_user=as_user) as storage:
        recording = storage.get_recording(audio_id)
        versions = storage.transcripts(audio_id)
        followed = _followed(versions)
        segments = storage.segments(followed.id) if followed else []
    out.document(
        {
            **recording.as_dict(),
            "transcripts": [version.as_dict() for version in versions],
            "segments": [segment.as_dict() for segment in segments],
        }
    )
    _show_recording(recording, out)
    out.line()
    show_versions(versions, out)
    out.line()
    show_segments(segments, out)


def show_versions(versions: list[Transcript], out: Output) -> None:
    """A table of transcripts; the one that search follows is marked."""
    columns = ("", "transcript", "engine", "model", "language", "outcome", "confidence", "made", "text")
    out.table(columns, [_version_row(version) for version in versions], right=("transcript", "confidence"))


def show_segments(segments: list[Segment], out: Output) -> None:
    """What is said, a line per segment."""
    for segment in segments:
        speaker = f"{segment.speaker}: " if segment.speaker else ""
        out.styled((f"{clock(segment.start):>8}  ", "green"), (speaker + segment.text.strip(), ""))


def _followed(versions: list[Transcript]) -> Transcript | None:
    """The version that search follows, else the last one, which then says why there is none."""
    return next((version for version in versions if version.active), versions[-1] if versions else None)


def _brief(version: Transcript | None) -> dict[str, Any] | None:
    return None if version is None else version.as_dict()


def _row(recording: Recording, version: Transcript | None) -> tuple[Any, ...]:
    return (
        recording.id,
        moment(recording.recorded_at, recording.recorded_offset_minutes),
        clock(recording.duration),
        size(recording.file_size),
        recording.original_name,
        state(version),
        " ".join(f"{key}={value}" for key, value in recording.metadata.items()),
    )


def state(version: Transcript | None) -> str:
    """How a transcription ended, with its quality flags."""
    if version is None:
        return "none"
    return " ".join([version.outcome or "running", *(f"[{flag}]" for flag in version.flags)])


def _version_row(version: Transcript) -> tuple[Any, ...]:
    confidence = "" if version.confidence is None else f"{version.confidence:.2f}"
    return (
        "*" if version.active else "",
        version.id,
        version.engine,
        version.whisper_model,
        version.language,
        state(version),
        confidence,
        moment(version.created_at),
        shortened(version.reason or version.transcription, TEXT_WIDTH),
    )


def _show_recording(recording: Recording, out: Output) -> None:
    facts = {
        "recording": recording.id,
        "name": recording.original_name,
        "recorded": moment(recording.recorded_at, recording.recorded_offset_minutes),
        "stored": moment(recording.created_at),
        "length": clock(recording.duration),
        "sound": f"{recording.codec}, {recording.sample_rate} Hz, {recording.channels} channel(s)",
        "size": size(recording.file_size),
        "file": recording.file_path,
        "sha256": recording.file_hash,
    }
    for name, value in facts.items():
        out.styled((f"{name:>10}  ", "dim"), (str(value), ""))
    for warning in recording.warnings:
        out.styled((f"{'warning':>10}  ", "yellow"), (warning, ""))
    for key, value in recording.metadata.items():
        out.styled((f"{key:>10}  ", "cyan"), (str(value), ""))
