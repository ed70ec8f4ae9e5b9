"""Models: the ids that clients send, and what does the work for each."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from audio_storage_system import AudioStorageSystem
from audio_storage_system.errors import NotFound, UnknownSpec
from audio_storage_system.records import EmbeddingKind
from audio_storage_system.server import offers
from audio_storage_system.server.openai.clients import Client
from audio_storage_system.server.openai.faults import documented
from audio_storage_system.transcribers.weights import WHISPER_SIZES, repository_of

router = APIRouter(responses=documented(404))

# These mean the archive's text space in use.
TEXT = ("text-embedding-3-small", "text-embedding-3-large", "text-embedding-ada-002")
OWNER = "audio-storage-system"


class Model(BaseModel):
    """A model that can be asked for."""

    id: str = Field(examples=["whisper-1"])
    object: Literal["model"] = "model"
    created: int = Field(default=0, description="Not known: 0.")
    owned_by: str = OWNER


class Models(BaseModel):
    """Every model that can be asked for."""

    object: Literal["list"] = "list"
    data: list[Model]


@router.get("/models", summary="The models that can be asked for")
def models(storage: Client) -> Models:
    """Those that transcribe and those that embed texts."""
    return Models(data=[Model(id=id_) for id_ in _ids(storage)])


@router.get("/models/{model:path}", summary="One model")
def model(storage: Client, model: str) -> Model:
    """404 where there is none with this id."""
    if model not in TEXT and model not in _spaces(storage):
        transcriber(storage, model)
    return Model(id=model)


def transcriber(storage: AudioStorageSystem, model: str) -> str | None:
    """What transcribes for a model; `None`: what the archive is set to. Raises `NotFound`."""
    try:
        return offers.transcriber(storage, model)
    except UnknownSpec as error:
        raise unknown(model) from error


def text_space(storage: AudioStorageSystem, model: str) -> str | None:
    """The text space of a model; `None`: the one in use. Raises `NotFound`."""
    if model in TEXT:
        return None
    if model in _spaces(storage):
        return model
    raise unknown(model)


def unknown(model: str) -> NotFound:
    """The error for a model that cannot be asked for here."""
    message = f'There is no model "{model[:100]}" here: /v1/models lists those that are, openai_models sets more'
    return NotFound(message, kind="model", id=model[:100], param="model", code="model_not_found")


def _spaces(storage: AudioStorageSystem) -> list[str]:
    return [space.model for space in storage.embedding_spaces() if space.kind is EmbeddingKind.TRANSCRIPT]


def _ids(storage: AudioStorageSystem) -> list[str]:
    sizes = (repository_of(size) for size in sorted(WHISPER_SIZES))
    named = offers.named_in(storage.settings.openai_models)
    return list(dict.fromkeys([*named, *offers.SPEECH, *sizes, offers.BUNDLED, *TEXT, *_spaces(storage)]))
