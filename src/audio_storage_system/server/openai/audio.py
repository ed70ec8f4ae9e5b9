"""`/v1/audio`: what is said in a file, as it is said or in English; it is archived unless that is turned off."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from anyio import to_thread
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from audio_storage_system.server.openai import forms
from audio_storage_system.server.openai.answers import Diarized, Transcription, Verbose, answer
from audio_storage_system.server.openai.clients import Client
from audio_storage_system.server.openai.events import begun
from audio_storage_system.server.openai.faults import documented
from audio_storage_system.server.openai.forms import (
    ANEW,
    FORMATS,
    GRANULARITIES,
    METADATA,
    STORE,
    TRANSLATION_FORMATS,
    Form,
)
from audio_storage_system.server.openai.work import ClientGone, Work
from audio_storage_system.server.sending import EVENTS

router = APIRouter(prefix="/audio", responses=documented(404, 409, 502))

GONE = 499  # as nginx calls it; nobody reads it
TEXT: dict[str, Any] = {"schema": {"type": "string"}}


def _field(description: str, **schema: Any) -> dict[str, Any]:
    return {"type": "string", "description": description, **schema}


def _list(description: str, **items: Any) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "string", **items}, "description": description}


COMMON: dict[str, Any] = {
    "file": _field("Sound in any format that ffmpeg reads.", contentMediaType="application/octet-stream"),
    "model": _field("As `/v1/models` lists them.", examples=["whisper-1"]),
    "prompt": _field("What leads the engine's style and spelling, where it takes that."),
    "temperature": {"type": "number", "enum": [0], "description": "Nothing is drawn by chance."},
    "store": {"type": "boolean", "description": f"Whether it is archived; also as the header `{STORE}`."},
    "anew": {
        "type": "boolean",
        "description": f"Whether also what was transcribed just so before is done again; also as the header `{ANEW}`.",
    },
    "metadata": _field(f"A JSON object, kept with the recording; also as the header `{METADATA}`."),
}
TRANSCRIPTION: dict[str, Any] = {
    **COMMON,
    "language": _field("What is spoken, ISO 639-1; found by itself where it is left out.", examples=["en"]),
    "languages[]": _list("The same; one at most."),
    "keywords[]": _list("Words to listen for; they become a part of the prompt."),
    "response_format": _field("The default is `json`.", enum=list(FORMATS)),
    "timestamp_granularities[]": _list("With `verbose_json`: what is timed.", enum=list(GRANULARITIES)),
    "stream": {"type": "boolean", "description": f"Events (`{EVENTS}`) as it is heard."},
    "chunking_strategy": _field("Sound is cut where nobody speaks, always.", enum=["auto"]),
    "include[]": _list("Refused: probabilities of tokens are not known."),
    "known_speaker_names[]": _list("Refused: speakers are not told apart yet."),
    "known_speaker_references[]": _list("Refused: speakers are not told apart yet."),
}
TRANSLATION: dict[str, Any] = {
    **COMMON,
    "response_format": _field("The default is `json`.", enum=list(TRANSLATION_FORMATS)),
}


def _body(properties: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": ["file", "model"], "additionalProperties": False}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


def _answers(*media_types: str) -> dict[int | str, dict[str, Any]]:
    headers = {
        "X-Audio-Id": {"description": "The recording in the archive.", "schema": {"type": "integer"}},
        "X-Transcript-Id": {"description": "The version of what is said.", "schema": {"type": "integer"}},
        "X-Audio-Storage-Engine": {"description": "What has heard it.", "schema": {"type": "string"}},
    }
    return {200: {"headers": headers, "content": dict.fromkeys(media_types, TEXT)}}


@router.post(
    "/transcriptions",
    summary="What is said in a file",
    response_model=Transcription | Verbose | Diarized,
    responses=_answers("text/plain", "application/x-subrip", "text/vtt", EVENTS),
    openapi_extra=_body(TRANSCRIPTION),
)
async def transcriptions(request: Request, storage: Client, form: Form) -> Response:
    """The file is stored and becomes searchable; the same file again is the same recording, and what was transcribed
    just so before is answered from the archive. Should the client go away, a job finishes it."""
    asked, upload = await to_thread.run_sync(forms.transcription, form, request.headers, storage)
    work = Work(storage, asked, upload)
    if asked.stream:
        return await _unless_gone(begun(request, work, speakers=asked.format == "diarized_json"))
    return await _unless_gone(_answered(request, work, asked))


@router.post(
    "/translations",
    summary="What is said in a file, in English",
    response_model=Transcription | Verbose,
    responses=_answers("text/plain", "application/x-subrip", "text/vtt"),
    openapi_extra=_body(TRANSLATION),
)
async def translations(request: Request, storage: Client, form: Form) -> Response:
    """With an engine that translates; 400 for any other. The translation becomes a version that searches do not
    follow."""
    asked, upload = await to_thread.run_sync(forms.translation, form, request.headers, storage)
    return await _unless_gone(_answered(request, Work(storage, asked, upload), asked))


async def _answered(request: Request, work: Work, asked: forms.Asked) -> Response:
    return await to_thread.run_sync(answer, await work.done(request), asked)


async def _unless_gone(response: Awaitable[Response]) -> Response:
    try:
        return await response
    except ClientGone:
        return Response(status_code=GONE)
