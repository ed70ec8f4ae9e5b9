"""JSON as whisper and OpenAI's `verbose_json` lay it out, texts exactly as they are.

`{"text", "language", "duration", "segments": [{"id", "start", "end", "text", "speaker", "avg_logprob",
"compression_ratio", "no_speech_prob", "confidence", "words": [{"word", "start", "end", "probability"}]}]}`

Times are seconds with at most three decimals. What is not known is left out. `id` counts from 0. `speaker` is
whisperX's name; `confidence` and, beside `text`, `engine` and `flags` are our own.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from audio_storage_system.errors import InvalidInput
from audio_storage_system.formats.base import Document, Format, milliseconds, one_line, unified
from audio_storage_system.records import Segment, Word, jsonable

T = TypeVar("T")
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


@dataclass(frozen=True, slots=True)
class Parsed:
    """What such a file holds. `model` is what its tool says it used, where it does."""

    segments: list[Segment]
    language: str | None = None
    model: str | None = None


def read(text: str) -> list[Segment]:
    """The segments of whisper's, whisperX's, whisper.cpp's or OpenAI's JSON; words may stand in the segments or beside
    them. Raises `InvalidInput` for anything else, naming the segment."""
    return parse(text).segments


def parse(text: str) -> Parsed:
    """The same with language and model."""
    try:
        data = json.loads(unified(text), parse_constant=lambda _: None)  # whisper itself writes NaN scores
    except json.JSONDecodeError as error:
        reason = f"This is not JSON: line {error.lineno}, column {error.colno}: {error.msg}"
        raise InvalidInput(reason=reason) from error
    except (ValueError, RecursionError) as error:
        raise InvalidInput(reason=f"This is not a transcript as JSON: {error!r}") from error
    if not isinstance(data, dict):
        raise InvalidInput(reason="This is not a transcript as JSON with segments: it is no object")
    if "segments" not in data and isinstance(data.get("transcription"), list):
        data = _from_whisper_cpp(data)
    loose = _each(data.get("words") or [], "word", _word)
    loose.sort(key=lambda word: word.start)
    starts = [word.start for word in loose]

    def segment(item: Mapping[str, Any]) -> Segment:
        return _segment(item, lambda start, end: loose[bisect_left(starts, start) : bisect_left(starts, end)])

    return Parsed(_each(data.get("segments"), "segment", segment), _text(data, "language"), _model(data))


def _each(items: Any, what: str, read_one: Callable[[Any], T]) -> list[T]:
    if not isinstance(items, list):
        raise InvalidInput(reason=f"This is not a transcript as JSON with segments: there is no list of {what}s")
    made = []
    for number, item in enumerate(items, 1):
        try:
            made.append(read_one(item))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            reason = f"This is not a transcript as JSON with segments: {what} {number} cannot be read: {error!r}"
            raise InvalidInput(reason=reason) from error
    return made


def _text(data: Mapping[str, Any], name: str) -> str | None:
    value = data.get(name)
    return value if isinstance(value, str) and value else None


def _model(data: Mapping[str, Any]) -> str | None:
    """The name of the model: tools write it in several places, most nowhere."""
    model = data.get("model")
    if isinstance(model, dict):
        return _text(model, "type") or _text(model, "name")
    return _text(data, "model") or _text(data, "whisper_model") or _text(data, "engine")


def _from_whisper_cpp(data: Mapping[str, Any]) -> dict[str, Any]:
    """whisper.cpp's own layout as ours: `{"transcription": [{"offsets": {"from", "to"} in ms, "text"}]}`."""

    def one(item: Mapping[str, Any]) -> dict[str, Any]:
        offsets = item["offsets"]
        return {"start": offsets["from"] / 1000, "end": offsets["to"] / 1000, "text": item["text"]}

    result = data.get("result")
    language = _text(result, "language") if isinstance(result, dict) else None
    segments = _each(data["transcription"], "segment", one)
    return {"segments": segments, "language": language, "model": data.get("model")}


def _segment(item: Mapping[str, Any], loose: Callable[[float, float], list[Word]]) -> Segment:
    start, end = _span(item)
    timed = [word for word in item.get("words") or () if "start" in word]  # whisperX omits times that it cannot align
    return Segment(
        start,
        end,
        str(item["text"]),
        words=tuple(_word(word) for word in timed) or tuple(loose(start, end)),
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
