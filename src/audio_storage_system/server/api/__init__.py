"""`/api/v1`: everything that the Python API does."""

from audio_storage_system.server.api import (
    archive,
    audio,
    job_events,
    jobs,
    recordings,
    search,
    transcripts,
    uploads,
    webhooks,
)

ROUTERS = [
    archive.router,
    audio.router,
    recordings.router,
    search.router,
    transcripts.router,
    job_events.router,
    jobs.router,
    uploads.router,
    webhooks.router,
]
