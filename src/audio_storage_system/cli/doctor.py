"""`doctor` and `models`: what can be used here, and how to get the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import audio_storage_system
from audio_storage_system.cli import options
from audio_storage_system.cli.human import count
from audio_storage_system.cli.output import Output
from audio_storage_system.cli.session import opened
from audio_storage_system.errors import AudioStorageSystemError
from audio_storage_system.settings import locate, shown

GRAVITY_COLOURS = {"serious": "red", "moderate": "yellow", "note": "dim"}


def doctor(
    archive: options.ArchivePlace = None,
    security: Annotated[
        bool, typer.Option("--security", help="Say instead what an auditor would: permissions, keys, tokens, backups …")
    ] = False,
    advisories: Annotated[
        Path | None,
        typer.Option(metavar="PLACE", help="With --security: a folder or file of known vulnerabilities (OSV)."),
    ] = None,
    stale_days: Annotated[
        float, typer.Option(min=0, metavar="DAYS", help="With --security: unused for so long is stale.")
    ] = 90.0,
    as_json: options.AsJson = False,
) -> None:
    """Say which engines, models and devices are usable here and how to get the rest. Asks no network.

    The exit code is 1 when the archive cannot be used or nothing here can transcribe; with --security, when something
    serious was found.
    """
    out = Output(as_json)
    if security:
        _security(out, archive, advisories, stale_days)
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


def _security(out: Output, place: str | None, advisories: Path | None, stale_days: float) -> None:
    with opened(place) as storage:
        report = storage.check_security(advisory_database=advisories, stale_days=stale_days)
    out.document(report.as_dict())
    for weakness in report.weaknesses:
        mark = f"{weakness.gravity.value:<9}", GRAVITY_COLOURS[weakness.gravity.value]
        out.styled(mark, (f"{weakness.name}  ", "bold"), (weakness.evidence, ""))
        out.styled((f"{'':9}{weakness.fix}", "cyan"))
    for name, reason in report.unchecked.items():
        out.line(f"Not checked ({name}): {reason}")
    if not report.weaknesses:
        out.line("Nothing was found.")
    raise typer.Exit(1 if report.serious else 0)


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
