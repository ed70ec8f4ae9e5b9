"""`add`: files, folders and patterns into the archive."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audio_storage_system.cli import options
from audio_storage_system.cli.crowd import Enough, Stopping, exit_code_of, jobs_for, work_through
from audio_storage_system.cli.human import count
from audio_storage_system.cli.output import Output, say
from audio_storage_system.cli.paths import Candidate, Found, find_audio
from audio_storage_system.cli.progress import Progress
from audio_storage_system.cli.session import opened
from audio_storage_system.cli.values import parse_instant, parse_metadata
from audio_storage_system.errors import (
    AudioStorageSystemError,
    InvalidMetadata,
    MissingExtra,
    NotAudio,
    StorageFailed,
    UnknownSpec,
)
from audio_storage_system.settings import locate

if TYPE_CHECKING:
    from audio_storage_system import Added, AudioStorageSystem

logger = logging.getLogger(__name__)

# What has nothing to do with the file: every other one would fail in the same way.
HOPELESS = (StorageFailed, UnknownSpec, MissingExtra, InvalidMetadata)


class OnDuplicate(StrEnum):
    """What to do with a file whose bytes are stored already."""

    KEEP = "keep"
    UPDATE = "update"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Failure:
    """A path that did not make it, and why. `audio_id` where its sound was stored nevertheless."""

    path: str
    code: str
    message: str
    retryable: bool = False
    audio_id: int | None = None
    fatal: int | None = None  # the exit code, when going on with other files makes no sense

    def as_dict(self) -> dict[str, Any]:
        """As `--json` gives it."""
        stored = {} if self.audio_id is None else {"audio_id": self.audio_id}
        return {"path": self.path, "code": self.code, "message": self.message, "retryable": self.retryable, **stored}


@dataclass
class Report:
    """What became of everything that was to be added."""

    added: dict[Candidate, dict[str, Any]] = field(default_factory=dict)
    failed: list[Failure] = field(default_factory=list)
    ignored: int = 0
    exit_code: int = 0

    def note(self, candidate: Candidate, result: dict[str, Any] | Failure | None) -> str:
        """Take one result; what to say about it. `None`: it was no audio, and nobody had said it was."""
        if result is None:
            self.ignored += 1
            return "not audio, passed over"
        if isinstance(result, Failure):
            self.failed.append(result)
            return f"failed ({result.code})"
        self.added[candidate] = result
        return _in_words(result)

    def as_dict(self, order: list[Candidate]) -> dict[str, Any]:
        """As `--json` gives it, in the order of the files found."""
        added = [self.added[candidate] for candidate in order if candidate in self.added]
        return {"added": added, "failed": [failure.as_dict() for failure in self.failed], "ignored": self.ignored}


def add(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATHS…", help="Audio or video files, folders (with all that is below) and patterns."),
    ],
    metadata: options.MetadataValues = None,
    whisper_model: options.Model = None,
    language: options.Language = None,
    recorded_at: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="When it was recorded (ISO 8601), for files that do not say so themselves."),
    ] = None,
    on_duplicate: Annotated[
        OnDuplicate,
        typer.Option(help="For what is stored already: keep its metadata (adding new keys), update it, or fail."),
    ] = OnDuplicate.KEEP,
    no_transcribe: Annotated[bool, typer.Option("--no-transcribe", help="Store the audio and nothing else.")] = False,
    no_embeddings: options.NoEmbeddings = False,
    jobs: options.Jobs = 0,
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """Store files, transcribe them and make them searchable.

    What is stored already is skipped, and what was interrupted is finished. A file that fails does not stop the others;
    the exit code is 1 if any did.
    """
    given: dict[str, Any] = {
        "metadata": parse_metadata(metadata),
        "recorded_at": parse_instant("--recorded-at", recorded_at),
        "on_duplicate": on_duplicate.value,
    }
    if not no_transcribe:
        given |= {"whisper_model": whisper_model, "language": language, "generate_embeddings": not no_embeddings}
    found = find_audio(paths, locate(archive)[0])
    report = Report(failed=[Failure(path, "not_found", message) for path, message in found.failed])
    if found.candidates:
        jobs = jobs_for(jobs, len(found.candidates))
        with opened(archive, create=True, transcribe_at_once=jobs) as storage:
            method = storage.store_audio_file if no_transcribe else storage.add
            add_all(storage, method, given, found.candidates, jobs, report)
    _note_empty_folders(found, report)
    report.ignored += found.ignored
    show(report, found.candidates, Output(as_json))
    raise typer.Exit(report.exit_code or int(bool(report.failed)))


def add_all(
    storage: AudioStorageSystem,
    method: Callable[..., Added],
    given: dict[str, Any],
    candidates: list[Candidate],
    jobs: int,
    report: Report,
) -> None:
    """Add every candidate with `method`, noting in `report` what became of it. Ctrl-C ends it early with exit code 130,
    SIGTERM with 143."""
    stopping = Stopping()
    sizes = {candidate: _size(candidate.path) for candidate in candidates}
    with Progress(len(candidates), sum(sizes.values())) as progress:

        def work(candidate: Candidate) -> dict[str, Any] | Failure | None:
            def tick(seconds: float, total: float) -> None:
                stopping.check()
                progress.working(candidate.path.name, seconds, total)

            ticking = {"progress": tick} if "whisper_model" in given else {}
            return _add_one(storage, method, candidate, {**given, **ticking})

        def done(candidate: Candidate, result: dict[str, Any] | Failure | None) -> None:
            progress.done(candidate.path.name, report.note(candidate, result), sizes[candidate])
            if isinstance(result, Failure) and result.fatal:
                report.exit_code = result.fatal
                say("Stopped: the other files would fail in the same way.")
                raise Enough

        try:
            work_through(candidates, work, jobs=jobs, stopping=stopping, on_result=done)
        except KeyboardInterrupt as stop:
            report.exit_code = exit_code_of(stop)


def _add_one(
    storage: AudioStorageSystem, method: Callable[..., Added], candidate: Candidate, given: dict[str, Any]
) -> dict[str, Any] | Failure | None:
    path = str(candidate.path)
    try:
        added = method(candidate.path, **given)
        name = storage.get_recording(added).original_name
        return {**added.as_dict(), "original_name": name, "path": path}
    except NotAudio as error:
        return _failure(path, error) if candidate.certain else None
    except AudioStorageSystemError as error:
        return _failure(path, error)
    except Exception as error:  # one file must not end a run over thousands; it is told as what it is
        logger.debug("adding %s", path, exc_info=True)
        return Failure(path, "unexpected", f"{type(error).__name__}: {error}")


def _failure(path: str, error: AudioStorageSystemError) -> Failure:
    outcome = error.details.get("outcome")
    return Failure(
        path,
        error.code,
        error.message,
        retryable=outcome.retryable if outcome is not None else error.retryable,
        audio_id=error.details.get("audio_id"),
        fatal=error.exit_code if isinstance(error, HOPELESS) else None,
    )


def _note_empty_folders(found: Found, report: Report) -> None:
    told = {candidate.folder for candidate in report.added}
    told |= {candidate.folder for candidate in found.candidates if candidate.certain}
    for folder in found.folders:
        if folder not in told and not report.exit_code:
            report.failed.append(Failure(folder, "no_audio", f"There is no audio in the folder {folder}"))


def show(report: Report, order: list[Candidate], out: Output) -> None:
    """The results on stdout, what failed on stderr."""
    out.document(report.as_dict(order))
    for candidate in order:
        if candidate in report.added:
            result = report.added[candidate]
            out.line(f"{result['audio_id']:>6}  {result['original_name']}  {_in_words(result)}")
    for failure in report.failed:
        say(f"Failed: {failure.path}: {failure.message}")
    out.line(_summary(report))


def _summary(report: Report) -> str:
    stored = sum(not result["duplicate"] for result in report.added.values())
    known = len(report.added) - stored
    parts = [f"{stored} added"]
    parts += [f"{known} stored before"] if known else []
    parts += [f"{len(report.failed)} failed"] if report.failed else []
    parts += [f"{count(report.ignored, 'other file')} passed over"] if report.ignored else []
    parts += ["stopped before the end"] if report.exit_code else []
    return ", ".join(parts)


def _in_words(result: dict[str, Any]) -> str:
    outcome = {None: "stored", "ok": "transcribed", "silence": "no speech in it"}.get(result["outcome"])
    words = outcome or str(result["outcome"])
    return f"{words} (stored before)" if result["duplicate"] else words


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # what is wrong with it will be told when it is opened
        return 0
