"""`backup` and `restore`: sets of the archive somewhere else, and the way back."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import audio_storage_system
from audio_storage_system.cli import options
from audio_storage_system.cli.human import count, moment, size
from audio_storage_system.cli.output import Output, say
from audio_storage_system.cli.progress import QUIET_SECONDS, Shown
from audio_storage_system.cli.session import opened
from audio_storage_system.notation import parse_instant

if TYPE_CHECKING:
    from audio_storage_system.backup import BackupProgress, BackupSet, RestoreReport, VerifyReport

app = typer.Typer(help="Backups: consistent, incremental sets of the archive in a folder or in object storage.")

Destination = Annotated[
    str, typer.Argument(metavar="DEST", help="A folder, or an address such as s3://bucket/prefix, for backups alone.")
]
WhichSet = Annotated[
    str | None, typer.Argument(metavar="[SET]", help="Its id, or the beginning of it; default: the last one.")
]


@app.command("create")
def create_backup(
    destination: Destination,
    full: Annotated[
        bool, typer.Option("--full", help="Read every row again, also where an earlier set has the same ids.")
    ] = False,
    keep_days: Annotated[
        float | None,
        typer.Option(metavar="DAYS", help="Have prune remove the set after so many days, and not before."),
    ] = None,
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """Make a backup: all that the archive holds at this moment, while it is in use. What is there already is not stored
    again.

    The exit code is 1 when audio is missing or damaged in the archive; all else is in the backup then. Run again after
    an interruption, it uses what is there."""
    out = Output(as_json)
    with opened(archive) as storage, _Shown() as shown:
        report = storage.backups.create(destination, full=full, keep_days=keep_days, progress=shown.tell)
    out.document(report.as_dict())
    for problem in report.problems:
        out.line(f"Recording {problem.audio_id} ({problem.key}): {problem.reason}")
    new = f"{count(report.blobs_copied, 'file')} ({size(report.bytes_copied)}) of audio"
    rows = f"{sum(report.rows.values()):,} rows, {count(report.packs_written, 'pack')} of them new"
    out.line(f"Set {report.set_id}: {count(report.blobs, 'recording')}, {size(report.bytes)} of audio, {rows}.")
    out.line(f"Copied {new} in {report.seconds:.1f} s.")
    if not report.complete:
        out.line("The audio named above is not in this set.")
    raise typer.Exit(0 if report.complete else 1)


@app.command("list")
def list_backups(
    destination: Annotated[
        str | None, typer.Argument(metavar="[DEST]", help="Default: the sets that the archive knows of, anywhere.")
    ] = None,
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """List backup sets, oldest first, and when each was verified last."""
    out = Output(as_json)
    with opened(archive) as storage:
        found = storage.backups.list(destination)
    out.document({"sets": [one.as_dict() for one in found]})
    out.table(("set", "taken", "verified", "at"), [_row(one) for one in found])
    out.line(count(len(found), "set"))


@app.command("verify")
def verify_backup(
    destination: Destination,
    set_id: WhichSet = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Set aside what is rotten, so that the next backup stores it again.")
    ] = False,
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """Read all of a set back: every pack, every row, every byte of audio. The exit code is 1 when anything is missing
    or rotten, and that is named."""
    out = Output(as_json)
    with opened(archive) as storage, _Shown() as shown:
        report = storage.backups.verify(destination, set_id, repair=repair, progress=shown.tell)
    _end(report, out)


@app.command("rehearse")
def rehearse_backup(
    destination: Destination,
    set_id: WhichSet = None,
    scratch: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Where to restore it for the time being; it needs room for the whole archive. Default: the folder for "
            "temporary files.",
        ),
    ] = None,
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """Prove that a set can be restored: verify it, restore it into a scratch folder, compare counts and hashes, search
    it, and remove the folder. The exit code is 1 when anything differs."""
    out = Output(as_json)
    with opened(archive) as storage, _Shown() as shown:
        report = storage.backups.rehearse(destination, set_id, scratch=scratch, progress=shown.tell)
    _end(report, out)


@app.command("prune")
def prune_backups(
    destination: Destination,
    keep_last: Annotated[int, typer.Option(metavar="N", min=0, help="Keep the last N sets.")] = 0,
    keep_daily: Annotated[int, typer.Option(metavar="N", min=0, help="Keep the last set of each of N days.")] = 0,
    keep_weekly: Annotated[int, typer.Option(metavar="N", min=0, help="Keep the last set of each of N weeks.")] = 0,
    keep_monthly: Annotated[int, typer.Option(metavar="N", min=0, help="Keep the last set of each of N months.")] = 0,
    dry_run: options.DryRun = False,
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """Remove the sets that none of these options keeps, and what only they needed. A set that was made with --keep-days
    goes by that alone.

    A set stays until a newer one that stays was verified: so the last one that is known to be good is never removed."""
    out = Output(as_json)
    keep = {"keep_last": keep_last, "keep_daily": keep_daily, "keep_weekly": keep_weekly, "keep_monthly": keep_monthly}
    with opened(archive) as storage:
        report = storage.backups.prune(destination, **keep, dry_run=dry_run)
    out.document(report.as_dict())
    rows = [
        (one.set_id, moment(one.taken_at), "keep" if one.keep else "remove", one.reason) for one in report.decisions
    ]
    out.table(("set", "taken", "", "why"), rows)
    removed = sum(not one.keep for one in report.decisions)
    if dry_run:
        out.line(f"{count(removed, 'set')} would be removed.")
    else:
        out.line(f"Removed {count(removed, 'set')}: {count(report.objects, 'object')}, {size(report.bytes)}.")
    if not report.swept:
        out.line("A set that stays is sealed with another key: what only removed sets needed stays until it goes.")


def restore(
    backup: Annotated[str, typer.Argument(metavar="DEST", help="Where the backup is.")],
    archive: Annotated[
        str,
        typer.Argument(metavar="ARCHIVE", help="Where to restore to: a folder, postgresql://… or audio-storage.toml."),
    ],
    set_id: Annotated[
        str | None, typer.Option("--set", metavar="SET", help="Which set; default: the last one.")
    ] = None,
    at: Annotated[
        str | None, typer.Option(metavar="TIME", help="The last set taken until then (ISO 8601, UTC).")
    ] = None,
    deletions_of: Annotated[
        str | None,
        typer.Option(
            metavar="ARCHIVE",
            help="Also leave out what was deleted in this archive, such as the damaged original, since the set was "
            "taken, and let no token in that was revoked there; what newer sets know of that is heeded anyway.",
        ),
    ] = None,
    accept_plaintext_catalogue: Annotated[
        bool,
        typer.Option("--accept-plaintext-catalogue", help="Restore an encrypted archive where its rows are readable."),
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Restore an archive from a backup into an empty place, on any backends: catalogue, audio and embeddings, ids kept.

    The key of an encrypted archive comes from the environment (AUDIO_STORAGE_KEY_FILE and the like). Nobody can open it
    before all of it is there. Run again after an interruption, it goes on. The exit code is 1 when
    the archive does not equal the set, and what differs is named."""
    out = Output(as_json)
    with _Shown() as shown:
        report = audio_storage_system.restore_backup(
            backup,
            archive,
            set_id=set_id,
            at=parse_instant("--at", at),
            deletions_of=deletions_of,
            accept_plaintext_catalogue=accept_plaintext_catalogue,
            progress=shown.tell,
        )
    out.document(report.as_dict())
    _print_restored(report, out)
    raise typer.Exit(0 if report.complete else 1)


