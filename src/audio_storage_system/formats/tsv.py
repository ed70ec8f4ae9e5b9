"""Tab-separated values as whisper writes them: a line `start⇥end⇥text`, then times in whole milliseconds.

A known speaker stands before the text as `[name]: `; tabs and line breaks in a text become spaces.
"""

from __future__ import annotations

from audio_storage_system.errors import InvalidInput
from audio_storage_system.formats.base import Document, Format, cues, one_line, split_speaker, unified, with_speaker
from audio_storage_system.records import Segment

HEADER = "start\tend\ttext"


def write(document: Document) -> str:
    """The document as whisper's TSV, with its heading line."""
    rows = (f"{cue.start}\t{cue.end}\t{with_speaker(cue.speaker, one_line(cue.text))}" for cue in cues(document))
    return "\n".join([HEADER, *rows, ""])


def read(text: str) -> list[Segment]:
    """The segments of a TSV file, with or without its heading. Raises `InvalidInput` naming a line without times."""
    lines = unified(text).split("\n")
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if numbered and numbered[0][1].casefold().split("\t")[:2] == ["start", "end"]:
        numbered = numbered[1:]
    return [_segment(number, line) for number, line in numbered]


def _segment(number: int, line: str) -> Segment:
    begin, _, rest = line.partition("\t")
    finish, _, text = rest.partition("\t")
    try:
        start, end = max(0, round(float(begin))), round(float(finish))
    except (ValueError, OverflowError) as error:
        reason = f"This is not a TSV file of start, end (milliseconds) and text: line {number} has no times"
        raise InvalidInput(reason=reason) from error
    speaker, text = split_speaker(one_line(text))
    return Segment(start / 1000, max(start, end) / 1000, text, speaker=speaker)


FORMAT = Format("tsv", ".tsv", "text/tab-separated-values", write, read)
