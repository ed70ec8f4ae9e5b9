"""`copy`: an archive into another place."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

import audio_storage_system
from audio_storage_system.cli import options
from audio_storage_system.cli.human import clock, count, size
from audio_storage_system.cli.output import Output, say
from audio_storage_system.cli.progress import Shown
from audio_storage_system.cli.session import named_origin

if TYPE_CHECKING:
    from audio_storage_system import CopyReport
    from audio_storage_system.transfer import CopyProgress

# Seconds between two lines where stderr is no terminal.
QUIET_SECONDS = 10.0


def copy(
    source: Annotated[str, typer.Argument(metavar="SRC")],
    destination: Annotated[str, typer.Argument(metavar="DST")],
    verify_all: Annotated[
        bool, typer.Option("--verify-all", help="Also read back the audio that earlier copies brought.")
    ] = False,
    encrypt: Annotated[bool, typer.Option("--encrypt", help="Make the copy an encrypted archive, see init.")] = False,
    accept_plaintext_catalogue: Annotated[
        bool, typer.Option("--accept-plaintext-catalogue", help="As with init, where the copy is not on SQLite.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Copy an archive to another place, or bring an earlier copy up to date: catalogue, audio and embeddings, ids kept.

    SRC and DST are folders, database addresses or audio-storage.toml files. DST is empty or an earlier copy of SRC.
    What is copied is verified; the exit code is 1 when anything differs. Run again after an interruption, it goes on.
    """
    out = Output(as_json)
    with named_origin(), _Shown() as shown:
        report = audio_storage_system.copy_archive(
            source,
            destination,
            verify="all" if verify_all else "copied",
            progress=shown.tell,
            encryption=encrypt,
            accept_plaintext_catalogue=accept_plaintext_catalogue,
        )
    out.document(report.as_dict())
    _print(report, out)
    raise typer.Exit(0 if report.complete else 1)


def _print(report: CopyReport, out: Output) -> None:
    rows = [(name, counted.source, counted.destination, counted.copied) for name, counted in report.tables.items()]
    columns = ("source", "destination", "copied")
    out.table(("table", *columns), rows, right=columns)
    out.line()
    for problem in report.problems:
        out.line(f"Recording {problem.audio_id} ({problem.key}): {problem.reason}")
    out.line(f"{_done(report)} in {report.seconds:.1f} s.")
    if report.kept_deleted:
        out.line(f"{count(report.kept_deleted, 'recording')} of the source stay deleted at {report.destination}.")
    if not report.complete:
        out.line("The copy does not equal the source: see above, then run the same command again.")


def _done(report: CopyReport) -> str:
    audio = f"{count(report.blobs_copied, 'file')} ({size(report.bytes_copied)})"
    return f"Copied {audio}, verified {report.blobs_verified:,}; deleted {count(report.deleted, 'recording')}"


class _Shown(Shown):
    """How far the copy is, on stderr: a bar for people, a line now and then for everything else."""

    def __init__(self) -> None:
        super().__init__(_bar)
        self._began = self._said = time.monotonic()
        self._task: Any = self._bar.add_task("", total=None, text="") if self._bar else None

    def tell(self, progress: CopyProgress) -> None:
        """Show this."""
        text = self._text(progress)
        if self._bar:
            self._bar.update(self._task, total=progress.of_bytes or None, completed=progress.bytes, text=text)
        elif time.monotonic() - self._said >= QUIET_SECONDS:
            self._said = time.monotonic()
            say(text)

    def _text(self, progress: CopyProgress) -> str:
        seconds = max(time.monotonic() - self._began, 1e-3)
        if progress.stage != "recordings" or not progress.bytes:
            return f"{progress.stage}: {progress.rows:,} rows"
        left = (progress.of_bytes - progress.bytes) * seconds / progress.bytes
        done = f"{progress.recordings:,} of {count(progress.of_recordings, 'recording')}"
        return f"{done}, {size(progress.bytes / seconds)}/s, {clock(left)} left"


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    text = TextColumn("{task.fields[text]}", markup=False)
    return Progress(BarColumn(), text, console=Console(stderr=True), transient=True)
