"""`keys`: the keys of an encrypted archive."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from audio_storage_system.cli import options
from audio_storage_system.cli.human import count
from audio_storage_system.cli.output import Output
from audio_storage_system.cli.session import opened

app = typer.Typer(help="The keys of an encrypted archive.")


@app.command("show")
def show(archive: options.ArchivePlace = None, as_json: options.AsJson = False) -> None:
    """Show what opens the archive, and what the keys of its files are wrapped with. No secret is shown."""
    out = Output(as_json)
    with opened(archive) as storage:
        found = storage.keys.show()
    out.document(found)
    out.line(f"Archive {found['archive_id']}: {'encrypted' if found['encrypted'] else 'keys for the audit log only'}")
    if found["rotating"]:
        out.line("A rotation was cut short; finish it with: audio-storage keys rotate")
    out.line()
    out.table(("slot", "kind", "in use"), [[slot["id"], slot["kind"], slot["in_use"]] for slot in found["slots"]])
    out.line()
    rows = [[each["id"], each["current"], each["data_keys"]] for each in found["generations"]]
    out.table(("generation", "current", "data keys"), rows, right=("data keys",))


@app.command("rotate")
def rotate(
    new_key: Annotated[
        bool,
        typer.Option("--new-key", help="Also put a new key into the key file; the old one does not open it any more."),
    ] = False,
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """Wrap the key of every file with a new one. The audio itself is not written again.

    The archive may be in use meanwhile. Cut short, run it again: it goes on where it was.
    """
    out = Output(as_json)
    with opened(archive) as storage:
        done = storage.keys.rotate(new_key=new_key)
    out.document(done.as_dict())
    out.line(f"Wrapped {count(done.rewrapped, 'key')} anew{', finishing an earlier rotation' * done.resumed}.")
    if done.key_file:
        out.line(
            f"The new key is in {done.key_file}. Keep a copy elsewhere: without it nothing can ever be read again."
        )


@app.command("export")
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A new file, which only you may read then.")],
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """Write a key that opens the archive to a file, to be kept in another place."""
    out = Output(as_json)
    with opened(archive) as storage:
        written = storage.keys.export(file)
    out.result({"key_file": str(written)}, f"Wrote {written}. Whoever has it and the archive can read everything.")
