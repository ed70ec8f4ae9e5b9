"""`quarantine`: files that no recording has."""

from __future__ import annotations

from typing import Annotated

import typer

from audio_storage_system.cli import options
from audio_storage_system.cli.human import count
from audio_storage_system.cli.output import Output
from audio_storage_system.cli.session import opened

app = typer.Typer(help="Files that no recording has: verify --repair moves them aside, and they can be put back.")


@app.command("list")
def list_quarantine(archive: options.ArchivePlace = None, as_json: options.AsJson = False) -> None:
    """List the files in quarantine."""
    out = Output(as_json)
    with opened(archive) as storage:
        keys = storage.quarantine.list()
    out.document({"quarantine": keys})
    for key in keys:
        out.line(key)
    out.line(f"{count(len(keys), 'file')} in quarantine")


@app.command("empty")
def empty(
    older_than: Annotated[
        float | None,
        typer.Option(min=0, metavar="DAYS", help="What has been there for so long; default: quarantine_days."),
    ] = None,
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """Remove for good what has been in quarantine for its term, as workers do once an hour.

    While a legal hold stands nothing is removed, and never the bytes that a recording is missing."""
    out = Output(as_json)
    with opened(archive) as storage:
        removed = storage.quarantine.empty(older_than_days=older_than)
    out.result({"removed": removed}, f"{count(len(removed), 'file')} removed for good")


@app.command("restore")
def restore(
    keys: Annotated[list[str], typer.Argument(metavar="KEYS…", help="As quarantine list names them.")],
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """Put files back where they were; audio becomes a recording, unless its bytes are one already."""
    out = Output(as_json)
    with opened(archive) as storage:
        restored = {key: storage.quarantine.restore(key) for key in keys}
    out.result({"restored": restored}, f"{count(len(restored), 'file')} put back")
