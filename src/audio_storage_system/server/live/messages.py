"""What a client of `/api/v1/live` says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from audio_storage_system.audio.streaming import Form
from audio_storage_system.errors import InvalidInput
from audio_storage_system.server.fields import Text

PCM: Literal["pcm16"] = "pcm16"
# Of what is decoded here, where a client asks for less than the stream has.
DECODED = Form(48_000, 1)
Name = Annotated[Text, Field(max_length=200)]


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Start(_Message):
    """What a session is to be, or which one is to go on. begins: the second of the recording at which the sound that
    is sent begins, when it is not where the recording ends: what is there already is left out."""

    type: Literal["start"] = "start"
    encoding: Literal["pcm16", "webm", "ogg", "mp4"] = PCM
    sample_rate: int | None = None
    channels: int | None = None
    session: Name | None = None
    begins: float | None = Field(None, ge=0)
    language: Name | None = None
    whisper_model: Name | None = None
    transcriber: Name | None = None
    metadata: dict[str, str | int | float | bool] = {}

    def form(self, default: Form) -> Form:
        """Rate and channels, where they are named, else the default's."""
        rate = default.sample_rate if self.sample_rate is None else self.sample_rate
        return Form(rate, default.channels if self.channels is None else self.channels)

    @property
    def names_form(self) -> bool:
        """Whether it says anything about rate and channels."""
        return self.sample_rate is not None or self.channels is not None


class Finish(_Message):
    """There is no more sound: complete the recording."""

    type: Literal["finish"]


class Ping(_Message):
    """Keeps a socket open over which no sound comes."""

    type: Literal["ping"]


class Lost(_Message):
    """The client lost so much sound here."""

    type: Literal["lost"]
    seconds: float = Field(gt=0, le=86_400)


Said = Annotated[Finish | Ping | Lost, Field(discriminator="type")]
_SAID: TypeAdapter[Finish | Ping | Lost] = TypeAdapter(Said)


def start_of(given: Mapping[str, Any]) -> Start:
    """The start that an address or a message names. Raises `InvalidInput`."""
    try:
        return Start.model_validate(dict(given))
    except ValidationError as error:
        raise _invalid(error) from error


def said_in(text: str) -> Finish | Ping | Lost:
    """The message that a text is. Raises `InvalidInput`."""
    try:
        return _SAID.validate_python(parsed(text))
    except ValidationError as error:
        raise _invalid(error) from error


def parsed(text: str) -> dict[str, Any]:
    """The JSON object that a text is. Raises `InvalidInput`."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(reason="The message is no JSON") from error
    if not isinstance(data, dict):
        raise InvalidInput(reason="The message is no JSON object")
    return data


def _invalid(error: ValidationError) -> InvalidInput:
    """What is wrong with a message; what was given is not repeated."""
    faults = (f"{'.'.join(map(str, one['loc']))}: {one['msg']}".removeprefix(": ") for one in error.errors()[:3])
    return InvalidInput(reason=f"The message is not as documented: {'; '.join(faults)}"[:500])
