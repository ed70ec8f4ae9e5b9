"""`jobs`: what is done in the background, and what became of it."""

from __future__ import annotations

import time
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audio_storage_system.cli import options
from audio_storage_system.cli.human import clock, count, moment, shortened
from audio_storage_system.cli.output import Output, say
from audio_storage_system.cli.session import opened
from audio_storage_system.errors import InvalidInput

if TYPE_CHECKING:
    from audio_storage_system import AudioStorageSystem
    from audio_storage_system.records import Job

app = typer.Typer(help="Jobs in the background, which workers do (see: audio-storage worker).")

FOLLOW_SECONDS = 1.0
REASON_WIDTH = 60

SomeJobIds = Annotated[list[int] | None, typer.Argument(metavar="[JOBS…]", help="Their ids.")]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on showing until all have ended; Ctrl-C ends it.")]


class State(StrEnum):
    """The states of a job, as options."""

    WAITING = "waiting"
    RUNNING = "running"
    DELAYED = "delayed"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@app.command("list")
def list_jobs(
    state: Annotated[State | None, typer.Option(help="Only jobs in this state.")] = None,
    recording: Annotated[int | None, typer.Option(metavar="ID", help="Only jobs of this recording.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="How many; 0: all.")] = 50,
    offset: Annotated[int, typer.Option(min=0, help="How many to leave out.")] = 0,
    follow: Follow = False,
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """List jobs, the latest first, and count all of them."""
    out = Output(as_json)
    with opened(archive) as storage:
        if follow:
            _follow(storage, None)
        wanted = state.value if state else None
        found = storage.jobs.find(wanted, audio_id=recording, limit=limit or None, offset=offset)
        counts, workers = storage.jobs.counts(), storage.jobs.workers()
        names = _names(storage, found)
    out.document(
        {
            "jobs": [job.as_dict() for job in found],
            "counts": counts,
            "workers": [worker.as_dict() for worker in workers],
        }
    )
    columns = ("job", "state", "step", "recording", "name", "progress", "worker", "reason")
    out.table(columns, [_row(job, names) for job in found], right=("job", "recording"))
    out.line(_in_words(counts, len(workers)))


@app.command("show")
def show_job(
    job_id: Annotated[int, typer.Argument(metavar="JOB")],
    follow: Follow = False,
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """Show one job: what it is to do, where it is, and why it failed."""
    out = Output(as_json)
    with opened(archive) as storage:
        if follow:
            _follow(storage, [job_id])
        job = storage.jobs.get(job_id)
    out.document(job.as_dict())
    for name, value in _facts(job):
        out.line(f"{name:<12}{value}")


@app.command("cancel")
def cancel_jobs(
    job_ids: SomeJobIds = None,
    every: Annotated[bool, typer.Option("--all", help="Every job that has not ended.")] = False,
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """End jobs before they are done. What they have stored stays: the recording, and what of it was transcribed."""
    out = Output(as_json)
    with opened(archive) as storage:
        ended = storage.jobs.cancel(*_chosen(storage, job_ids, "--all", every))
    out.document({"cancelled": [job.as_dict() for job in ended]})
    for job in ended:
        stays = "" if job.audio_id is None else f" Recording {job.audio_id} stays stored."
        out.line(f"Cancelled job {job.id}.{stays}")
    out.line(f"{count(len(ended), 'job')} cancelled")


@app.command("retry")
def retry_jobs(
    job_ids: SomeJobIds = None,
    failed: Annotated[bool, typer.Option("--failed", help="Every job that failed.")] = False,
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """Let jobs that failed or were cancelled go on where they ended."""
    out = Output(as_json)
    with opened(archive) as storage:
        again = storage.jobs.retry(*_chosen(storage, job_ids, "--failed", failed, "failed"))
    out.result({"queued": [job.as_dict() for job in again]}, f"{count(len(again), 'job')} queued again")


@app.command("follow")
def follow_jobs(
    job_ids: SomeJobIds = None, archive: options.ArchivePlace = None, as_json: options.AsJson = False
) -> None:
    """Show how jobs go on until all have ended (default: every job). The exit code is 1 if one of those named failed.

    Ctrl-C ends the showing, not the jobs."""
    out = Output(as_json)
    with opened(archive) as storage:
        _follow(storage, job_ids or None)
        ended = [storage.jobs.get(job_id) for job_id in job_ids or []]
        counts = storage.jobs.counts()
    out.result({"jobs": [job.as_dict() for job in ended], "counts": counts}, _in_words(counts, None))
    raise typer.Exit(int(any(job.state != "done" for job in ended)))


def _chosen(
    storage: AudioStorageSystem, job_ids: list[int] | None, option: str, every: bool, state: str | None = None
) -> list[int]:
    if bool(job_ids) == every:
        raise InvalidInput(reason=f"Name jobs by their ids, or give {option}; not both")
    if job_ids:
        return job_ids
    return [job.id for job in storage.jobs.find(state, limit=None) if state or not job.state.ended]


def _follow(storage: AudioStorageSystem, job_ids: list[int] | None) -> None:
    """Tell on stderr whenever something changed, until these jobs (default: all) have ended."""
    said = ""
    while True:
        if job_ids is None:
            counts = storage.jobs.counts()
            words, over = _in_words(counts, len(storage.jobs.workers())), not counts["unfinished"]
        else:
            jobs = [storage.jobs.get(job_id) for job_id in job_ids]
            words, over = "; ".join(map(_briefly, jobs)), all(job.state.ended for job in jobs)
        if words != said:
            say(words)
            said = words
        if over:
            return
        time.sleep(FOLLOW_SECONDS)


def _in_words(counts: dict[str, int], workers: int | None) -> str:
    parts = [f"{counts['unfinished']} to do", f"{counts['done']} done"]
    parts += [f"{counts[name]} {name}" for name in ("failed", "cancelled") if counts[name]]
    parts += [] if workers is None else [count(workers, "worker")]
    hint = "; start one with: audio-storage worker" if workers == 0 and counts["unfinished"] else ""
    return ", ".join(parts) + hint


def _names(storage: AudioStorageSystem, found: list[Job]) -> dict[int, str]:
    wanted = {job.audio_id for job in found if job.audio_id is not None}
    recordings = storage.list_recordings(where={"audio_id": {"in": sorted(wanted)}}) if wanted else []
    return {recording.id: recording.original_name for recording in recordings}


def _row(job: Job, names: dict[int, str]) -> tuple[Any, ...]:
    name = names.get(job.audio_id or 0, "")
    reason = shortened(job.reason or "", REASON_WIDTH)
    return job.id, job.state, job.step, job.audio_id, shortened(name, 32), _progress(job), job.worker, reason


def _progress(job: Job) -> str:
    if job.until is not None:
        return f"again {moment(job.until)}"
    if not job.seconds:
        return ""
    return f"{clock(job.seconds_done)} of {clock(job.seconds)}"


def _briefly(job: Job) -> str:
    progress = _progress(job)
    ended = job.reason if job.state == "failed" else None
    return (
        f"Job {job.id}: {job.state}"
        + (f", {job.step}" if not job.state.ended else "")
        + (f" {progress}" if progress else "")
        + (f": {ended}" if ended else "")
    )


def _facts(job: Job) -> list[tuple[str, Any]]:
    facts = [
        ("job", job.id),
        ("kind", job.kind),
        ("recording", job.audio_id),
        ("state", job.state.value),
        ("step", job.step),
        ("progress", _progress(job)),
        ("worker", job.worker),
        ("priority", job.priority.name.lower()),
        ("failures", job.failures or None),
        ("reason", job.reason),
        ("options", ", ".join(f"{name}={value}" for name, value in job.options.items())),
        ("given", moment(job.created_at)),
        ("changed", moment(job.updated_at)),
    ]
    return [(name, value) for name, value in facts if value not in (None, "")]
