"""What a form asks of the audio endpoints, checked field by field."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Annotated, Any, BinaryIO, TypeVar

from fastapi import Depends
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.requests import Request

from audio_storage_system import AudioStorageSystem
from audio_storage_system.records import Metadata
from audio_storage_system.server.incoming import file_in, form_of, must_write
from audio_storage_system.server.openai import models
from audio_storage_system.server.openai.clients import Client
from audio_storage_system.server.openai.faults import refused
from audio_storage_system.transcribers.languages import LANGUAGES, language_code

FORMATS = ("json", "text", "srt", "verbose_json", "vtt", "diarized_json")
TRANSLATION_FORMATS = FORMATS[:-1]
STREAMED = ("json", "text", "diarized_json")
GRANULARITIES = ("word", "segment")
METADATA, STORE, ANEW = "X-Audio-Storage-Metadata", "X-Audio-Storage-Store", "X-Audio-Storage-Anew"
BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
VOICE_FIELD = re.compile(r"chunking_strategy\[(\w+)\]", re.ASCII)
# Whisper reads 224 tokens of it; a form's field may have a million characters.
LONGEST_PROMPT = 8_000

T = TypeVar("T")


async def _form(request: Request, storage: Client) -> AsyncIterator[FormData]:
    async with form_of(request, storage, partial(_refuse_storing, request.headers, storage)) as form:
        yield form


def _refuse_storing(headers: Headers, storage: AudioStorageSystem, fields: FormData) -> None:
    """Who may only read says that nothing is to be stored before the file comes."""
    if _is_to_store(Fields(fields), headers, storage):
        must_write(storage, "store recordings")


# Whoever may not ask has sent nothing that is read; files are there until the answer is sent.
Form = Annotated[FormData, Depends(_form)]


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be done with a file. spec: what transcribes; `None`: what the archive is set to. anew: also where the
    same was done before."""

    model: str
    spec: str | None
    format: str
    translate: bool = False
    language: str | None = None
    prompt: str | None = None
    granularities: tuple[str, ...] = ("segment",)
    stream: bool = False
    store: bool = True
    anew: bool = False
    metadata: Metadata | None = None


@dataclass(frozen=True, slots=True)
class Upload:
    """The file that came."""

    name: str
    file: BinaryIO


class Fields:
    """The fields of a form, each of which is asked for; what nobody asks for is unknown."""

    def __init__(self, form: FormData) -> None:
        self._left: dict[str, list[Any]] = {}
        for name, value in form.multi_items():
            self._left.setdefault(name, []).append(value)

    def upload(self, form: FormData) -> Upload:
        """The file."""
        upload = file_in(form)
        if len(self._left.pop("file")) > 1:
            raise refused("file", "file is one file, and nothing else", "duplicate_parameter")
        name = PurePosixPath((upload.filename or "").replace("\\", "/")).name
        return Upload(name or "recording", upload.file)

    def one(self, name: str) -> str | None:
        """A field that may be there once; an empty one is as good as none."""
        values = self._left.pop(name, [])
        if len(values) > 1:
            raise refused(name, f"{name} was given {len(values)} times", "duplicate_parameter")
        return self._text(name, values[0]) if values else None

    def many(self, name: str) -> list[str]:
        """A field that may be there several times, with `[]` behind its name or not."""
        values = [*self._left.pop(name, []), *self._left.pop(f"{name}[]", [])]
        return [text for value in values if (text := self._text(name, value)) is not None]

    def choice(self, name: str, of: Sequence[str]) -> str | None:
        """One of these."""
        value = self.one(name)
        if value is not None and value not in of:
            raise refused(name, f'{name} is one of {", ".join(of)}, not "{value[:50]}"')
        return value

    def boolean(self, name: str) -> bool | None:
        """Yes or no."""
        value = self.one(name)
        return None if value is None else _boolean(name, value)

    def grouped(self, pattern: re.Pattern[str]) -> dict[str, str]:
        """The fields whose names match, under what is captured there."""
        names = [(name, match[1]) for name in self._left if (match := pattern.fullmatch(name))]
        return {short: self.one(name) or "" for name, short in names}

    def done(self) -> None:
        """Raise `InvalidInput` for what nobody has asked for."""
        for name in self._left:
            raise refused(name[:100], f"Unknown parameter: {name[:100]}", "unknown_parameter")

    def _text(self, name: str, value: str | UploadFile) -> str | None:
        if not isinstance(value, str):
            raise refused(name, f"{name} is a field, not a file")
        if "\0" in value:
            raise refused(name, f"{name} holds a NUL")
        return value.strip() or None


