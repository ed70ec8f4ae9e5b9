"""`add --dry-run`: what would be added, what is stored already, what is no audio."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import audio_storage_system
from audio_storage_system.cli.crowd import Stopping, jobs_for, work_through
from audio_storage_system.cli.human import clock, count, size
from audio_storage_system.cli.output import Output, say
from audio_storage_system.cli.paths import Candidate, Found
from audio_storage_system.cli.progress import Progress
from audio_storage_system.cli.report import Failure, Report, bounded, failure_of
from audio_storage_system.cli.session import opened
from audio_storage_system.errors import AudioStorageSystemError, NotAudio
from audio_storage_system.settings import load_settings, locate

if TYPE_CHECKING:
    from audio_storage_system.archive.examining import Examined

    Examine = Callable[[Path], Examined]


@dataclass
class Preview:
    """What would become of the files: new ones by their hash, in the order they were found."""

    report: Report
    found: dict[Candidate, Examined | None] = field(default_factory=dict)  # those not reached are `None`

    def sorted_out(self) -> tuple[list[Examined], list[dict[str, Any]]]:
        """What would be added, and what is a duplicate of something stored or of another file here."""
        new: dict[str, Examined] = {}
        known: list[dict[str, Any]] = []
        for item in filter(None, self.found.values()):
            if item.audio_id is not None:
                known.append({"path": str(item.path), "audio_id": item.audio_id})
            elif item.file_hash in new:
                known.append({"path": str(item.path), "same_as": str(new[item.file_hash].path)})
            else:
                new[item.file_hash] = item
        return list(new.values()), known


def preview(found: Found, report: Report, place: str | None, jobs: int, out: Output) -> int:
    """Read every file and tell; the exit code. Writes nothing and makes no archive."""
    view = Preview(report, dict.fromkeys(found.candidates))
    with ExitStack() as stack:
        _examine_all(view, _examiner(place, stack), jobs)
    _show(view, out)
    return report.exit_code or int(bool(report.failed))


def _examiner(place: str | None, stack: ExitStack) -> Examine:
    home, named = locate(place)
    if audio_storage_system.AudioStorageSystem.exists(place):
        return stack.enter_context(opened(place)).examine
    from audio_storage_system.archive.examining import examine

    limit = load_settings(home, **named).max_file_bytes
    return lambda path: examine(None, path, limit)


def _examine_all(view: Preview, examine: Examine, jobs: int) -> None:
    stopping, candidates = Stopping(), list(view.found)
    with Progress(len(candidates), len(candidates)) as progress:

        def done(candidate: Candidate, result: Examined | Failure | None) -> None:
            said = _note(view, candidate, result)
            progress.done(candidate.path.name, said, 1, view.report.remarks())

        try:
            work_through(
                candidates,
                lambda candidate: _examine_one(examine, candidate),
                jobs=jobs_for(jobs, len(candidates)),
                stopping=stopping,
                on_result=done,
            )
        except KeyboardInterrupt:
            view.report.exit_code = 130


def _examine_one(examine: Examine, candidate: Candidate) -> Examined | Failure | None:
    try:
        return examine(candidate.path)
    except NotAudio as error:
        return failure_of(str(candidate.path), error) if candidate.certain else None
    except AudioStorageSystemError as error:
        return failure_of(str(candidate.path), error)


def _note(view: Preview, candidate: Candidate, result: Examined | Failure | None) -> str:
    if result is None or isinstance(result, Failure):
        return view.report.note(candidate, result)
    view.found[candidate] = result
    view.report.known += result.audio_id is not None
    return "new" if result.audio_id is None else f"stored before, as {result.audio_id}"


def _show(view: Preview, out: Output) -> None:
    new, known = view.sorted_out()
    total = {"bytes": sum(item.size for item in new), "seconds": sum(item.seconds or 0 for item in new)}
    failed = [failure.as_dict() for failure in view.report.failed]
    document = {"would_add": [item.as_dict() for item in new], "duplicates": known, "failed": failed}
    out.document({**document, "ignored": view.report.ignored, "total": total, "dry_run": True})
    lines = [f"new        {item.path}  {size(item.size)}  {clock(item.seconds)}" for item in new]
    lines += [f"duplicate  {item['path']}  of {item.get('same_as') or item['audio_id']}" for item in known]
    for line in bounded(lines, sys.stdout.isatty(), "see all of them with --json"):
        out.line(line)
    failures = [f"Would fail: {failure.path}: {failure.message}" for failure in view.report.failed]
    for line in bounded(failures, sys.stderr.isatty(), "see all of them with --json"):
        say(line)
    others = [f"{count(len(known), 'duplicate')}"] if known else []
    others += [f"{len(failed):,} would fail"] if failed else []
    others += [f"{count(view.report.ignored, 'other file')} passed over"] if view.report.ignored else []
    others += ["stopped before the end"] if view.report.exit_code else []
    what = f"{count(len(new), 'file')} would be added ({size(total['bytes'])}, {clock(total['seconds'])})"
    out.line(", ".join([what, *others]))
