"""`grants`: who may what."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from audio_storage_system.cli import options
from audio_storage_system.cli.human import moment
from audio_storage_system.cli.output import Output, say
from audio_storage_system.cli.session import opened
from audio_storage_system.notation import parse_instant, parse_metadata

app = typer.Typer(help="Who may what: with a recording, with those whose metadata says so, or with the whole archive.")


class RoleChoice(StrEnum):
    """What somebody may: each may what those before it may."""

    READER = "reader"
    EDITOR = "editor"
    OWNER = "owner"
    ADMIN = "admin"


@app.command("give")
def give(
    principal: Annotated[str, typer.Argument(metavar="NAME", help="A user, a group or a service.")],
    role: Annotated[RoleChoice, typer.Argument(metavar="ROLE", help="reader, editor, owner or admin.")],
    audio_id: Annotated[int | None, typer.Option("--recording", metavar="ID", help="This recording.")] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            "--where", metavar="KEY=VALUE", help="Recordings with this metadata, also those to come; repeatable: all."
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--everything", help="The whole archive.")] = False,
    expires: Annotated[str | None, typer.Option(metavar="TIME", help="Until then (ISO 8601, UTC).")] = None,
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """Let somebody read, edit, own (delete, and give rights on) recordings, or do everything."""
    out = Output(as_json)
    on: dict[str, Any] = {"audio_id": audio_id, "where": parse_metadata(where) if where else None}
    until = parse_instant("--expires", expires)
    with opened(archive) as storage:
        grant = storage.grants.give(principal, role.value, **on, everything=everything, expires_at=until)
    out.result(grant.as_dict(), f"{grant.principal} is {grant.role} of {_what(grant)} now (grant {grant.id}).")


@app.command("list")
def list_grants(
    principal: Annotated[str | None, typer.Option("--to", metavar="NAME", help="Only those to this one.")] = None,
    audio_id: Annotated[int | None, typer.Option("--recording", metavar="ID", help="Only those on this one.")] = None,
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """List what was given to whom."""
    out = Output(as_json)
    with opened(archive) as storage:
        found = storage.grants.list(principal, audio_id=audio_id)
    out.document({"grants": [grant.as_dict() for grant in found]})
    rows = [(g.id, g.principal, g.role, _what(g), moment(g.expires_at) if g.expires_at else "") for g in found]
    out.table(("id", "to", "role", "on", "until"), rows, right=("id",))
    if not found and not as_json:
        say("No grants.")


@app.command("revoke")
def revoke(
    grant_id: Annotated[int, typer.Argument(metavar="GRANT")],
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """Take a grant back, at once."""
    out = Output(as_json)
    with opened(archive) as storage:
        grant = storage.grants.revoke(grant_id)
    out.result(
        {"revoked": grant.as_dict()},
        f"{grant.principal} is no longer {grant.role} of {_what(grant)} by grant {grant.id}.",
    )


def _what(grant: Any) -> str:
    if grant.audio_id is not None:
        return f"recording {grant.audio_id}"
    conditions = " ".join(f"{key}={value}" for key, value in grant.where.items())
    return f"what has {conditions}" if conditions else "everything"
