"""SubRip: `HH:MM:SS,mmm --> HH:MM:SS,mmm`, numbered from 1, speakers as `[name]: text`.

SubRip has no escapes. So that no player or reader takes text for something else, `-->` becomes `->`, and the opening of
a formatting tag (`<i>`, `{\\an8}`) gets a space after its bracket. Cues without text are left out.
"""

from __future__ import annotations

import re

from audio_storage_system.formats.base import (
    Cue,
    Document,
    Format,
    clean_lines,
    cues,
    split_speaker,
    unified,
    with_speaker,
)
from audio_storage_system.formats.timed_text import read_cues, refuse_unless_empty, timestamp
from audio_storage_system.records import Segment

ARROW = re.compile(r"-{2,}>")
TAG_START = re.compile(r"<(?=/?(?:b|i|u|s|font)\b)|\{(?=\\)", re.IGNORECASE)
TAG = re.compile(r"</?(?:b|i|u|s|font)\b[^<>\n]*>|\{\\[^{}\n]*\}", re.IGNORECASE)


def write(document: Document) -> str:
    """The document as SubRip."""
    shown = [cue for cue in cues(document) if cue.text]
    return "\n".join(f"{number}\n{_cue(cue)}\n" for number, cue in enumerate(shown, 1))


def _cue(cue: Cue) -> str:
    text = _safe(with_speaker(cue.speaker, cue.text))
    return f"{timestamp(cue.start, ',')} --> {timestamp(cue.end, ',')}\n{text}"


def _safe(text: str) -> str:
    return TAG_START.sub(lambda match: match[0] + " ", ARROW.sub("->", text))


def read(text: str) -> list[Segment]:
    """The segments of a SubRip file, formatting tags removed."""
    segments = [_segment(start, end, lines) for start, end, lines in read_cues(text, _is_number)]
    if not segments:
        refuse_unless_empty(unified(text), "SubRip")
    return segments


def _is_number(lines: list[str]) -> bool:
    return lines[-1].strip().isdecimal()


def _segment(start: float, end: float, lines: list[str]) -> Segment:
    speaker, text = split_speaker(clean_lines(TAG.sub("", "\n".join(lines))))
    return Segment(start, end, text, speaker=speaker)


FORMAT = Format("srt", ".srt", "application/x-subrip", write, read)
