"""How recordings, places in them and times are told to a language model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from audio_storage_system.clock import clock_time, mm_ss
from audio_storage_system.records import jsonable

SCHEME = "audio-storage"
MAX_DEPTH = 32
MAX_NAME_CHARS = 300


def recording_uri(audio_id: int) -> str:
    """The address of a recording as a resource."""
    return f"{SCHEME}://recordings/{audio_id}"


def transcript_uri(audio_id: int, start: float | None = None, end: float | None = None) -> str:
    """The address of what is said in a recording, between these seconds where they are given."""
    span = {"start": start, "end": end}
    query = "&".join(f"{name}={seconds:.2f}" for name, seconds in span.items() if seconds is not None)
    return f"{recording_uri(audio_id)}/transcript" + (f"?{query}" if query else "")


def at_clock(recorded_at: datetime, offset_minutes: int | None, seconds: float = 0.0) -> str:
    """When something was said, in the recording's own zone where that is known: ISO 8601, to the second."""
    return clock_time(recorded_at, offset_minutes, seconds).isoformat(timespec="seconds")


def citation(name: str, speaker: str | None, said_at: str, start: float, end: float) -> str:
    """`standup.wav, Anna, 2026-11-22T12:00:30+00:00, 00:30–00:58`"""
    parts = [called(part) for part in (name, speaker) if part]
    return ", ".join([*parts, said_at, f"{mm_ss(start)}–{mm_ss(end)}"])


def one_line(text: str) -> str:
    """What others named, without line breaks and invisible characters that could make it look like something else."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def called(name: str) -> str:
    """A name that others gave, as it is told: in one line, and not too long."""
    return one_line(name[:MAX_NAME_CHARS])


def length(duration: float) -> str:
    """How long a recording is, as people say it."""
    return f"{duration:.0f} s" if duration < 60 else mm_ss(duration)


def seconds(value: float) -> float:
    """A place in a recording, to a hundredth."""
    return round(value, 2)


def brief_metadata(values: Mapping[str, Any], max_chars: int) -> tuple[dict[str, Any], bool]:
    """Metadata as JSON, texts cut and later keys left out where it is longer than `max_chars`; and whether it was."""
    told: dict[str, Any] = {}
    left, cut = max_chars, False
    for key, value in values.items():
        plain = _plain(value)
        text = plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)
        if len(key) + len(text) > left:
            cut, room = True, left - len(key)
            if room > 0:
                told[key] = text[:room] + "…"
            break
        told[key] = plain
        left -= len(key) + len(text)
    return told, cut


def _plain(value: Any) -> Any:
    """A value of metadata as JSON; what is nested so deeply that readers of JSON refuse it as text."""
    if _nested(value, MAX_DEPTH):
        return jsonable(value)
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return "…"


def _nested(value: Any, most: int) -> bool:
    """Whether it is nested at most so deeply."""
    if not isinstance(value, dict | list | tuple):
        return True
    return most > 0 and all(_nested(one, most - 1) for one in (value.values() if isinstance(value, dict) else value))
