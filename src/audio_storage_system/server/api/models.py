"""What can transcribe and embed on the server."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, Field

from audio_storage_system import known_models
from audio_storage_system.server import problems
from audio_storage_system.server.api.shapes import Answer
from audio_storage_system.server.gate import Caller

router = APIRouter(tags=["models"], responses=problems.documented())


class KnownModel(Answer):
    """Something that transcribes or embeds."""

    kind: str = Field(examples=["transcriber"])
    spec: str = Field(description="What to give for it.", examples=["faster-whisper:base"])
    megabytes: float | None = Field(description="What its weights take, where that is known.")
    here: bool = Field(description="No download is needed.")
    note: str


class KnownModels(BaseModel):
    """What there is."""

    models: list[KnownModel]


class LoadedModel(BaseModel):
    """A model in memory."""

    kind: str
    spec: str
    users: int = Field(description="How many are using it.")
    idle_seconds: float | None = Field(description="Since when nobody is; `null` while somebody does.")
    memory_bytes: int | None = Field(description="About what it takes; `null` where the system does not tell.")


class LoadedModels(BaseModel):
    """What is in memory, in the process that answers."""

    models: list[LoadedModel]


class MachineCheck(Answer):
    """One thing that was looked at."""

    area: str = Field(examples=["transcriber"])
    name: str
    usable: bool
    detail: str
    remedy: str = Field(description="How to get it.")


class Diagnosis(BaseModel):
    """What works on the server's machine."""

    checks: list[MachineCheck]


@router.get("/models", summary="Every recogniser and embedder")
def list_models(storage: Caller) -> KnownModels:
    """By the spec to give for it, with whether it is on the server already."""
    return KnownModels(models=[KnownModel.of(one) for one in known_models()])


@router.get("/models/loaded", summary="The models in memory")
def list_loaded_models(storage: Caller) -> LoadedModels:
    """Of the process that answers: there may be several, and jobs are done in another. For administrators."""
    names = LoadedModel.model_fields
    found = [LoadedModel(**{name: getattr(one, name) for name in names}) for one in storage.models()]
    return LoadedModels(models=found)


@router.get("/diagnosis", summary="What works on the server's machine")
def diagnose(storage: Caller) -> Diagnosis:
    """Engines, models, devices, room on the disk; and how to get the rest. For administrators."""
    return Diagnosis(checks=[MachineCheck.of(one) for one in storage.diagnose()])
