"""What SubRip and WebVTT have in common: time lines, and the text between them, read leniently."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from audio_storage_system.errors import InvalidInput
from audio_storage_system.formats.base import unified

_TIME = r"(?:(\d{1,9}):)?(\d{1,2}):(\d{1,2})(?:[.,](\d+))?"
TIME_LINE = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}(?:\s.*)?")
_MEANT_AS_TIMES = re.compile(r"\s*-?\d+:\S*\s*-->")


def timestamp(milliseconds: int, point: str) -> str:
    """`HH:MM:SS` + `point` + `mmm`; more than 99 hours take more digits."""
    seconds, milliseconds = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{point}{milliseconds:03}"


def read_cues(text: str, is_identifier: Callable[[list[str]], bool]) -> Iterator[tuple[float, float, list[str]]]:
    """Start, end (seconds) and lines of each cue. What stands before the first time line is skipped.

    Lines up to the next time line belong to a cue, blank ones included, so that a file with blank lines inside its
    texts loses nothing; `is_identifier` says whether the last of them is the next cue's number or name instead. Raises
    `InvalidInput` naming a line whose times cannot be read.
    """
    current: tuple[float, float, list[str]] | None = None
    for number, line in enumerate(unified(text).split("\n"), 1):
        match = TIME_LINE.fullmatch(line) if "-->" in line else None
        if match is None:
            if _MEANT_AS_TIMES.match(line):
                raise InvalidInput(reason=f"Line {number} has times that cannot be read: {line.strip()[:80]}")
            if current:
                current[2].append(line)
            continue
        if current:
            yield _without_identifier(current, is_identifier)
        start, end = _seconds(match.groups()[:4]), _seconds(match.groups()[4:])
        current = (start, max(start, end), [])
    if current:
        yield current


def _without_identifier(
    cue: tuple[float, float, list[str]], is_identifier: Callable[[list[str]], bool]
) -> tuple[float, float, list[str]]:
    start, end, lines = cue
    return (start, end, lines[:-1]) if lines and is_identifier(lines) else cue


def _seconds(groups: tuple[str | None, ...]) -> float:
    hours, minutes, seconds, fraction = (group or "0" for group in groups)
    milliseconds = int(fraction[:3].ljust(3, "0"))
    return ((int(hours) * 60 + int(minutes)) * 60_000 + int(seconds) * 1000 + milliseconds) / 1000


def refuse_unless_empty(text: str, what: str) -> None:
    """Raise `InvalidInput` for a file that has content but nothing in it with a time."""
    if text.strip():
        raise InvalidInput(reason=f"This is not a {what} file: no line in it has times")
