"""`rm`: recordings out of the archive, for good."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from audio_storage_system.cli import options
from audio_storage_system.cli.human import clock, count
from audio_storage_system.cli.output import Output, say
from audio_storage_system.cli.session import opened
from audio_storage_system.errors import InvalidInput


def remove(
    audio_ids: Annotated[list[int], typer.Argument(metavar="IDS…")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """Delete recordings with everything made from them: audio, transcripts, embeddings, metadata. A receipt remains."""
    out = Output(as_json)
    with opened(archive) as storage:
        chosen = [storage.get_recording(audio_id) for audio_id in dict.fromkeys(audio_ids)]
        for recording in chosen:
            say(f"{recording.id:>6}  {recording.original_name}  {clock(recording.duration)}")
        if not yes:
            _ask(len(chosen))
        receipts = [storage.delete(recording.id) for recording in chosen]
    out.document({"deleted": [receipt.as_dict() for receipt in receipts]})
    out.line(f"Deleted {count(len(receipts), 'recording')}.")


def _ask(number: int) -> None:
    if not sys.stdin.isatty():
        raise InvalidInput(reason="Nobody can be asked here; --yes deletes without asking")
    if not typer.confirm(f"Delete {count(number, 'recording')} for good?", err=True):
        say("Nothing was deleted.")
        raise typer.Exit(1)
