"""`init`, `stats`, `reindex`: the archive as a whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

import audio_storage_system
from audio_storage_system.cli import options
from audio_storage_system.cli.human import size
from audio_storage_system.cli.output import Output
from audio_storage_system.cli.session import opened
from audio_storage_system.durable import disk_errors, make_folders
from audio_storage_system.errors import AudioStorageSystemError, Conflict
from audio_storage_system.settings import FILE_NAME, locate, shown


def init(
    text_embedder: Annotated[
        str | None,
        typer.Option(metavar="SPEC", help="What embeds texts, see the command models; reembed changes it later; auto."),
    ] = None,
    audio_embedder: Annotated[str | None, typer.Option(metavar="SPEC", help="What embeds sounds; auto.")] = None,
    transcriber: Annotated[
        str | None, typer.Option(metavar="SPEC", help="What transcribes unless a command says otherwise.")
    ] = None,
    transcriber_fallback: Annotated[
        str | None, typer.Option(metavar="SPEC", help="What stands in when its weights are not to be had; '': nothing.")
    ] = None,
    language: Annotated[
        str | None, typer.Option(metavar="CODE", help="What is spoken, when it is always the same.")
    ] = None,
    combined_weight: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of the words in combined embeddings.")
    ] = None,
    sidecars: Annotated[
        bool | None, typer.Option("--sidecars/--no-sidecars", help="Also write transcripts and embeddings as files.")
    ] = None,
    compress: Annotated[
        str | None, typer.Option(metavar="KIND", help="Also keep a 16 kHz copy of each recording: flac or pcm16.")
    ] = None,
    max_file_bytes: Annotated[int | None, typer.Option(help="Refuse larger files.")] = None,
    blobs: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Where the audio goes: s3://…, gs://…, az://…; default: the folder."),
    ] = None,
    vectors: Annotated[
        str | None,
        typer.Option(metavar="URL", help="What indexes vectors: qdrant:…, chroma:…, lancedb:…, postgresql://…"),
    ] = None,
    partition: Annotated[
        str | None, typer.Option(metavar="BY", help="Cut PostgreSQL's search table by year, month or owner:N.")
    ] = None,
    encrypt: Annotated[
        bool, typer.Option("--encrypt", help="Encrypt everything. A key file is made, unless there is a key.")
    ] = False,
    key_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="The key file, if not in your configuration folder.")
    ] = None,
    key_source: Annotated[
        str | None, typer.Option(metavar="KIND", help="Where the key is instead of a file: keyring or passphrase.")
    ] = None,
    accept_plaintext_catalogue: Annotated[
        bool,
        typer.Option(
            "--accept-plaintext-catalogue",
            help="Accept that PostgreSQL and vector databases keep texts and vectors readable.",
        ),
    ] = False,
    audit: Annotated[bool, typer.Option("--audit", help="Give the archive keys for an audit log.")] = False,
    archive: options.ArchivePlace = None,
    as_json: options.AsJson = False,
) -> None:
    """Make an archive. The settings given are kept in its audio-storage.toml.

    Where there is an archive already nothing happens; its settings are changed in that file.
    """
    out, home = Output(as_json), locate(archive)[0]
    values = {
        "text_embedder": text_embedder,
        "audio_embedder": audio_embedder,
        "transcriber": transcriber,
        "transcriber_fallback": transcriber_fallback,
        "language": language,
        "combined_weight": combined_weight,
        "sidecars": sidecars,
        "compress": compress,
        "max_file_bytes": max_file_bytes,
        "blobs_url": blobs,
        "vectors_url": vectors,
        "partition": partition,
        "key_file": str(Path(key_file).expanduser().absolute()) if key_file else None,
        "key_source": key_source,
        "accept_plaintext_vectors": True if accept_plaintext_catalogue and vectors else None,
    }
    given: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
    exists = audio_storage_system.AudioStorageSystem.exists(archive)
    if given and (exists or (home / FILE_NAME).exists()):
        raise Conflict(reason=f"There is an archive or its {FILE_NAME} at {home}; change its settings in that file")
    protection: dict[str, Any] = {
        "encryption": encrypt,
        "audit": audit,
        "accept_plaintext_catalogue": accept_plaintext_catalogue,
    }
    with _written(given, home, archive), opened(archive, create=True, **given, **protection) as storage:
        spaces, made = storage.stats()["spaces"], storage.keys.made
    out.document(
        {"home": str(home), "created": not exists, "settings": given, "spaces": spaces, "key_file": made and str(made)}
    )
    out.line(f"{'There is an archive at' if exists else 'Made an archive at'} {shown(archive)}")
    if made:
        lost = "nothing can ever be read again" if encrypt else "the archive does not open"
        out.line(f"Its key is in {made}. Keep a copy elsewhere: without it {lost}.")


@contextmanager
def _written(given: dict[str, Any], home: Path, archive: str | None) -> Iterator[None]:
    """The settings of an archive to be made stand in its file before there is anything of it, so that it never is
    without them, and go again where it comes to nothing."""
    if not given:
        yield
        return
    folders = [folder for folder in (home, *home.parents) if not folder.exists()]
    with disk_errors(home):
        make_folders(home, private=True)
        (home / FILE_NAME).write_text(_toml(given), encoding="utf-8")
    try:
        yield
    except BaseException:
        if not _is_there(archive):
            (home / FILE_NAME).unlink()
            _remove_empty(folders)
        raise


def _is_there(archive: str | None) -> bool:
    try:
        return audio_storage_system.AudioStorageSystem.exists(archive)
    except AudioStorageSystemError:  # with settings that name no place
        return False


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:  # something else is in it
            return


def _toml(values: dict[str, Any]) -> str:
    """Settings as TOML, whose strings, numbers and booleans are written as JSON's."""
    return "".join(f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in values.items())


def stats(
    as_user: options.AsUser = None, archive: options.ArchivePlace = None, as_json: options.AsJson = False
) -> None:
    """Show how much there is of everything."""
    out = Output(as_json)
    with opened(archive, as_user=as_user) as storage:
        numbers = storage.stats()
    out.document(numbers)
    spaces = numbers["spaces"]
    facts = {**numbers, "hours": f"{numbers['hours']:.2f}", "bytes": size(numbers["bytes"])}
    for name, value in facts.items():
        if name != "spaces":
            out.styled((f"{name:>12}  ", "dim"), (_joined(value), ""))
    out.line()
    columns = ("kind", "model", "dimension", "embeddings", "active")
    out.table(columns, [[space[name] for name in columns] for space in spaces], right=("dimension", "embeddings"))


def reindex(archive: options.ArchivePlace = None, as_json: options.AsJson = False) -> None:
    """Make everything derived anew: full text and vector indexes. Nothing that was stored is touched."""
    out = Output(as_json)
    with opened(archive) as storage:
        states = storage.reindex()
    out.document({name: {"indexed": state.indexed, "total": state.total} for name, state in states.items()})
    for name, state in states.items():
        out.line(f"{name}: {state.indexed} of {state.total} embeddings indexed")


def _joined(value: Any) -> str:
    return ", ".join(f"{key} {number}" for key, number in value.items()) if isinstance(value, dict) else str(value)
