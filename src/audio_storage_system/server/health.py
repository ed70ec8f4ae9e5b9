"""Whether the server lives, and whether it can answer. Nobody needs a token to ask."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel

from audio_storage_system import AudioStorageSystem
from audio_storage_system.server import problems

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """How the server is."""

    status: Literal["ok"] = "ok"


@router.get("/health", include_in_schema=False)
@router.get("/health/live", summary="Whether the server lives")
async def live() -> Health:
    """Answers as long as the process does, also while every thread is at work."""
    return Health()


@router.get("/health/ready", summary="Whether the archive answers", responses=problems.documented())
def ready(request: Request) -> Health:
    """Answers once the archive is open and its catalogue answers; 503 otherwise."""
    storage: AudioStorageSystem = request.app.state.storage
    storage.tokens.any()
    return Health()
