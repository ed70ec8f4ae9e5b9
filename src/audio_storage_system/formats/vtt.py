"""WebVTT (W3C): `HH:MM:SS.mmm --> HH:MM:SS.mmm`, speakers as `<v Name>`, `&`, `<` and `>` escaped.

Cues without text are left out.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from audio_storage_system.formats.base import Cue, Document, Format, clean_lines, cues, one_line, unified
from audio_storage_system.formats.timed_text import read_cues, refuse_unless_empty, timestamp
from audio_storage_system.records import Segment

VOICE = re.compile(r"<v(?:\.[^\s<>]*)?\s([^<>]*)>")
TAG = re.compile(r"<[^<>\n]*>")
ASIDE = re.compile(r"(NOTE|STYLE|REGION)(\s|$)")


def write(document: Document) -> str:
    """The document as WebVTT."""
    note = [f"NOTE quality: {one_line(', '.join(document.flags))}\n"] if document.flags else []
    return "\n".join(["WEBVTT\n", *note, *(f"{_cue(cue)}\n" for cue in cues(document) if cue.text)])


def _cue(cue: Cue) -> str:
    voice = f"<v {_escape(cue.speaker)}>".replace("-->", "-- >") if cue.speaker else ""  # an arrow would end the cue
    return f"{timestamp(cue.start, '.')} --> {timestamp(cue.end, '.')}\n{voice}{_escape(cue.text)}"


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def read(text: str) -> list[Segment]:
    """The segments of a WebVTT file; a cue with several voices gives one segment for each. Other tags are removed."""
    segments = [
        segment
        for start, end, lines in read_cues(text, _is_identifier)
        for segment in _segments(start, end, "\n".join(_without_asides(lines)))
    ]
    if not segments and not unified(text).startswith("WEBVTT"):
        refuse_unless_empty(unified(text), "WebVTT")
    return segments


def _is_identifier(lines: list[str]) -> bool:
    """An identifier stands between a blank line and the time line."""
    return bool(lines[-1].strip()) and len(lines) > 1 and not lines[-2].strip()


def _without_asides(lines: list[str]) -> Iterator[str]:
    """The lines that are text: comments, styles and regions begin after a blank line and end at one."""
    aside = False
    for before, line in zip([" ", *lines], lines, strict=False):
        aside = bool(line.strip()) and (aside or (not before and bool(ASIDE.match(line))))
        if not aside:
            yield line


def _segments(start: float, end: float, text: str) -> Iterator[Segment]:
    opening, *voices = VOICE.split(text)
    parts = [(None, opening), *zip(voices[::2], voices[1::2], strict=True)]
    clean = [(name, clean_lines(html.unescape(TAG.sub("", part)))) for name, part in parts]
    for name, said in clean:
        if said:
            yield Segment(start, end, said, speaker=one_line(html.unescape(name or "")) or None)


FORMAT = Format("vtt", ".vtt", "text/vtt", write, read)
