"""`verify`: is everything there, and does it fit together?"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from audio_storage_system.cli import options
from audio_storage_system.cli.human import count, size
from audio_storage_system.cli.output import Output
from audio_storage_system.cli.progress import Counting
from audio_storage_system.cli.session import opened
from audio_storage_system.errors import ArchiveDamaged
from audio_storage_system.settings import shown

if TYPE_CHECKING:
    from audio_storage_system.integrity import Finding, Verification

COLOURS = {"error": "red", "warning": "yellow", "note": "dim"}


def verify(
    archive: options.ArchivePlace = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Also read every file, text and vector: hashes, words, lengths.")
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Make anew what is derived, and move files of no recording aside.")
    ] = False,
    after: Annotated[
        int, typer.Option(min=0, metavar="ID", help="Of files, look only at those of recordings with a higher id.")
    ] = 0,
    as_json: options.AsJson = False,
) -> None:
    """Check the archive: catalogue, files, transcripts, embeddings and indexes, each against the others.

    It may run while the archive is in use. The exit code is 0 when nothing is wrong or all of it was repaired, else 1.
    """
    out = Output(as_json)
    try:
        with opened(archive) as storage, Counting("MB" if deep else "done") as counting:
            done = storage.verify(deep=deep, repair=repair, after=after, progress=_telling(counting))
    except ArchiveDamaged as error:
        _cannot_open(out, archive, error)
        raise typer.Exit(1) from error
    out.document(done.as_dict())
    for finding in done.findings:
        _print(finding, out)
    for check, reason in done.skipped.items():
        out.line(f"Not checked ({check}): {reason}")
    out.line(_summary(done))
    raise typer.Exit(0 if done.clean else 1)


def _cannot_open(out: Output, archive: str | None, error: ArchiveDamaged) -> None:
    """What cannot even be opened is damaged too, and says so in the same way."""
    finding = {"check": "opening", "severity": "error", "what": error.message, "remedy": "Restore it from a backup."}
    out.document({"clean": False, "archive": shown(archive), "findings": [finding]})
    out.styled(("error    ", "red"), ("opening  ", "bold"), (error.message, ""))


def _print(finding: Finding, out: Output) -> None:
    state = "repaired" if finding.repaired else finding.severity.value
    colour = "green" if finding.repaired else COLOURS[finding.severity.value]
    number = f"{count(finding.count, finding.kind)}: " if finding.count and finding.kind else ""
    out.styled((f"{state:<9}", colour), (f"{finding.check}  ", "bold"), (f"{number}{finding.what}", ""))
    if finding.ids:
        more = f" and {finding.count - len(finding.ids):,} more" if finding.count > len(finding.ids) else ""
        out.styled((f"{'':9}{', '.join(map(str, finding.ids))}{more}", "dim"))
    if not finding.repaired:
        out.styled((f"{'':9}{'With --repair: ' if finding.repairable else ''}{finding.remedy}", "cyan"))


def _summary(done: Verification) -> str:
    read = f", {size(done.bytes)} read" if done.deep else ""
    looked = f"{count(len(done.checks), 'check')}, {count(done.recordings, 'recording')}{read} in {done.seconds:.1f} s"
    wrong = [finding for finding in done.findings if finding.severity.value != "note" and not finding.repaired]
    return f"{looked}: {count(len(wrong), 'finding') if wrong else 'nothing is wrong'}."


def _telling(counting: Counting) -> Callable[[str, int, int], None]:
    """Progress for people: bytes as megabytes."""

    def tell(stage: str, done: int, total: int) -> None:
        if stage == "bytes":
            counting.tell("files", done // 1_000_000, total // 1_000_000)
        else:
            counting.tell(stage, done, total)

    return tell
