"""`tokens`: what programs prove themselves with."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from audio_storage_system.cli import options
from audio_storage_system.cli.human import moment
from audio_storage_system.cli.output import Output, say
from audio_storage_system.cli.session import opened
from audio_storage_system.notation import parse_instant

app = typer.Typer(help="API tokens: what programs prove themselves with.")


class ScopeChoice(StrEnum):
    """What a token is for; each includes those before it."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


@app.command("create")
def create(
    principal: Annotated[str, typer.Argument(metavar="NAME", help="Whose it is.")],
    name: Annotated[str, typer.Option("--name", metavar="TEXT", help="What it is for.")] = "",
    scope: Annotated[ScopeChoice, typer.Option(help="What it is good for, of what its owner may.")] = ScopeChoice.READ,
    expires: Annotated[
        str | None, typer.Option(metavar="TIME", help="Until then (ISO 8601, UTC); without: until it is revoked.")
    ] = None,
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """Make a token and show it, once: it is kept nowhere."""
    out = Output(as_json)
    until = parse_instant("--expires", expires)
    with opened(archive) as storage:
        made = storage.tokens.create(principal, name=name, scopes=[scope.value], expires_at=until)
    out.result(made.as_dict(), made.secret)
    if not as_json:
        say(f"Token {made.token.id} of {principal}, to {scope.value}. It is not shown again.")


@app.command("list")
def list_tokens(
    principal: Annotated[str | None, typer.Option("--of", metavar="NAME", help="Only those of this one.")] = None,
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """List tokens, without the tokens themselves."""
    out = Output(as_json)
    with opened(archive) as storage:
        found = storage.tokens.list(principal)
    out.document({"tokens": [token.as_dict() for token in found]})
    columns = ("id", "of", "name", "scopes", "made", "until", "used", "revoked")
    moments = [
        [moment(t) if t else "" for t in (x.created_at, x.expires_at, x.last_used_at, x.revoked_at)] for x in found
    ]
    rows = [(x.id, x.principal, x.name, ", ".join(x.scopes), *when) for x, when in zip(found, moments, strict=True)]
    out.table(columns, rows, right=("id",))
    if not found and not as_json:
        say("No tokens.")


@app.command("revoke")
def revoke(
    token_id: Annotated[int, typer.Argument(metavar="TOKEN", help="Its number, as `tokens list` shows it.")],
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """Accept a token no longer, from now on."""
    out = Output(as_json)
    with opened(archive) as storage:
        token = storage.tokens.revoke(token_id)
    out.result(token.as_dict(), f"Token {token.id} of {token.principal} is accepted no longer.")