def _row(one: BackupSet) -> tuple[str, ...]:
    at = f"{one.destination} (removed {moment(one.removed_at)})" if one.removed_at else one.destination
    return one.set_id, moment(one.taken_at), moment(one.verified_at) if one.verified_at else "never", at


def _end(report: VerifyReport, out: Output) -> None:
    out.document(report.as_dict())
    for damage in report.damages:
        whose = f" (recording {damage.audio_id})" if damage.audio_id is not None else ""
        out.line(f"{damage.key}{whose}: {damage.reason}")
    for difference in report.differences:
        out.line(f"Restored: {difference}")
    read = f"{sum(report.rows.values()):,} rows, {count(report.blobs, 'file')} ({size(report.bytes)}) of audio"
    out.line(f"Set {report.set_id}: {read} read in {report.seconds:.1f} s.")
    out.line(_verdict(report))
    raise typer.Exit(0 if report.whole else 1)


def _verdict(report: VerifyReport) -> str:
    if not report.whole:
        return "It is NOT whole: see above. Run verify with --repair, then make a new backup, which stores that again."
    found = f", and a search for words of passage {report.searched} found it" if report.searched else ""
    done = "It is whole" if report.how == "verify" else f"It was restored and is the same{found}"
    lacks = "" if report.complete else " Audio that was missing in the archive is missing in it, too."
    return f"{done}.{lacks}"


def _print_restored(report: RestoreReport, out: Output) -> None:
    for problem in report.problems:
        out.line(f"Recording {problem.audio_id} ({problem.key}): {problem.reason}")
    for difference in report.differences:
        out.line(difference)
    audio = f"{count(report.blobs, 'file')} ({size(report.bytes)}) of audio"
    out.line(f"Restored set {report.set_id} to {report.destination} in {report.seconds:.1f} s: {audio}.")
    if report.kept_removed:
        out.line(
            f"{count(report.kept_removed, 'part')} of others (sound, words, vectors) were removed since and stay so."
        )
    if report.kept_deleted:
        out.line(f"{count(report.kept_deleted, 'recording')} of it were deleted since and stay so.")
    if report.differences:
        out.line("It does not equal the set and stays closed: verify the backup, or restore another set.")


class _Shown(Shown):
    """How far it is, on stderr: a bar for people, a line now and then for everything else."""

    def __init__(self) -> None:
        super().__init__(_bar)
        self._said = time.monotonic()
        self._task: Any = self._bar.add_task("", total=None, text="") if self._bar else None

    def tell(self, progress: BackupProgress) -> None:
        """Show this."""
        if progress.stage == "audio":
            files = f"{progress.blobs:,} of {count(progress.of_blobs, 'file')}"
            text = f"audio: {files}, {size(progress.bytes)} of {size(progress.of_bytes)}"
        else:
            text = f"{progress.stage}: {progress.rows:,} rows"
        if self._bar:
            self._bar.update(self._task, total=progress.of_bytes or None, completed=progress.bytes, text=text)
        elif time.monotonic() - self._said >= QUIET_SECONDS:
            self._said = time.monotonic()
            say(text)


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    text = TextColumn("{task.fields[text]}", markup=False)
    return Progress(BarColumn(), text, console=Console(stderr=True), transient=True)
