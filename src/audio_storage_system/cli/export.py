"""`export`: transcripts as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from audio_storage_system.cli import options
from audio_storage_system.cli.output import Output
from audio_storage_system.cli.session import opened
from audio_storage_system.errors import Conflict, InvalidInput, UnknownSpec

FORMATS = ("srt", "vtt", "txt", "tsv", "json")
STDOUT = "-"


def export(
    audio_ids: Annotated[list[int], typer.Argument(metavar="IDS…")],
    format: Annotated[
        str, typer.Option("--format", "-f", metavar="NAMES", help="srt, vtt, txt, tsv, json; several with commas; all.")
    ] = "srt",
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="FOLDER", help="Where the files go; - is stdout (default for a single file)."
        ),
    ] = None,
    transcript: Annotated[
        int | None, typer.Option(metavar="ID", help="This version instead of the one that search follows.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
    as_user: options.AsUser = None,
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """Write transcripts as subtitles, text, table or JSON, named after their recordings."""
    names = _formats(format)
    if transcript is not None and len(audio_ids) > 1:
        raise InvalidInput(reason="--transcript goes with one recording")
    output = output or (STDOUT if len(audio_ids) * len(names) == 1 or as_json else None)
    if output is None:
        raise InvalidInput(reason="Say where the files shall go: --output FOLDER (or - for stdout)")
    with opened(archive, as_user=as_user) as storage:
        texts = [
            (storage.get_recording(audio_id).original_name, audio_id, name, storage.export(audio_id, name, transcript))
            for audio_id in dict.fromkeys(audio_ids)
            for name in names
        ]
    _deliver(texts, output, Output(as_json), force)


def _formats(text: str) -> list[str]:
    names = list(FORMATS) if text.strip() == "all" else [name.strip().lower() for name in text.split(",")]
    for name in names:
        if name not in FORMATS:
            raise UnknownSpec(kind="format", spec=name, known=", ".join((*FORMATS, "all")))
    return list(dict.fromkeys(names))


def _deliver(texts: list[tuple[str, int, str, str]], output: str, out: Output, force: bool) -> None:
    exports: list[dict[str, Any]] = []
    paths = _paths([(name, audio_id, suffix) for name, audio_id, suffix, _ in texts], Path(output))
    if output != STDOUT:
        _check(paths, force)
    for (_, audio_id, format_name, text), path in zip(texts, paths, strict=True):
        place = {"content": text} if output == STDOUT else {"path": str(_write(path, text))}
        exports.append({"audio_id": audio_id, "format": format_name, **place})
        out.line(text.removesuffix("\n") if output == STDOUT else str(path))
    out.document({"exports": exports})


def _paths(wanted: list[tuple[str, int, str]], folder: Path) -> list[Path]:
    """A file for each; recordings of the same name are told apart by their ids."""
    owners: dict[str, int] = {}
    paths = []
    for name, audio_id, suffix in wanted:
        stem = Path(name).stem or f"recording_{audio_id}"
        owner = owners.setdefault(stem.casefold(), audio_id)
        paths.append(folder / (f"{stem}.{suffix}" if owner == audio_id else f"{stem}-{audio_id}.{suffix}"))
    return paths


def _check(paths: list[Path], force: bool) -> None:
    existing = [path for path in paths if path.exists()]
    if existing and not force:
        raise Conflict(reason=f"{existing[0]} exists already; --force replaces it")


def _write(path: Path, text: str) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise InvalidInput(reason=f"{path} cannot be written: {error.strerror}") from error
    return path
