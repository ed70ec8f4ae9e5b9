"""`retranscribe`: new versions of what is said."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audio_storage_system.cli import options
from audio_storage_system.cli.crowd import Enough, Stopping, exit_code_of, jobs_for, work_through
from audio_storage_system.cli.output import Output, say
from audio_storage_system.cli.progress import Progress
from audio_storage_system.cli.session import opened
from audio_storage_system.cli.values import parse_where
from audio_storage_system.errors import AudioStorageSystemError, InvalidInput, MissingExtra, UnknownSpec

if TYPE_CHECKING:
    from audio_storage_system import AudioStorageSystem
    from audio_storage_system.records import Recording


@dataclass
class Report:
    """What became of every recording; the failures with their errors."""

    done: list[dict[str, Any]] = field(default_factory=list)
    failed: list[dict[str, Any]] = field(default_factory=list)
    exit_code: int = 0


def retranscribe(
    audio_ids: Annotated[list[int] | None, typer.Argument(metavar="[IDS…]")] = None,
    where: options.Where = None,
    whisper_model: options.Model = None,
    language: options.Language = None,
    jobs: options.Jobs = 0,
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """Transcribe recordings again, as new versions that search then follows; the old ones stay.

    --where engine=pocketsphinx redoes what the fallback transcribed. What has a transcript already is never given
    another one by the fallback.
    """
    if not audio_ids and not where:
        raise InvalidInput(reason="Name recordings by their ids or by --where")
    conditions = parse_where(where)
    out, report = Output(as_json), Report()
    with opened(archive) as storage:
        chosen = _choose(storage, audio_ids or [], conditions)
    jobs = jobs_for(jobs, len(chosen))
    with opened(archive, transcribe_at_once=jobs) as storage:
        _redo_all(storage, chosen, {"whisper_model": whisper_model, "language": language}, jobs, report)
    out.document({"transcribed": report.done, "failed": report.failed})
    for made in report.done:
        out.line(
            f"{made['audio_id']:>6}  {made['original_name']}  transcript {made['transcript_id']} {made['outcome']}"
        )
    for failure in report.failed:
        say(f"Failed: recording {failure['audio_id']}: {failure['message']}")
    out.line(f"{len(report.done)} transcribed, {len(report.failed)} failed")
    raise typer.Exit(report.exit_code or int(bool(report.failed)))


def _choose(storage: AudioStorageSystem, audio_ids: list[int], conditions: dict[str, Any]) -> list[Recording]:
    if not audio_ids:
        return storage.list_recordings(where=conditions)
    named = [storage.get_recording(audio_id) for audio_id in dict.fromkeys(audio_ids)]
    if not conditions:
        return named
    meeting = {recording.id for recording in storage.list_recordings(where=conditions)}
    return [recording for recording in named if recording.id in meeting]


def _redo_all(
    storage: AudioStorageSystem, chosen: list[Recording], given: dict[str, Any], jobs: int, report: Report
) -> None:
    stopping = Stopping()
    with Progress(len(chosen), sum(recording.duration or 0 for recording in chosen)) as progress:

        def work(recording: Recording) -> dict[str, Any]:
            def tick(seconds: float, total: float) -> None:
                stopping.check()
                progress.working(recording.original_name, seconds, total)

            return _redo(storage, recording, {**given, "progress": tick})

        def done(recording: Recording, result: dict[str, Any]) -> None:
            failed = "code" in result
            (report.failed if failed else report.done).append(result)
            outcome = result["message"] if failed else result["outcome"]
            progress.done(recording.original_name, outcome, recording.duration or 0)
            if failed and result["outcome"] == "engine_unavailable":
                say("Stopped: the others would fail in the same way.")
                raise Enough

        try:
            work_through(chosen, work, jobs=jobs, stopping=stopping, on_result=done)
        except KeyboardInterrupt as stop:
            report.exit_code = exit_code_of(stop)


def _redo(storage: AudioStorageSystem, recording: Recording, given: dict[str, Any]) -> dict[str, Any]:
    try:
        said = any(version.active for version in storage.transcripts(recording.id))
        transcript_id = storage.generate_transcript(recording.id, allow_fallback=not said, **given)
        storage.generate_embeddings(recording.id, transcript_id)
        version = storage.get_transcript(transcript_id)
    except (UnknownSpec, MissingExtra):  # a mistake in the command, not in this recording
        raise
    except AudioStorageSystemError as error:
        outcome = error.details.get("outcome")
        told = error.as_dict() if outcome is None else {**error.as_dict(), "retryable": outcome.retryable}
        return {"audio_id": recording.id, **told, "outcome": outcome}
    return {
        "audio_id": recording.id,
        "original_name": recording.original_name,
        "transcript_id": transcript_id,
        "outcome": version.outcome,
        "active": version.active,
    }
