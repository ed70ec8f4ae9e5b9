"""`transcripts import`: transcripts that exist already, with their audio."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audio_storage_system.cli import options
from audio_storage_system.cli.crowd import Enough, Stopping, exit_code_of, jobs_for, work_through
from audio_storage_system.cli.human import count
from audio_storage_system.cli.output import Output, say
from audio_storage_system.cli.pairs import Pair, Pairs, find_pairs
from audio_storage_system.cli.progress import Progress
from audio_storage_system.cli.report import Failure, bounded, failure_of
from audio_storage_system.cli.session import opened
from audio_storage_system.errors import AudioStorageSystemError, InvalidInput
from audio_storage_system.notation import parse_metadata
from audio_storage_system.settings import locate

if TYPE_CHECKING:
    from audio_storage_system import AudioStorageSystem

logger = logging.getLogger(__name__)
SEE_ALL = "see all of them with --json"
Result = dict[str, Any] | Failure


@dataclass
class Report:
    """What became of every transcript."""

    done: list[dict[str, Any]] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    exit_code: int = 0


def import_transcripts(
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILES…", help="Transcripts (srt, vtt, tsv, json), folders with them, and patterns."),
    ],
    audio: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The recording they belong to (default: the one called like it)."),
    ] = None,
    audio_id: Annotated[int | None, typer.Option(metavar="ID", help="The stored recording they belong to.")] = None,
    language: options.Language = None,
    metadata: options.MetadataValues = None,
    activate: Annotated[
        bool, typer.Option("--activate", help="Let search follow them; else only where it follows none so far.")
    ] = False,
    no_embeddings: options.NoEmbeddings = False,
    jobs: options.Jobs = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and show the pairs, and store nothing.")] = False,
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """Store transcripts that exist already, with their audio.

    meeting.srt, meeting.en.vtt and meeting.json belong to meeting.mp3 beside them; of several in a folder for one
    recording and language the one that tells most is taken. The same file again makes nothing new.
    """
    if audio is not None and audio_id is not None:
        raise InvalidInput(reason="Give --audio or --audio-id, not both")
    given = {
        "language": language,
        "metadata": parse_metadata(metadata),
        "activate": True if activate else None,
        "generate_embeddings": not no_embeddings,
    }
    found = find_pairs(files, locate(archive)[0].resolve(), audio_id if audio is None else audio)
    report = Report(failed=[Failure(*failure) for failure in found.failed])
    if dry_run:
        _check_all(found, report)
    elif found.pairs:
        with opened(archive, create=audio_id is None) as storage:
            _import_all(storage, found, given, jobs, report)
    _show(found, report, Output(as_json), dry_run)
    raise typer.Exit(report.exit_code or int(bool(report.failed)))


def _check_all(found: Pairs, report: Report) -> None:
    from audio_storage_system.formats.reading import last_end, read_file

    for pair in found.pairs:
        try:
            file = read_file(pair.transcript)
        except InvalidInput as error:
            report.failed.append(failure_of(str(pair.transcript), error))
            continue
        facts = {"segments": len(file.segments), "seconds": last_end(file.segments), "model": file.model}
        told = {"language": pair.language or file.language, "warnings": list(file.warnings)}
        report.done.append({**_names(pair), **facts, **told})


def _import_all(storage: AudioStorageSystem, found: Pairs, given: dict[str, Any], jobs: int, report: Report) -> None:
    groups, stopping = found.by_audio(), Stopping()
    with Progress(len(groups), len(groups)) as progress:

        def work(group: list[Pair]) -> list[Result]:
            return [_import_one(storage, pair, given) for pair in group]

        def done(group: list[Pair], results: list[Result]) -> None:
            for result in results:
                _note(report, result)
            remarks = f"{len(report.failed):,} failed" if report.failed else ""
            progress.done(group[0].transcript.name, _in_words(results[0]), 1, remarks)
            if report.exit_code:
                say("Stopped: the other files would fail in the same way.")
                raise Enough

        try:
            work_through(groups, work, jobs=jobs_for(jobs, len(groups)), stopping=stopping, on_result=done)
        except KeyboardInterrupt as stop:
            report.exit_code = exit_code_of(stop)


def _import_one(storage: AudioStorageSystem, pair: Pair, given: dict[str, Any]) -> Result:
    try:
        wanted = {**given, "language": given["language"] or pair.language}
        made = storage.import_transcript(pair.audio, pair.transcript, **wanted)
    except AudioStorageSystemError as error:
        return failure_of(str(pair.transcript), error)
    except Exception as error:  # one file must not end a run over thousands; it is told as what it is
        logger.debug("importing %s", pair.transcript, exc_info=True)
        return Failure(str(pair.transcript), "unexpected", f"{type(error).__name__}: {error}")
    return {**_names(pair), **made.as_dict()}


def _names(pair: Pair) -> dict[str, Any]:
    audio = {"audio_id": pair.audio} if isinstance(pair.audio, int) else {"audio": str(pair.audio)}
    return {"transcript": str(pair.transcript), **audio}


def _note(report: Report, result: Result) -> None:
    if not isinstance(result, Failure):
        report.done.append(result)
        return
    report.failed.append(result)
    report.exit_code = result.fatal or report.exit_code


def _in_words(result: Result) -> str:
    if isinstance(result, Failure):
        return f"failed ({result.code})"
    state = "imported before" if result["known"] else f"{count(result['segments'], 'segment')} imported"
    return state if result["active"] else f"{state}, not active"


def _show(found: Pairs, report: Report, out: Output, dry_run: bool) -> None:
    done = "would_import" if dry_run else "imported"
    out.document(
        {
            done: report.done,
            "failed": [failure.as_dict() for failure in report.failed],
            "without_audio": [str(path) for path in found.without_audio],
            "without_transcript": [str(path) for path in found.without_transcript],
            "passed_over": [{"transcript": str(path), "instead": str(other)} for path, other in found.passed_over],
            **({"dry_run": True} if dry_run else {}),
        }
    )
    for line in bounded([_line(result, dry_run) for result in report.done], sys.stdout.isatty(), SEE_ALL):
        out.line(line)
    remarks = [f"{result['transcript']}: {warning}" for result in report.done for warning in result["warnings"]]
    remarks += [f"No recording beside {path}" for path in found.without_audio]
    remarks += [f"No transcript beside {path}" for path in found.without_transcript]
    remarks += [f"Passed over {path}: {other.name} says more" for path, other in found.passed_over]
    failures = [f"Failed: {failure.path}: {failure.message}" for failure in report.failed]
    for lines in (remarks, failures):
        for line in bounded(lines, sys.stderr.isatty(), SEE_ALL):
            say(line)
    out.line(_summary(found, report, dry_run))


def _line(result: dict[str, Any], dry_run: bool) -> str:
    what = f"{count(result['segments'], 'segment')}" if dry_run else _in_words(result)
    place = f"{result['audio_id']:>6}  " if "audio_id" in result else ""
    return f"{place}{result['transcript']} + {result.get('audio') or 'recording'}  {what}"


def _summary(found: Pairs, report: Report, dry_run: bool) -> str:
    known = sum(result.get("known", False) for result in report.done)
    verb = "would be imported" if dry_run else "imported"
    parts = [f"{len(report.done) - known:,} {verb}"]
    parts += [f"{known:,} imported before"] if known else []
    parts += [f"{len(report.failed):,} failed"] if report.failed else []
    parts += [f"{len(found.without_audio):,} without a recording"] if found.without_audio else []
    parts += [f"{len(found.without_transcript):,} without a transcript"] if found.without_transcript else []
    parts += [f"{len(found.passed_over):,} passed over"] if found.passed_over else []
    parts += ["stopped before the end"] if report.exit_code else []
    return ", ".join(parts)
