"""`/api/v1`: everything that the Python API does."""

from audio_storage_system.server.api import (
    archive,
    audio,
    recordings,
    search,
    uploads,
    webhooks,
)

ROUTERS = [
    archive.router,
    audio.router,
    recordings.router,
    search.router,
    uploads.router,
    webhooks.router,
]
