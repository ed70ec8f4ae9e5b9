"""JSON as whisper and OpenAI's `verbose_json` lay it out, texts exactly as they are.

`{"text", "language", "duration", "segments": [{"id", "start", "end", "text", "speaker", "avg_logprob",
"compression_ratio", "no_speech_prob", "confidence", "words": [{"word", "start", "end", "probability"}]}]}`

Times are seconds with at most three decimals. What is not known is left out. `id` counts from 0. `speaker` is
whisperX's name; `confidence` and, beside `text`, `engine` and `flags` are our own.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from audio_storage_system.errors import InvalidInput
from audio_storage_system.formats.base import Document, Format, milliseconds, one_line, unified
from audio_storage_system.records import Segment, Word, jsonable

SCORES = ("confidence", "avg_logprob", "no_speech_prob", "compression_ratio")


def write(document: Document) -> str:
    """The document as JSON."""
    segments = sorted(document.segments, key=lambda segment: milliseconds(segment.start))
    data = {
        "text": " ".join(line for segment in segments if (line := one_line(segment.text))),
        "language": document.language,
        "duration": document.duration,
        "engine": document.engine,
        "flags": list(document.flags) or None,
        "segments": [{"id": number, **_segment_data(segment)} for number, segment in enumerate(segments)],
    }
    return json.dumps(_known(data), ensure_ascii=False, indent=2) + "\n"


def _segment_data(segment: Segment) -> dict[str, Any]:
    data = {
        **_times(segment),
        "text": segment.text,
        "speaker": segment.speaker,
        **{score: getattr(segment, score) for score in SCORES},
        "words": [_known(_word_data(word)) for word in segment.words] or None,
    }
    return _known(data)


def _word_data(word: Word) -> dict[str, Any]:
    return {"word": word.text, **_times(word), "probability": word.probability}


def _times(piece: Segment | Word) -> dict[str, float]:
    start = milliseconds(piece.start)
    return {"start": start / 1000, "end": max(start, milliseconds(piece.end)) / 1000}


def _known(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in jsonable(data).items() if value is not None}


def read(text: str) -> list[Segment]:
    """The segments of whisper's, whisperX's or OpenAI's JSON; words may stand in the segments or beside them.

    Raises `InvalidInput` for anything else.
    """
    try:
        data = json.loads(unified(text), parse_constant=lambda _: None)  # whisper itself writes NaN scores
        loose = [_word(item) for item in data.get("words") or ()]
        return [_segment(item, loose) for item in data["segments"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise InvalidInput(reason=f"This is not a transcript as JSON with segments: {error!r}") from error


def _segment(item: Mapping[str, Any], loose: list[Word]) -> Segment:
    start, end = _span(item)
    timed = [word for word in item.get("words") or () if "start" in word]  # whisperX omits times that it cannot align
    return Segment(
        start,
        end,
        str(item["text"]),
        words=tuple(_word(word) for word in timed) or tuple(word for word in loose if start <= word.start < end),
        speaker=None if item.get("speaker") is None else str(item["speaker"]),
        confidence=_number(item.get("confidence")),
        avg_logprob=_number(item.get("avg_logprob")),
        no_speech_prob=_number(item.get("no_speech_prob")),
        compression_ratio=_number(item.get("compression_ratio")),
    )


def _word(item: Mapping[str, Any]) -> Word:
    return Word(*_span(item), str(item["word"]), _number(item.get("probability", item.get("score"))))


def _span(item: Mapping[str, Any]) -> tuple[float, float]:
    start, end = float(item["start"]), float(item["end"])
    if not (math.isfinite(start) and math.isfinite(end)):
        raise ValueError(f"{start} to {end} is no stretch of time")
    return max(0.0, start), max(0.0, start, end)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


FORMAT = Format("json", ".json", "application/json", write, read)
