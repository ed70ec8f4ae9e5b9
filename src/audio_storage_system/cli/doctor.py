"""`doctor` and `models`: what can be used here, and how to get the rest."""

from __future__ import annotations

from typing import Any

import typer

import audio_storage_system
from audio_storage_system.cli import options
from audio_storage_system.cli.human import count
from audio_storage_system.cli.output import Output
from audio_storage_system.cli.session import opened
from audio_storage_system.errors import AudioStorageSystemError
from audio_storage_system.settings import locate, shown


def doctor(archive: options.ArchivePlace = None, as_json: options.AsJson = False) -> None:
    """Say which engines, models and devices are usable here and how to get the rest. Asks no network.

    The exit code is 1 when the archive cannot be used or nothing here can transcribe.
    """
    out = Output(as_json)
    checks = [check.as_dict() for check in audio_storage_system.diagnose(locate(archive)[0])]
    checks.append(_archive(archive))
    out.document({"checks": checks})
    for check in checks:
        mark = ("ok  ", "green") if check["usable"] else ("no  ", "yellow")
        out.styled(mark, (f"{check['area']:<16}", "dim"), (f"{check['name']}  ", "bold"), (check["detail"], ""))
        if check["remedy"]:
            out.styled((f"{'':20}{check['remedy']}", "cyan"))
    usable = {check["area"] for check in checks if check["usable"]}
    raise typer.Exit(0 if {"archive", "transcriber"} <= usable else 1)


def models(archive: options.ArchivePlace = None, as_json: options.AsJson = False) -> None:
    """List what can transcribe and embed: the spec to write, its size, and whether it is here already."""
    out = Output(as_json)
    known = [model.as_dict() for model in audio_storage_system.known_models()]
    out.document({"models": known})
    rows = [(m["kind"], m["spec"], _megabytes(m["megabytes"]), "yes" if m["here"] else "", m["note"]) for m in known]
    out.table(("kind", "spec", "size", "here", ""), rows, right=("size",))


def _archive(place: str | None) -> dict[str, Any]:
    check: dict[str, Any] = {"area": "archive", "name": shown(place), "usable": True, "remedy": ""}
    try:
        if not audio_storage_system.AudioStorageSystem.exists(place):
            return {**check, "detail": "none yet; the first add, record or init makes it"}
        with opened(place) as storage:
            numbers = storage.stats()
    except AudioStorageSystemError as error:
        return {**check, "usable": False, "detail": error.message}
    spaces = ", ".join(space["model"] for space in numbers["spaces"] if space["active"])
    return {**check, "detail": f"{count(numbers['recordings'], 'recording')}, {numbers['hours']:.1f} h; {spaces}"}


def _megabytes(number: float | None) -> str:
    return f"{number:,.0f} MB" if number else ""
