"""`hold`: legal holds, which keep what no rule and no hand may remove."""

from __future__ import annotations

from typing import Annotated

import typer

from audio_storage_system.cli import options
from audio_storage_system.cli.human import count, moment, shortened
from audio_storage_system.cli.output import Output
from audio_storage_system.cli.session import opened
from audio_storage_system.notation import parse_where

app = typer.Typer(help="Legal holds: what they cover stays, whatever a retention rule or a person says.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="What the hold is called.")]


@app.command("place")
def place(
    name: Name,
    audio_ids: Annotated[list[int] | None, typer.Argument(metavar="[IDS…]", help="Recordings to hold.")] = None,
    where: options.Where = None,
    owner: Annotated[str | None, typer.Option(metavar="NAME", help="Hold what belongs to this principal.")] = None,
    tag: Annotated[str | None, typer.Option(metavar="LABEL", help="Hold what has this tag.")] = None,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; a case number, say.")] = "",
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """Hold recordings by their ids, or every one, now and later, that meets the conditions."""
    out = Output(as_json)
    conditions = parse_where(where)
    with opened(archive) as storage:
        placed = storage.holds.place(
            name, audio_ids=audio_ids or (), where=conditions, owner=owner, tag=tag, reason=reason
        )
    out.result(placed.as_dict(), f'The hold "{placed.name}" keeps: {placed.selection}')


@app.command("list")
def list_holds(
    released: Annotated[bool, typer.Option("--released", help="Those that were released, too.")] = False,
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """List the legal holds."""
    out = Output(as_json)
    with opened(archive) as storage:
        found = storage.holds.list(released=released)
    out.document({"holds": [one.as_dict() for one in found]})
    rows = [
        (
            one.name,
            shortened(str(one.selection), 60),
            shortened(one.reason, 40),
            moment(one.placed_at),
            moment(one.released_at) if one.released_at else "",
        )
        for one in found
    ]
    out.table(("name", "keeps", "reason", "placed", "released"), rows)
    out.line(count(len(found), "hold"))


@app.command("release")
def release(name: Name, archive: options.ArchivePlace = None, as_json: options.AsJson = False) -> None:
    """End a hold. What it covered is under the retention rules again."""
    out = Output(as_json)
    with opened(archive) as storage:
        released = storage.holds.release(name)
    out.result(released.as_dict(), f'The hold "{released.name}" is released.')
