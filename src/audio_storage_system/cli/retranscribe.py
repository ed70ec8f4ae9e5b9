"""`retranscribe`: new versions of what is said."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audio_storage_system.cli import options
from audio_storage_system.cli.crowd import MAX_JOBS, Enough, Stopping, exit_code_of, jobs_for, work_through
from audio_storage_system.cli.human import clock, count
from audio_storage_system.cli.output import Output, say
from audio_storage_system.cli.progress import Progress
from audio_storage_system.cli.session import opened
from audio_storage_system.cli.transcripts import show_difference
from audio_storage_system.errors import AudioStorageSystemError, InvalidInput, MissingExtra, UnknownSpec
from audio_storage_system.notation import parse_where

if TYPE_CHECKING:
    from audio_storage_system import AudioStorageSystem
    from audio_storage_system.records import Recording

# Of a difference that is asked about.
SHOWN_CHANGES = 10


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
    activate: Annotated[
        str | None,
        typer.Option(
            metavar="RULE",
            help="When searches follow the new version: always, if-better or never; default: always, but the "
            "fallback's never instead of another engine's.",
        ),
    ] = None,
    background: options.Background = False,
    priority: options.PriorityName = None,
    jobs: options.Jobs = 0,
    dry_run: options.DryRun = False,
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """Transcribe recordings again, as new versions that search then follows; the old ones stay.

    --where engine=pocketsphinx redoes what the fallback transcribed. What has a transcript already is never given
    another one by the fallback.

    --activate if-better compares: versions of one engine and model by how sure it was; those of different ones by how
    far they agree. Where only a person can tell, it shows the difference and asks, or leaves the old one active.
    """
    if priority and not background:
        raise InvalidInput(reason="--priority is for --background")
    if not audio_ids and not where:
        raise InvalidInput(reason="Name recordings by their ids or by --where")
    conditions = parse_where(where)
    out, report = Output(as_json), Report()
    from audio_storage_system.pipeline import rule_of

    given = {"whisper_model": whisper_model, "language": language, "activate": rule_of(activate)}
    with opened(archive, transcribe_at_once=jobs_for(jobs, len(audio_ids or []) or MAX_JOBS)) as storage:
        chosen = _choose(storage, audio_ids or [], conditions)
        if dry_run:
            _show_plan(chosen, out)
            return
        if background:
            _submit_all(storage, chosen, {**given, "priority": priority or "normal"}, out)
            return
        _redo_all(storage, chosen, given, jobs_for(jobs, len(chosen)), report)
        if out.asks and not report.exit_code:
            _ask_all(storage, report, out)
    out.document({"transcribed": report.done, "failed": report.failed})
    for made in report.done:
        out.line(_in_words(made, explained=activate is not None))
    for failure in report.failed:
        say(f"Failed: recording {failure['audio_id']}: {failure['message']}")
    out.line(f"{len(report.done)} transcribed, {len(report.failed)} failed")
    raise typer.Exit(report.exit_code or int(bool(report.failed)))


def _submit_all(storage: AudioStorageSystem, chosen: list[Recording], given: dict[str, Any], out: Output) -> None:
    """Leave it to workers. Nobody can be asked there: where only a person can tell, the present version stays."""
    made = storage.retranscribe([recording.id for recording in chosen], **given)
    out.result(
        {"queued": [job.as_dict() for job in made]}, f"{count(len(made), 'job')} queued; see: audio-storage jobs list"
    )


def _show_plan(chosen: list[Recording], out: Output) -> None:
    seconds = sum(recording.duration or 0 for recording in chosen)
    recordings = [{"audio_id": r.id, "original_name": r.original_name, "duration": r.duration} for r in chosen]
    out.document({"dry_run": True, "recordings": recordings, "seconds": seconds})
    for recording in chosen:
        out.line(f"{recording.id:>6}  {recording.original_name}  {clock(recording.duration)}")
    out.line(f"{count(len(chosen), 'recording')} ({clock(seconds)} of sound) would be transcribed")


def _in_words(made: dict[str, Any], *, explained: bool) -> str:
    told = f"{made['audio_id']:>6}  {made['original_name']}  transcript {made['transcript_id']} {made['outcome']}"
    decision = made["decision"]
    if decision is None or (made["active"] and not explained):
        return told
    if made["active"]:
        return f"{told}, followed by searches ({decision['reason']})"
    hint = f"; to activate it: audio-storage transcripts activate {made['transcript_id']}"
    return f"{told}, not active ({decision['reason']}){hint}"


def _ask_all(storage: AudioStorageSystem, report: Report, out: Output) -> None:
    """Where only a person can tell: show how the two differ, and do as told."""
    for made in report.done:
        decision = made["decision"]
        if decision is None or not decision["asks"]:
            continue
        present = next((v for v in storage.transcripts(made["audio_id"]) if v.active), None)
        if present is None or present.id == made["transcript_id"]:
            continue
        out.line(f"{made['original_name']}: {decision['reason']}")
        show_difference(storage.diff_transcripts(present.id, made["transcript_id"]), out, most=SHOWN_CHANGES)
        if typer.confirm(f"Let searches follow transcript {made['transcript_id']}?", default=False):
            storage.activate_transcript(made["transcript_id"])
            made["active"], made["decision"] = True, {"follow": True, "reason": "as answered", "asks": False}


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
        made = storage.generate_transcript(recording.id, allow_fallback=not said, **given)
        transcript_id = int(made)
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
        "decision": made.decision.as_dict() if made.decision else None,
    }
