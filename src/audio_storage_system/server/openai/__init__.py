"""`/v1`: what clients of OpenAI's API ask for, answered by the archive.

Fields, formats and errors are those of OpenAI's documentation (audio, embeddings, models; checked against the official
client 3.57). What cannot be done is refused, never left out unsaid.
"""

from fastapi import APIRouter

from audio_storage_system.server.openai import audio, embeddings, models
from audio_storage_system.server.openai.faults import as_error

router = APIRouter(tags=["OpenAI-compatible"])
for part in (audio, embeddings, models):
    router.include_router(part.router)

__all__ = ["as_error", "router"]
