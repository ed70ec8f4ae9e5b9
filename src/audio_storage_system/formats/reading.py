"""Transcripts that other programs made: the bytes of a file in, segments out, with what it tells of their origin."""

from __future__ import annotations

import codecs
import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

from audio_storage_system.errors import InvalidInput, TooLarge
from audio_storage_system.formats import srt, tsv, vtt, whisper_json
from audio_storage_system.formats.whisper_json import Parsed
from audio_storage_system.records import Segment, Word

MAX_BYTES = 64 << 20  # ten hours with every word timed are some 10 MB; reading takes about ten times as much memory
_READERS: dict[str, Callable[[str], Parsed]] = {
    ".json": whisper_json.parse,
    ".vtt": lambda text: Parsed(vtt.read(text)),
    ".srt": lambda text: Parsed(srt.read(text)),
    ".tsv": lambda text: Parsed(tsv.read(text)),
}
SUFFIXES = tuple(_READERS)  # the one that tells most first
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class TranscriptFile:
    """A transcript as a file holds it. Segments are in order of their start, else exactly as they stand there.

    `language` and `model` as the file tells them, `None` where it does not. `warnings` say what was odd.
    """

    name: str
    format: str
    file_hash: str
    segments: tuple[Segment, ...]
    language: str | None = None
    model: str | None = None
    warnings: tuple[str, ...] = ()


def read_file(path: Path) -> TranscriptFile:
    """Read a transcript: `.srt`, `.vtt`, `.tsv`, or `.json` as whisper, whisperX, whisper.cpp and OpenAI write it.

    Text is UTF-8 (UTF-16 with a mark); what is neither is read as Windows-1252, with a warning. Raises `InvalidInput`
    naming the file, and the line or segment where one is at fault, and `TooLarge` above 64 MiB.
    """
    _check_suffix(path)
    return _read(_bytes(path), Path(path.name))


def read_stream(stream: BinaryIO, name: str) -> TranscriptFile:
    """The same for a stream of the bytes of a file that is called `name`, which tells its format."""
    _check_suffix(Path(name))
    data = stream.read(MAX_BYTES + 1)
    _check_size(data, name)
    return _read(data, Path(name))


def _check_suffix(path: Path) -> None:
    if path.suffix.lower() not in _READERS:
        raise InvalidInput(reason=f"{path} is no transcript that can be read; there are: {', '.join(SUFFIXES)}")


def _check_size(data: bytes, name: str) -> None:
    if len(data) > MAX_BYTES:
        raise TooLarge(what=name, limit=f"{MAX_BYTES:,} bytes for a transcript")


def _read(data: bytes, path: Path) -> TranscriptFile:
    suffix = path.suffix.lower()
    try:
        text, warnings = _decoded(data)
        if not text.strip():
            raise InvalidInput(reason="It is empty")
        parsed = _READERS[suffix](text)
    except InvalidInput as error:
        raise InvalidInput(reason=f"{path.name}: {error.message}") from error
    segments, disorder = _in_order([_storable(segment) for segment in parsed.segments])
    return TranscriptFile(
        name=path.name,
        format=suffix[1:],
        file_hash=hashlib.sha256(data).hexdigest(),
        segments=tuple(segments),
        language=parsed.language,
        model=parsed.model,
        warnings=tuple(warnings + disorder),
    )


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise InvalidInput(reason=f"There is no file {path}") from error
    except (OSError, ValueError) as error:
        raise InvalidInput(reason=f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    _check_size(data, path.name)
    return data


def _decoded(data: bytes) -> tuple[str, list[str]]:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace"), []
    try:
        return data.decode("utf-8-sig"), []
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return data.decode("cp1252", "replace"), [f"line {line} is not UTF-8: the file was read as Windows-1252"]


def _in_order(segments: list[Segment]) -> tuple[list[Segment], list[str]]:
    late = sum(after.start < before.start for before, after in pairwise(segments))
    warnings = (
        [f"{late} of {len(segments)} cues begin before the one above them: they were put in order"] if late else []
    )
    return sorted(segments, key=lambda segment: segment.start), warnings


def _storable(segment: Segment) -> Segment:
    """Without what no catalogue takes: NUL and halves of characters."""
    texts = (segment.text, segment.speaker or "", *(word.text for word in segment.words))
    if not any(map(_UNSTORABLE.search, texts)):
        return segment
    words = tuple(Word(word.start, word.end, _clean(word.text), word.probability) for word in segment.words)
    speaker = None if segment.speaker is None else _clean(segment.speaker)
    return replace(segment, text=_clean(segment.text), words=words, speaker=speaker)


def _clean(text: str) -> str:
    return _UNSTORABLE.sub("", text)


def last_end(segments: Sequence[Segment]) -> float:
    """Where the last segment ends, in seconds; 0 where there is none."""
    return max((segment.end for segment in segments), default=0.0)
