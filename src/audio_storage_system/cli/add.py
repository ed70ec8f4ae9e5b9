"""`add`: files, folders and patterns into the archive."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audio_storage_system.cli import options
from audio_storage_system.cli.crowd import Enough, Stopping, exit_code_of, jobs_for, work_through
from audio_storage_system.cli.options import OnDuplicate, PriorityChoice
from audio_storage_system.cli.output import Output, say
from audio_storage_system.cli.paths import Candidate, Found, find_audio
from audio_storage_system.cli.preview import preview
from audio_storage_system.cli.progress import Progress
from audio_storage_system.cli.report import Failure, Report, failure_of, show
from audio_storage_system.cli.session import opened
from audio_storage_system.errors import AudioStorageSystemError, InvalidInput, NotAudio
from audio_storage_system.notation import parse_instant, parse_metadata
from audio_storage_system.settings import locate

if TYPE_CHECKING:
    from audio_storage_system import AudioStorageSystem

KEY_FILE_BYTES = 4096

logger = logging.getLogger(__name__)


def add(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATHS…", help="Audio or video files, folders (with all that is below) and patterns."),
    ],
    metadata: options.MetadataValues = None,
    whisper_model: options.Model = None,
    language: options.Language = None,
    recorded_at: options.RecordedAt = None,
    on_duplicate: options.WhenDuplicate = OnDuplicate.KEEP,
    no_transcribe: options.NoTranscribe = False,
    no_embeddings: options.NoEmbeddings = False,
    background: options.Background = False,
    priority: options.PriorityName = None,
    jobs: options.Jobs = 0,
    fernet_key_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The files are encrypted with Fernet; this one holds the key."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Tell what would be added, what is stored already, what is no audio. Only read."
        ),
    ] = False,
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """Store files, transcribe them and make them searchable.

    What is stored already is skipped, and what was interrupted is finished. A file that fails does not stop the others;
    the exit code is 1 if any did. With --background only storing is done here; see: audio-storage worker.
    """
    how = How.asked(metadata, whisper_model, language, recorded_at, on_duplicate, no_transcribe, no_embeddings)
    how = how.in_background(background, priority).decrypting(fernet_key_file)
    found = find_audio(paths, locate(archive)[0])
    report = Report(failed=[Failure(path, "not_found", message, tried=False) for path, message in found.failed])
    report.ignored += found.ignored
    if dry_run:
        raise typer.Exit(preview(found, report, archive, jobs, Output(as_json)))
    if found.candidates:
        jobs = jobs_for(jobs, len(found.candidates))
        with opened(archive, create=True, transcribe_at_once=jobs) as storage:
            add_all(storage, how, found.candidates, jobs, report)
    note_empty_folders(found, report)
    show(report, found.candidates, Output(as_json))
    raise typer.Exit(report.exit_code or int(bool(report.failed)))


@dataclass(frozen=True, slots=True)
class How:
    """How files are to be added: transcribed or only stored, and with what arguments."""

    arguments: dict[str, Any]
    transcribed: bool
    background: bool = False

    @classmethod
    def asked(
        cls,
        metadata: list[str] | None,
        whisper_model: str | None,
        language: str | None,
        recorded_at: str | None,
        on_duplicate: OnDuplicate,
        no_transcribe: bool,
        no_embeddings: bool,
    ) -> How:
        """As the command's options say. Raises `InvalidInput`."""
        given: dict[str, Any] = {
            "metadata": parse_metadata(metadata),
            "recorded_at": parse_instant("--recorded-at", recorded_at),
            "on_duplicate": on_duplicate.value,
        }
        if not no_transcribe:
            given |= {"whisper_model": whisper_model, "language": language, "generate_embeddings": not no_embeddings}
        return cls(given, not no_transcribe)

    def in_background(self, wanted: bool, priority: PriorityChoice | None) -> How:
        """The same, with all but storing left to workers. Raises `InvalidInput` for what does not go together."""
        if wanted and not self.transcribed:
            raise InvalidInput(reason="--no-transcribe leaves nothing to do in the background")
        if priority and not wanted:
            raise InvalidInput(reason="--priority is for --background")
        if not wanted:
            return self
        return replace(self, background=True, arguments={**self.arguments, "priority": priority or "normal"})

    def decrypting(self, key_file: Path | None) -> How:
        """The same, for files that are encrypted with the key in this file. Raises `InvalidInput`."""
        if key_file is None:
            return self
        if self.background or not self.transcribed:
            raise InvalidInput(reason="--fernet-key-file goes with neither --background nor --no-transcribe")
        return replace(self, arguments={**self.arguments, "fernet_key": read_small_file(key_file)})

    def add(self, storage: AudioStorageSystem, path: Path, progress: Callable[[float, float], None]) -> dict[str, Any]:
        """Add one file; what became of it."""
        if self.background:
            job = storage.submit(path, **self.arguments)
            said = next((version for version in storage.transcripts(job.audio_id or 0) if version.active), None)
            about = {"transcript_id": said.id if said else None, "outcome": said.outcome if said else None}
            return {"audio_id": job.audio_id, "duplicate": job.duplicate, **about, "job_id": job.id}
        if self.transcribed:
            return storage.add(path, progress=progress, **self.arguments).as_dict()
        return storage.store_audio_file(path, **self.arguments).as_dict()


