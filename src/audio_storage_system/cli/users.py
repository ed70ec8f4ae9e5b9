"""`users`: who there is."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from audio_storage_system.cli import options
from audio_storage_system.cli.human import moment
from audio_storage_system.cli.output import Output
from audio_storage_system.cli.session import opened

app = typer.Typer(help="Who there is: users, groups of them, and services. An archive of one user needs none.")

Name = Annotated[str, typer.Argument(metavar="NAME")]
Group = Annotated[str, typer.Argument(metavar="GROUP")]
Member = Annotated[str, typer.Argument(metavar="NAME", help="A user, a service, or another group.")]


class KindChoice(StrEnum):
    """What a principal can be."""

    USER = "user"
    GROUP = "group"
    SERVICE = "service"


@app.command("add")
def add(
    name: Name,
    kind: Annotated[KindChoice, typer.Option(help="What it is.")] = KindChoice.USER,
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """Add a user, a group or a service."""
    out = Output(as_json)
    with opened(archive) as storage:
        added = storage.users.add(name, kind.value)
    out.result(added.as_dict(), f"Added the {added.kind} {added.name}.")


@app.command("list")
def list_users(archive: options.ArchivePlace = None, as_json: options.AsJson = False) -> None:
    """List everybody, with the groups that they are in."""
    out = Output(as_json)
    with opened(archive) as storage:
        found = storage.users.list()
    out.document({"users": [one.as_dict() for one in found]})
    rows = [(one.id, one.name, one.kind, ", ".join(one.groups), moment(one.created_at)) for one in found]
    out.table(("id", "name", "kind", "groups", "added"), rows, right=("id",))


@app.command("remove")
def remove(name: Name, archive: options.ArchivePlace = None, as_json: options.AsJson = False) -> None:
    """Remove somebody, with their grants and tokens; refused while they own recordings."""
    out = Output(as_json)
    with opened(archive) as storage:
        storage.users.remove(name)
    out.result({"removed": name}, f"Removed {name}.")


@app.command("join")
def join(group: Group, member: Member, archive: options.ArchivePlace = None, as_json: options.AsJson = False) -> None:
    """Make somebody a member of a group: what is granted to it is granted to them."""
    out = Output(as_json)
    with opened(archive) as storage:
        storage.users.join(group, member)
    out.result({"group": group, "member": member}, f"{member} is a member of {group}.")


@app.command("leave")
def leave(group: Group, member: Member, archive: options.ArchivePlace = None, as_json: options.AsJson = False) -> None:
    """Take a member out of a group."""
    out = Output(as_json)
    with opened(archive) as storage:
        storage.users.leave(group, member)
    out.result({"group": group, "member": member}, f"{member} is no member of {group}.")