def transcription(form: FormData, headers: Headers, storage: AudioStorageSystem) -> tuple[Asked, Upload]:
    """What a form asks of `/audio/transcriptions`, and its file. Raises `InvalidInput`, `NotFound`."""
    fields = Fields(form)
    upload, common = fields.upload(form), _common(fields, headers, storage)
    _refuse_unknown_abilities(fields)
    format_ = fields.choice("response_format", FORMATS) or "json"
    asked = Asked(
        format=format_,
        language=_language(fields),
        prompt=_prompt(fields),
        granularities=_granularities(fields, format_),
        stream=_stream(fields, format_),
        **common,
    )
    fields.done()
    return asked, upload


def translation(form: FormData, headers: Headers, storage: AudioStorageSystem) -> tuple[Asked, Upload]:
    """What a form asks of `/audio/translations`, and its file. Raises `InvalidInput`, `NotFound`."""
    fields = Fields(form)
    upload, common = fields.upload(form), _common(fields, headers, storage)
    format_ = fields.choice("response_format", TRANSLATION_FORMATS) or "json"
    asked = Asked(format=format_, prompt=_limited(fields.one("prompt")), translate=True, **common)
    fields.done()
    return asked, upload


def _common(fields: Fields, headers: Headers, storage: AudioStorageSystem) -> dict[str, Any]:
    model = fields.one("model")
    if model is None:
        raise refused("model", "Say which model: /v1/models lists them", "missing_required_parameter")
    _check_temperature(fields)
    store = _is_to_store(fields, headers, storage)
    metadata = _metadata(fields, headers)
    if metadata and not store:
        raise refused("metadata", "Metadata is kept with a recording, and this one is not to be stored")
    anew = bool(_first(fields.boolean("anew"), _header(headers, ANEW)))
    spec = models.transcriber(storage, model)
    return {"model": model, "spec": spec, "store": store, "anew": anew, "metadata": metadata}


def _is_to_store(fields: Fields, headers: Headers, storage: AudioStorageSystem) -> bool:
    return bool(_first(fields.boolean("store"), _header(headers, STORE), storage.settings.openai_store))


def _first(*values: T | None) -> T | None:
    return next((value for value in values if value is not None), None)


def _header(headers: Headers, name: str) -> bool | None:
    value = headers.get(name)
    return None if value is None else _boolean(name, value.strip())


def _boolean(name: str, value: str) -> bool:
    if value.lower() not in BOOLEANS:
        raise refused(name, f'{name} is true or false, not "{value[:50]}"')
    return BOOLEANS[value.lower()]


def _metadata(fields: Fields, headers: Headers) -> Metadata | None:
    inside, outside = fields.one("metadata"), headers.get(METADATA)
    if inside and outside:
        raise refused("metadata", f"Give metadata in the form or in {METADATA}, not in both")
    text = inside or outside
    if not text:
        return None
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise refused("metadata", "The metadata is not JSON") from error
    if not isinstance(values, dict):
        raise refused("metadata", "The metadata is a JSON object")
    return values