def add_all(storage: AudioStorageSystem, how: How, candidates: list[Candidate], jobs: int, report: Report) -> None:
    """Add every candidate, noting in `report` what became of it. Ctrl-C ends it early, exit code 130."""
    stopping = Stopping()
    sizes = {candidate: _size(candidate.path) for candidate in candidates}
    with Progress(len(candidates), sum(sizes.values())) as progress:

        def work(candidate: Candidate) -> dict[str, Any] | Failure | None:
            def tick(seconds: float, total: float) -> None:
                stopping.check()
                progress.working(candidate.path.name, seconds, total)

            return add_one(storage, how, candidate, tick)

        def done(candidate: Candidate, result: dict[str, Any] | Failure | None) -> None:
            said = report.note(candidate, result)
            progress.done(candidate.path.name, said, sizes[candidate], report.remarks())
            if isinstance(result, Failure) and result.fatal:
                report.exit_code = result.fatal
                say("Stopped: the other files would fail in the same way.")
                raise Enough

        try:
            work_through(candidates, work, jobs=jobs, stopping=stopping, on_result=done)
        except KeyboardInterrupt as stop:
            report.exit_code = exit_code_of(stop)
    if how.background and report.added and not storage.jobs.is_idle() and not storage.jobs.workers():
        report.waits = True


def add_one(
    storage: AudioStorageSystem, how: How, candidate: Candidate, tick: Callable[[float, float], None]
) -> dict[str, Any] | Failure | None:
    """Add one file; what became of it. `None`: it is no audio, and nobody had said it was."""
    path = str(candidate.path)
    try:
        added = how.add(storage, candidate.path, tick)
        stored = storage.get_recording(added["audio_id"])
        named = {"original_name": stored.original_name, "file_hash": stored.file_hash, "path": path}
        return {**added, **named}
    except NotAudio as error:
        return failure_of(path, error) if candidate.certain else None
    except AudioStorageSystemError as error:
        return failure_of(path, error)
    except Exception as error:  # one file must not end a run over thousands; it is told as what it is
        logger.debug("adding %s", path, exc_info=True)
        return Failure(path, "unexpected", f"{type(error).__name__}: {error}")


def note_empty_folders(found: Found, report: Report) -> None:
    """Let a folder without audio be a failure."""
    told = {candidate.folder for candidate in report.added}
    told |= {candidate.folder for candidate in found.candidates if candidate.certain}
    for folder in found.folders:
        if folder not in told and not report.exit_code:
            report.failed.append(Failure(folder, "no_audio", f"There is no audio in the folder {folder}"))


def read_small_file(path: Path) -> bytes:
    """What is in a file that holds a key. Raises `InvalidInput`."""
    try:
        with path.open("rb") as file:
            return file.read(KEY_FILE_BYTES).strip()
    except OSError as error:
        raise InvalidInput(reason=f"The key file {path} cannot be read: {error.strerror}") from error


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # what is wrong with it will be told when it is opened
        return 0
