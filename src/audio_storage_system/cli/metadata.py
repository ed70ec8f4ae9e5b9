"""`metadata`: what users attach to a recording."""

from __future__ import annotations

from typing import Annotated

import typer

from audio_storage_system.cli import options
from audio_storage_system.cli.output import Output
from audio_storage_system.cli.session import opened
from audio_storage_system.cli.values import parse_metadata
from audio_storage_system.errors import InvalidInput, NotFound

app = typer.Typer(help="The metadata of a recording: keys and values of your own.")

AudioId = Annotated[int, typer.Argument(metavar="ID", help="The recording.")]


@app.command("get")
def get(
    audio_id: AudioId,
    key: Annotated[str | None, typer.Argument(metavar="[KEY]")] = None,
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """Show every key with its value, or the value of one."""
    out = Output(as_json)
    with opened(archive) as storage:
        values = dict(storage.get_recording(audio_id).metadata)
    if key is not None:
        if key not in values:
            raise NotFound(f"Recording {audio_id} has no metadata {key}.")
        values = {key: values[key]}
    out.document({"audio_id": audio_id, "metadata": values})
    for name, value in values.items():
        out.line(str(value) if key is not None else f"{name}={value}")


@app.command("set")
def set_values(
    audio_id: AudioId,
    pairs: Annotated[list[str], typer.Argument(metavar="KEY=VALUE…")],
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """Set keys, leaving the others. Values are read as by `add --metadata`."""
    values = parse_metadata(pairs)
    with opened(archive) as storage:
        storage.set_metadata(audio_id, values)
        now = storage.get_recording(audio_id).metadata
    Output(as_json).document({"audio_id": audio_id, "metadata": now})


@app.command("unset")
def unset(
    audio_id: AudioId,
    keys: Annotated[list[str], typer.Argument(metavar="KEY…")],
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """Take keys away; those that are not there are no error."""
    if any("=" in key for key in keys):
        raise InvalidInput(reason="unset takes keys without values")
    with opened(archive) as storage:
        storage.remove_metadata(audio_id, *keys)
        now = storage.get_recording(audio_id).metadata
    Output(as_json).document({"audio_id": audio_id, "metadata": now})
