"""`mcp`: the archive for the language model of a client that starts this command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from audio_storage_system.cli import options
from audio_storage_system.cli.session import opened
from audio_storage_system.errors import InvalidInput
from audio_storage_system.settings import environment

if TYPE_CHECKING:
    from collections.abc import Callable

    from audio_storage_system import AudioStorageSystem

TOKEN = "TOKEN"  # noqa: S105 - the end of a variable's name


def mcp(
    allow_write: Annotated[
        bool, typer.Option("--allow-write", help="Offer the tools that change the archive, too; without: only reading.")
    ] = False,
    files: Annotated[
        list[Path] | None,
        typer.Option(
            "--files",
            metavar="FOLDER",
            help="With --allow-write: let files below this folder be stored and transcribed. Repeatable.",
        ),
    ] = None,
    as_user: options.AsUser = None,
    archive: options.ArchivePlace = None,
) -> None:
    """Serve the archive to a language model: the Model Context Protocol on standard input and output.

    Clients start this command themselves, for example: claude mcp add audio-storage -- audio-storage mcp --archive
    PLACE. Whose archive it is: everything, what --as names, or what the token in $AUDIO_STORAGE_TOKEN is good for.
    """
    token = environment(TOKEN)
    if token and as_user is not None:
        raise InvalidInput(reason="Give either --as or a token in AUDIO_STORAGE_TOKEN")
    if files and not allow_write:
        raise InvalidInput(reason="--files stores files, which needs --allow-write")

    from audio_storage_system.server.mcp.caller import Caller
    from audio_storage_system.server.mcp.folders import Folders
    from audio_storage_system.server.mcp.stdio import serve

    with opened(archive, as_user=as_user) as storage:
        folders = Folders(files or [], apart=storage.home)
        view = _viewing(storage, token)
        view()  # a token that is not accepted ends the command, before a client waits for it
        serve(lambda: Caller(view(), allow_write, folders, storage.settings.search_seconds))


def _viewing(storage: AudioStorageSystem, token: str) -> Callable[[], AudioStorageSystem]:
    """Gives the archive as the caller sees it now; a token that was revoked meanwhile is accepted no longer."""
    return (lambda: storage.tokens.authenticate(token)) if token else (lambda: storage)
