"""The resources: recordings and transcripts under addresses of their own."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import mcp_types as types

from audio_storage_system.errors import InvalidInput, NotFound
from audio_storage_system.records import Recording
from audio_storage_system.server.mcp import finding, reading, telling
from audio_storage_system.server.mcp.arguments import MAX_ID, GetRecording
from audio_storage_system.server.mcp.caller import Caller

PAGE = 100
TEXT, JSON = "text/plain", "application/json"
_LONGEST = 300
_ADDRESS = re.compile(rf"{telling.SCHEME}://recordings/([1-9][0-9]{{0,15}})(/transcript(?:\?([^#]*))?)?")
TEMPLATES = (
    types.ResourceTemplate(
        name="transcript",
        title="Transcript of a recording",
        uri_template=f"{telling.SCHEME}://recordings/{{audio_id}}/transcript{{?start,end}}",
        description="What is said in a recording, a line for each segment: [mm:ss] Speaker: words. With start and end, "
        "only what is said between these seconds.",
        mime_type=TEXT,
    ),
    types.ResourceTemplate(
        name="recording",
        title="Recording",
        uri_template=f"{telling.SCHEME}://recordings/{{audio_id}}",
        description="What is known of a recording: times, format, metadata, versions of its transcript.",
        mime_type=JSON,
    ),
)


@dataclass(frozen=True, slots=True)
class Address:
    """What an address names."""

    audio_id: int
    transcript: bool
    start: float | None = None
    end: float | None = None

    @classmethod
    def of(cls, uri: str) -> Address:
        """Raises `NotFound` for what is no address of ours, `InvalidInput` for seconds that are none."""
        found = _ADDRESS.fullmatch(uri) if len(uri) <= _LONGEST else None
        if found is None or int(found[1]) > MAX_ID:
            raise NotFound("There is no such resource.")
        return cls(int(found[1]), found[2] is not None, **_span(found[3] or ""))


def _span(query: str) -> dict[str, float]:
    span: dict[str, float] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in ("start", "end") or name in span:
            raise InvalidInput(reason="An address of a transcript takes start and end, each once")
        try:
            span[name] = float(value)
        except ValueError as error:
            raise InvalidInput(reason=f"{name} is a number of seconds") from error
        if not math.isfinite(span[name]) or not 0 <= span[name] <= 1e9:
            raise InvalidInput(reason=f"{name} is a number of seconds, not negative")
    return span


def listed(caller: Caller, cursor: str | None) -> types.ListResourcesResult:
    """A page of transcripts, those of the latest recordings first. Raises `InvalidInput` for another cursor."""
    found, following = finding.listing(caller, "resources", cursor, PAGE)
    return types.ListResourcesResult(resources=[_transcript_of(one) for one in found], next_cursor=following)


def _transcript_of(one: Recording) -> types.Resource:
    name, at = telling.called(one.original_name), telling.at_clock(one.recorded_at, one.recorded_offset_minutes)
    long = "" if one.duration is None else f" of {telling.length(one.duration)}"
    return types.Resource(
        name=name or f"recording {one.id}",
        title=f"{name}, {at}",
        uri=telling.transcript_uri(one.id),
        description=f"What is said in this recording{long}.",
        mime_type=TEXT,
    )


def read(caller: Caller, uri: str) -> types.ReadResourceResult:
    """What is at an address. Raises `NotFound`, `InvalidInput`."""
    address = Address.of(uri)
    if address.transcript:
        text, kind = reading.as_text(caller, address.audio_id, address.start, address.end), TEXT
    else:
        text, kind = _as_json(reading.get_recording(caller, GetRecording(audio_id=address.audio_id)).as_dict()), JSON
    return types.ReadResourceResult(contents=[types.TextResourceContents(uri=uri, mime_type=kind, text=text)])


def _as_json(data: dict[str, Any]) -> str:
    return json.dumps(data, ensure_ascii=False, allow_nan=False)
