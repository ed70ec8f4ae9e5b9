"""Opening the archive for a command."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import typer

import audio_storage_system
from audio_storage_system.errors import KeyMissing
from audio_storage_system.keys import KeySource
from audio_storage_system.keys.sources import PASSPHRASE

if TYPE_CHECKING:
    from audio_storage_system import AudioStorageSystem


# The command that this process runs, which the audit log names.
COMMAND = ""


def named_origin() -> AbstractContextManager[None]:
    """In this block, the audit log says which command does what is done."""
    from audio_storage_system.audit import process_is

    return process_is(f"cli:{COMMAND}")


@contextmanager
def opened(
    place: str | None, *, create: bool = False, as_user: str | None = None, **settings: Any
) -> Iterator[AudioStorageSystem]:
    """The archive at `place`; made when it does not exist and `create` is set, else `ArchiveNotFound`. as_user: the
    name of who is to see it.

    Settings that are `None` are left to environment and file.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    with named_origin(), _open(place, create, given) as storage:
        yield storage if as_user is None else storage.as_user(as_user)


def _open(place: str | None, create: bool, given: dict[str, Any]) -> AudioStorageSystem:
    try:
        return audio_storage_system.AudioStorageSystem(place, create=create, **given)
    except KeyMissing as error:
        if not error.details.get("passphrase") or not sys.stdin.isatty():
            raise
    return audio_storage_system.AudioStorageSystem(place, create=create, **given | _asked(place, create))


def _asked(place: str | None, create: bool) -> dict[str, Any]:
    """The passphrase, from the terminal; twice for a new archive."""
    new = create and not audio_storage_system.AudioStorageSystem.exists(place)
    words = typer.prompt("Passphrase", hide_input=True, confirmation_prompt=new, err=True)
    return {"encryption": KeySource(passphrase=words, kind=PASSPHRASE)}
