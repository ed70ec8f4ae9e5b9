"""The archive as a whole."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from audio_storage_system.server import problems
from audio_storage_system.server.gate import Caller

router = APIRouter(tags=["archive"], responses=problems.documented())


@router.get("/stats", summary="How much there is of everything")
def stats(storage: Caller) -> dict[str, Any]:
    """In an archive with users: of everything that who asks may see."""
    return storage.stats()
