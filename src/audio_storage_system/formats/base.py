"""What every transcript format shares: the document, its cues in order, and text that cannot break a line format."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from audio_storage_system.records import Segment

CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff]")
SPEAKER = re.compile(r"\[([^\[\]\n]+)\]: ?")


@dataclass(frozen=True, slots=True)
class Document:
    """One transcript to be written: its segments in any order, its language (ISO 639-1) and duration in seconds.

    `engine` made it; `flags` say what to know of its quality. Formats without a place for notes leave both out.
    """

    segments: tuple[Segment, ...]
    language: str | None = None
    duration: float | None = None
    engine: str | None = None
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Format:
    """One way to write a transcript. `read` is `None` where a file does not hold enough to be read back.

    `read` raises `InvalidInput` for text that is nothing of the kind.
    """

    name: str
    suffix: str
    media_type: str
    write: Callable[[Document], str]
    read: Callable[[str], list[Segment]] | None = None


@dataclass(frozen=True, slots=True)
class Cue:
    """A segment as a file shows it. `start` ≤ `end`, both whole milliseconds; `speaker` and `text` as clean lines."""

    start: int
    end: int
    speaker: str | None
    text: str


def milliseconds(seconds: float) -> int:
    """Seconds as whole milliseconds, never negative."""
    return max(0, round(seconds * 1000))


def cues(document: Document) -> Iterator[Cue]:
    """The document's segments as cues, by start (WebVTT asks for that); several at one time keep their order."""
    for segment in sorted(document.segments, key=lambda segment: milliseconds(segment.start)):
        start = milliseconds(segment.start)
        speaker = one_line(segment.speaker or "") or None
        yield Cue(start, max(start, milliseconds(segment.end)), speaker, clean_lines(segment.text))


def clean_lines(text: str) -> str:
    """`text` with line breaks as `\\n`, without blank lines, control characters and space at the ends of lines."""
    lines = CONTROLS.sub(" ", text.replace("\r\n", "\n").replace("\r", "\n")).split("\n")
    return "\n".join(stripped for line in lines if (stripped := line.strip()))


def one_line(text: str) -> str:
    """`text` as a single clean line."""
    return clean_lines(text).replace("\n", " ")


def with_speaker(speaker: str | None, text: str) -> str:
    """`[speaker]: text`, the style of whisperX. Text alone that would look like that gets a space before the colon."""
    if speaker is not None:
        return f"[{speaker.replace('[', '(').replace(']', ')')}]: {text}"
    return re.sub(r"^(\[[^\[\]\n]+\]):", r"\1 :", text)


def split_speaker(text: str) -> tuple[str | None, str]:
    """What `with_speaker` put together."""
    if match := SPEAKER.match(text):
        return match[1], text[match.end() :]
    return None, text


def unified(text: str) -> str:
    """File content without byte order mark, with line breaks as `\\n`."""
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