def _check_temperature(fields: Fields) -> None:
    text = fields.one("temperature")
    if text is None:
        return
    try:
        temperature = float(text)
    except ValueError as error:
        raise refused("temperature", "temperature is a number") from error
    if not 0 <= temperature <= 1:
        raise refused("temperature", "temperature is a number from 0 to 1")
    if temperature:
        reason = "Nothing is drawn by chance here: the same sound gives the same text. Leave temperature out, or give 0"
        raise refused("temperature", reason, "unsupported_value")


def _refuse_unknown_abilities(fields: Fields) -> None:
    """What clients may ask of OpenAI's models, and nothing here can do."""
    if wanted := fields.many("include"):
        known = wanted == ["logprobs"]
        reason = "Probabilities of tokens are not known" if known else f'include[] is logprobs, not "{wanted[0][:50]}"'
        raise refused("include[]", reason, "unsupported_value" if known else "invalid_value")
    for name in ("known_speaker_names", "known_speaker_references"):
        if fields.many(name):
            raise refused(f"{name}[]", "Speakers are not told apart yet: leave this out", "unsupported_value")
    _check_chunking(fields)


def _check_chunking(fields: Fields) -> None:
    """Sound is always cut where nobody speaks, by rules that are not for a request to change."""
    text, parts = fields.one("chunking_strategy"), fields.grouped(VOICE_FIELD)
    if text is not None and text != "auto":
        try:
            parts |= json.loads(text)
        except (ValueError, TypeError, RecursionError) as error:
            reason = "chunking_strategy is auto, or an object of the type server_vad"
            raise refused("chunking_strategy", reason) from error
    if not parts:
        return
    if parts.pop("type", None) != "server_vad":
        raise refused("chunking_strategy", "chunking_strategy is auto, or an object of the type server_vad")
    if parts:
        reason = f"Where sound is cut cannot be tuned: leave out {', '.join(map(str, parts))[:100]}"
        raise refused("chunking_strategy", reason, "unsupported_value")


def _language(fields: Fields) -> str | None:
    one, several = fields.one("language"), fields.many("languages")
    if one and several:
        raise refused("languages[]", "Give language or languages[], not both")
    if len(several) > 1:
        reason = "An engine is told one language, or finds it itself: give one, or none"
        raise refused("languages[]", reason, "unsupported_value")
    name = one or (several[0] if several else None)
    code = language_code(name)
    if code is not None and code not in LANGUAGES:
        raise refused("language", f'language is a code of ISO 639-1 that Whisper knows, not "{str(name)[:50]}"')
    return code


def _prompt(fields: Fields) -> str | None:
    """The prompt, and before it the words to listen for: what comes last counts most."""
    prompt, keywords = fields.one("prompt"), fields.many("keywords")
    return _limited(" ".join(filter(None, [", ".join(keywords) + "." if keywords else None, prompt])) or None)


def _limited(prompt: str | None) -> str | None:
    if prompt is not None and len(prompt) > LONGEST_PROMPT:
        raise refused("prompt", f"Prompt and keywords have at most {LONGEST_PROMPT:,} characters")
    return prompt


def _granularities(fields: Fields, format_: str) -> tuple[str, ...]:
    wanted = fields.many("timestamp_granularities")
    if not wanted:
        return ("segment",)
    if format_ != "verbose_json":
        reason = f"timestamp_granularities[] goes with the response_format verbose_json, not with {format_}"
        raise refused("timestamp_granularities[]", reason, "unsupported_value")
    if unknown := [value for value in wanted if value not in GRANULARITIES]:
        raise refused("timestamp_granularities[]", f'There is word and segment, not "{unknown[0][:50]}"')
    return tuple(dict.fromkeys(wanted))


def _stream(fields: Fields, format_: str) -> bool:
    stream = bool(fields.boolean("stream"))
    if stream and format_ not in STREAMED:
        reason = f"With stream, response_format is one of {', '.join(STREAMED)}, not {format_}"
        raise refused("response_format", reason, "unsupported_value")
    return stream
