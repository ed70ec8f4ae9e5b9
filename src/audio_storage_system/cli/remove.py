"""`rm`: recordings into the trash, or out of the archive for good."""

from __future__ import annotations

from typing import Annotated

import typer

from audio_storage_system.cli import options
from audio_storage_system.cli.human import clock, count, moment
from audio_storage_system.cli.output import Output, say
from audio_storage_system.cli.session import opened
from audio_storage_system.cli.trash import confirm, tell_deleted


def remove(
    audio_ids: Annotated[list[int], typer.Argument(metavar="IDS…")],
    for_good: Annotated[
        bool, typer.Option("--for-good", help="Delete at once what cannot be had back, instead of into the trash.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask (only --for-good asks).")] = False,
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """Throw recordings away. They are found no more, and for a time they can be had back: see the command trash.

    With --for-good everything made from them is deleted: audio, transcripts, embeddings, metadata. A receipt remains.
    """
    out = Output(as_json)
    with opened(archive) as storage:
        chosen = [storage.get_recording(audio_id) for audio_id in dict.fromkeys(audio_ids)]
        for recording in chosen:
            say(f"{recording.id:>6}  {recording.original_name}  {clock(recording.duration)}")
        if for_good and not yes:
            confirm(len(chosen))
        trashed = storage.trash.put(*(recording.id for recording in chosen))
        if for_good:
            tell_deleted(out, storage.trash.empty(*(entry.audio_id for entry in trashed)))
            return
    out.document({"trashed": [entry.as_dict() for entry in trashed]})
    ids = " ".join(str(entry.audio_id) for entry in trashed)
    until = moment(trashed[0].purge_after)
    out.line(f"{count(len(trashed), 'recording')} in the trash until {until}.")
    out.line(f"To undo: audio-storage trash restore {ids}")
