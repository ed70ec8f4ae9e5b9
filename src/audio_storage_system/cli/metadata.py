"""`metadata`: what users attach to a recording."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from audio_storage_system.cli import options
from audio_storage_system.cli.human import count, moment
from audio_storage_system.cli.output import Output
from audio_storage_system.cli.session import opened
from audio_storage_system.errors import InvalidInput, NotFound
from audio_storage_system.notation import parse_metadata, read_json

if TYPE_CHECKING:
    from audio_storage_system import AudioStorageSystem

app = typer.Typer(help="The metadata of a recording: keys and values of your own.")

schema_app = typer.Typer(help="The JSON Schema that the metadata of an owner's recordings has to meet.")
app.add_typer(schema_app, name="schema")

Owner = Annotated[str | None, typer.Option(metavar="NAME", help="Whose recordings (default: one's own).")]
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
        _show(storage, audio_id, as_json)


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
        _show(storage, audio_id, as_json)


def _show(storage: AudioStorageSystem, audio_id: int, as_json: bool) -> None:
    Output(as_json).document({"audio_id": audio_id, "metadata": storage.get_recording(audio_id).metadata})


@app.command("history")
def history(
    audio_id: AudioId,
    key: Annotated[str | None, typer.Argument(metavar="[KEY]")] = None,
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """Show what every key, or one, was before it was changed, when and by whom."""
    out = Output(as_json)
    with opened(archive) as storage:
        changes = storage.metadata_history(audio_id, key)
    out.document({"audio_id": audio_id, "changes": [change.as_dict() for change in changes]})
    rows = [(moment(one.changed_at), one.principal, one.op, one.key, one.old_value) for one in changes]
    out.table(("time", "who", "change", "key", "old value"), rows)


@app.command("check")
def check(owner: Owner = None, archive: options.ArchivePlace = None, as_json: options.AsJson = False) -> None:
    """List the recordings whose metadata does not meet the schema. The exit code is 1 where there are any."""
    out = Output(as_json)
    with opened(archive) as storage:
        found = storage.check_metadata(owner)
    out.document({"nonconforming": [one.as_dict() for one in found]})
    for one in found:
        for broken in one.violations:
            out.line(f"{one.audio_id}  {one.original_name}  {broken.key or '(as a whole)'}: {broken.message}")
    out.line(f"{count(len(found), 'recording')} whose metadata does not meet the schema")
    if found:
        raise typer.Exit(1)


@schema_app.command("set")
def set_schema(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON Schema, Draft 2020-12.")],
    owner: Owner = None,
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """Have metadata meet a schema from now on. What is stored stays as it is; see metadata check."""
    wanted = read_json(file)
    with opened(archive) as storage:
        storage.set_metadata_schema(wanted, owner)
    Output(as_json).document({"schema": wanted})


@schema_app.command("show")
def show_schema(owner: Owner = None, archive: options.ArchivePlace = None, as_json: options.AsJson = False) -> None:
    """Show the schema, as JSON."""
    out = Output(as_json)
    with opened(archive) as storage:
        found = storage.metadata_schema(owner)
    out.result(
        {"schema": found}, "There is no schema." if found is None else json.dumps(found, indent=2, ensure_ascii=True)
    )


@schema_app.command("rm")
def remove_schema(owner: Owner = None, archive: options.ArchivePlace = None, as_json: options.AsJson = False) -> None:
    """Take the schema away: metadata is free again."""
    out = Output(as_json)
    with opened(archive) as storage:
        gone = storage.remove_metadata_schema(owner)
    out.result({"removed": gone}, "Removed the schema." if gone else "There was no schema.")
