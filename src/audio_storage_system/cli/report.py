"""What became of the files that were to be added, and how that is told."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from audio_storage_system.cli.human import count
from audio_storage_system.cli.output import Output, say
from audio_storage_system.cli.paths import Candidate
from audio_storage_system.errors import (
    AudioStorageSystemError,
    InvalidMetadata,
    MissingExtra,
    StorageFailed,
    UnknownSpec,
)

# What has nothing to do with the file: every other one would fail in the same way.
HOPELESS = (StorageFailed, UnknownSpec, MissingExtra, InvalidMetadata)
SHOWN = 20  # of a list, on a terminal


@dataclass(frozen=True, slots=True)
class Failure:
    """A path that did not make it, and why. `audio_id` where its sound was stored nevertheless."""

    path: str
    code: str
    message: str
    retryable: bool = False
    audio_id: int | None = None
    fatal: int | None = None  # the exit code, when going on with other files makes no sense
    tried: bool = True

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
    known: int = 0  # of those added: stored before
    waits: bool = False  # for a worker, and there is none

    def note(self, candidate: Candidate, result: dict[str, Any] | Failure | None) -> str:
        """Take one result; what to say about it. `None`: it was no audio, and nobody had said it was."""
        if result is None:
            self.ignored += 1
            return "not audio, passed over"
        if isinstance(result, Failure):
            self.failed.append(result)
            return f"failed ({result.code})"
        self.added[candidate] = result
        self.known += result["duplicate"]
        return in_words(result)

    def remarks(self) -> str:
        """How many of the files so far were not simply added."""
        return ", ".join(_counted(self.known, "stored before") + _counted(len(self.failed), "failed"))

    def as_dict(self, order: list[Candidate]) -> dict[str, Any]:
        """As `--json` gives it, in the order of the files found."""
        added = [self.added[candidate] for candidate in order if candidate in self.added]
        return {"added": added, "failed": [failure.as_dict() for failure in self.failed], "ignored": self.ignored}


def failure_of(path: str, error: AudioStorageSystemError) -> Failure:
    """An error as what became of a file."""
    outcome = error.details.get("outcome")
    return Failure(
        path,
        error.code,
        error.message,
        retryable=outcome.retryable if outcome is not None else error.retryable,
        audio_id=error.details.get("audio_id"),
        fatal=error.exit_code if isinstance(error, HOPELESS) else None,
    )


def show(report: Report, order: list[Candidate], out: Output) -> None:
    """The results on stdout, what failed on stderr; on a terminal only the first of many."""
    out.document(report.as_dict(order))
    lines = [_line(report.added[candidate]) for candidate in order if candidate in report.added]
    for line in bounded(lines, sys.stdout.isatty(), "see: audio-storage list"):
        out.line(line)
    failures = [f"Failed: {failure.path}: {failure.message}" for failure in report.failed]
    for line in bounded(failures, sys.stderr.isatty(), "see all of them with --json"):
        say(line)
    out.line(_summary(report, len(order)))
    if report.waits:
        say("The rest waits for a worker; start one with: audio-storage worker")


def bounded(lines: Sequence[str], on_terminal: bool, hint: str) -> Iterable[str]:
    """The lines, on a terminal only the first of many, and how many more there are."""
    if not on_terminal or len(lines) <= SHOWN:
        return lines
    return [*lines[:SHOWN], f"… and {len(lines) - SHOWN:,} more; {hint}"]


def _line(result: dict[str, Any]) -> str:
    return f"{result['audio_id']:>6}  {result['original_name']}  {in_words(result)}"


def _summary(report: Report, files: int) -> str:
    parts = [f"{len(report.added) - report.known:,} added"]
    parts += _counted(report.known, "stored before") + _counted(len(report.failed), "failed")
    parts += [f"{count(report.ignored, 'other file')} passed over"] if report.ignored else []
    if report.exit_code:
        left = files - len(report.added) - sum(failure.tried for failure in report.failed)
        parts += ["stopped before the end", *_counted(max(left, 0), "left")]
    return ", ".join(parts)


def _counted(number: int, what: str) -> list[str]:
    return [f"{number:,} {what}"] if number else []


def in_words(result: dict[str, Any]) -> str:
    """What was done with a file, for people."""
    outcome = {None: "stored", "ok": "transcribed", "silence": "no speech in it"}.get(result["outcome"])
    words = outcome or str(result["outcome"])
    if "job_id" in result and result["outcome"] is None:
        words = f"stored, job {result['job_id']}"
    return f"{words} (stored before)" if result["duplicate"] else words
