"""`trash`: what was thrown away and can still be had back."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from audio_storage_system.cli import options
from audio_storage_system.cli.human import clock, count, moment, shortened
from audio_storage_system.cli.output import Output, say
from audio_storage_system.cli.session import opened
from audio_storage_system.errors import InvalidInput

if TYPE_CHECKING:
    from audio_storage_system.retention import Emptied

app = typer.Typer(help="What was thrown away with rm: nobody finds it, and for a time it can be had back.")

SomeIds = Annotated[list[int] | None, typer.Argument(metavar="[IDS…]", help="Which recordings.")]


@app.command("list")
def list_trash(archive: options.ArchivePlace = None, as_json: options.AsJson = False) -> None:
    """List what is in the trash, the latest first, and until when it stays there."""
    out = Output(as_json)
    with opened(archive) as storage:
        found = storage.trash.list()
    out.document({"trash": [entry.as_dict() for entry in found]})
    rows = [
        (one.audio_id, shortened(one.original_name, 40), clock(one.duration), moment(one.purge_after)) for one in found
    ]
    out.table(("id", "name", "length", "until"), rows, right=("id", "length"))
    out.line(f"{count(len(found), 'recording')} in the trash")


@app.command("restore")
def restore(
    audio_ids: Annotated[list[int], typer.Argument(metavar="IDS…")],
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """Put recordings back as they were."""
    out = Output(as_json)
    with opened(archive) as storage:
        restored = storage.trash.restore(*audio_ids)
    out.result({"restored": restored}, f"{count(len(restored), 'recording')} restored")


@app.command("empty")
def empty(
    audio_ids: SomeIds = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """Delete what is in the trash (default: all of it) for good. A receipt remains.

    What a legal hold covers stays; the exit code is 1 then."""
    out = Output(as_json)
    with opened(archive) as storage:
        number = len(audio_ids or storage.trash.list())
        if number and not yes:
            confirm(number)
        tell_deleted(out, storage.trash.empty(*(audio_ids or ())))


def confirm(number: int) -> None:
    """Let somebody agree to deleting so many recordings; else end the program. Raises `InvalidInput`."""
    if not sys.stdin.isatty():
        raise InvalidInput(reason="Nobody can be asked here; --yes deletes without asking")
    if not typer.confirm(f"Delete {count(number, 'recording')} for good?", err=True):
        say("Nothing was deleted.")
        raise typer.Exit(1)


def tell_deleted(out: Output, emptied: Emptied) -> None:
    """Say what was deleted, what still holds it, and what stays; ends with 1 where something does."""
    out.result(emptied.as_dict(), f"Deleted {count(len(emptied.receipts), 'recording')} for good.")
    places = {backup["destination"]: backup["expires_at"] for one in emptied.receipts for backup in one.backups}
    for place, until in places.items():
        say(f"The backup at {place} still holds it, {f'until {until}' if until else 'until its sets are pruned'}.")
    if any(state == "pending" for one in emptied.receipts for state in one.indexes.values()):
        say("A vector index could not be reached: it forgets them when it can.")
    if not all(one.scrubbed for one in emptied.receipts):
        say("Others are using the database, so its files may still hold traces; upkeep removes them later.")
    for reason in emptied.held.values():
        say(reason)
    raise typer.Exit(int(bool(emptied.held)))
