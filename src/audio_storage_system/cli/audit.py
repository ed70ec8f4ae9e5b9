"""`audit`: who did what to which recording, when and from where."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from audio_storage_system.cli import options
from audio_storage_system.cli.human import count, moment
from audio_storage_system.cli.output import Output, say
from audio_storage_system.cli.progress import Counting
from audio_storage_system.cli.session import opened
from audio_storage_system.errors import InvalidInput
from audio_storage_system.notation import parse_instant

app = typer.Typer(
    help="The audit log: who did what to which recording, when and from where. Archives made with init --audit or "
    "init --encrypt keep one."
)


class FormatChoice(StrEnum):
    """How entries are written."""

    JSONL = "jsonl"
    CSV = "csv"


Of = Annotated[int | None, typer.Option("--of", metavar="ID", help="Only of this recording, which may be gone by now.")]
Who = Annotated[str | None, typer.Option("--principal", metavar="NAME", help="Only of what they did.")]
What = Annotated[
    str | None,
    typer.Option(
        "--action", metavar="ACTION", help="Only this, or with a dot at its end all that begin so: recording."
    ),
]
Since = Annotated[str | None, typer.Option(metavar="TIME", help="Only from then on (ISO 8601).")]
Until = Annotated[str | None, typer.Option(metavar="TIME", help="Only before then (ISO 8601).")]


def _wanted(of: int | None, who: str | None, what: str | None, since: str | None, until: str | None) -> dict[str, Any]:
    return {
        "audio_id": of,
        "principal": who,
        "action": what,
        "since": parse_instant("--since", since),
        "until": parse_instant("--until", until),
    }


@app.command("list")
def list_entries(
    of: Of = None,
    principal: Who = None,
    action: What = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 50,
    cursor: Annotated[int | None, typer.Option(help="Go on after a page: the cursor that came with it.")] = None,
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """List entries, the latest first."""
    out = Output(as_json)
    wanted = _wanted(of, principal, action, since, until)
    with opened(archive) as storage:
        page = storage.audit.list(limit=limit, cursor=cursor, **wanted)
    out.document(page.as_dict())
    rows = [
        (moment(one.at), one.principal, one.action, one.audio_id, _shown(one.details), one.origin)
        for one in page.entries
    ]
    out.table(("time", "who", "action", "recording", "details", "from"), rows, right=("recording",))
    if page.cursor is not None:
        out.line(f"There are more: --cursor {page.cursor}")


@app.command("verify")
def verify(
    anchors: Annotated[
        list[Path] | None, typer.Option("--anchor", metavar="FILE", help="Compare with this anchor; may be repeated.")
    ] = None,
    backups: Annotated[
        list[str] | None,
        typer.Option(
            "--backup", metavar="DEST", help="Compare with the anchor in the last set there; may be repeated."
        ),
    ] = None,
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """Compute the log's chains again: was an entry changed, removed, put in, moved, or cut off behind an anchor?

    The exit code is 1 where one was.
    """
    out = Output(as_json)
    with opened(archive) as storage, Counting("entries") as progress:
        given = [*(anchors or ()), *map(storage.backups.anchor, backups or ())]
        report = storage.audit.verify(given, lambda done, total: progress.tell("verifying", done, total))
    out.document(report.as_dict())
    for fault in report.faults:
        out.line(fault.message)
    of = f"entries: {report.entries:,}, chains: {report.chains:,}, anchors: {report.anchors}"
    out.line(f"{of}. All as it was written." if report.ok else f"{of}. {count(report.fault_count, 'fault')}.")
    if not report.ok:
        raise typer.Exit(1)


@app.command("anchor")
def anchor(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it; no file may be there.")],
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """Write into a file how far the log has come. Keep it where nobody who can write the archive can change it."""
    out = Output(as_json)
    with opened(archive) as storage:
        made = storage.audit.anchor(file)
    out.result(
        {"file": str(file), "at": made.at, "chains": len(made.heads)},
        f"Anchored {count(len(made.heads), 'chain')} in {file}",
    )


@app.command("export")
def export(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="Where to (default: stdout).")] = None,
    format: Annotated[FormatChoice, typer.Option(help="Lines of JSON, or csv.")] = FormatChoice.JSONL,
    of: Of = None,
    principal: Who = None,
    action: What = None,
    since: Since = None,
    until: Until = None,
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """Write entries, the oldest first, to a file or stdout."""
    out = Output(as_json)
    if as_json and file is None:
        raise InvalidInput(reason="--json tells of an export into a file: name one")
    wanted = _wanted(of, principal, action, since, until)
    with opened(archive) as storage:
        written = storage.audit.export(sys.stdout if file is None else file, format.value, **wanted)
    out.document({"file": str(file), "format": format.value, "entries": written})
    if file is not None:
        say(f"{written:,} entries in {file}")


def _shown(details: Any) -> str:
    return ", ".join(f"{name}={value}" for name, value in details.items())
