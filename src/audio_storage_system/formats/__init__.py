"""Transcripts as files, under the names whisper uses: srt, vtt, txt, tsv, json."""

from __future__ import annotations

from audio_storage_system.errors import UnknownSpec
from audio_storage_system.formats import srt, tsv, txt, vtt, whisper_json
from audio_storage_system.formats.base import Document, Format

__all__ = ["FORMATS", "Document", "Format", "find", "write"]

FORMATS = {format.name: format for format in (srt.FORMAT, vtt.FORMAT, txt.FORMAT, tsv.FORMAT, whisper_json.FORMAT)}


def find(name: str) -> Format:
    """The format called `name`. Raises `UnknownSpec`, which names those that exist."""
    if name not in FORMATS:
        raise UnknownSpec(kind="format", spec=name, known=", ".join(FORMATS))
    return FORMATS[name]


def write(name: str, document: Document) -> str:
    """`document` in the format called `name`. Raises `UnknownSpec`."""
    return find(name).write(document)
