"""The keys of an encrypted archive. No key itself ever passes here, in either direction."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from audio_storage_system.server import problems
from audio_storage_system.server.api.shapes import Answer, Asked
from audio_storage_system.server.gate import Caller
from audio_storage_system.server.long_tasks import Line, NdJson, Tasks

router = APIRouter(prefix="/keys", tags=["keys"], responses=problems.documented(404))


class KeySlot(BaseModel):
    """A way in."""

    id: str
    kind: str = Field(examples=["key"])
    in_use: bool


class KeyGeneration(BaseModel):
    """What data keys of recordings are wrapped with, and how many are."""

    id: str
    current: bool
    data_keys: int


class KeyState(BaseModel):
    """What keys there are, without any secret."""

    archive_id: str
    encrypted: bool
    slots: list[KeySlot]
    generations: list[KeyGeneration]
    rotating: bool = Field(description="A rotation was cut short: the next one finishes it.")


class KeyRotating(Asked):
    """How to rotate."""

    new_key: bool = Field(default=False, description="Also put a new key into the key file on the server.")


class KeyRotation(Answer):
    """What a rotation did."""

    generation: str
    rewrapped: int = Field(description="Data keys wrapped anew by this call.")
    resumed: bool = Field(description="It finished one that had been cut short.")
    key_file: str | None = Field(description="What holds the key from now on, on the server, where that is a new one.")


@router.get("", summary="The state of the keys")
def get_keys(storage: Caller) -> KeyState:
    """404 in an archive that has none, here and below."""
    return KeyState.model_validate(storage.keys.show())


@router.post(
    "/rotate", summary="Wrap every data key anew", response_class=NdJson, responses={200: {"model": Line[KeyRotation]}}
)
def rotate_keys(storage: Caller, tasks: Tasks, wanted: KeyRotating) -> StreamingResponse:
    """The recordings stay as they are, and are read and added to meanwhile. A long task; cut short, the next call
    finishes it."""
    return tasks.run(lambda tell: KeyRotation.of(storage.keys.rotate(new_key=wanted.new_key)))
