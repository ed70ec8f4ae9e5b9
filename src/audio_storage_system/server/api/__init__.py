"""`/api/v1`: everything that the Python API does."""

from audio_storage_system.server.api import (
    archive,
    audio,
    audit,
    backups,
    grants,
    holds,
    integrity,
    job_events,
    jobs,
    keys,
    metadata_schema,
    models,
    recordings,
    retention,
    search,
    tokens,
    transcripts,
    trash,
    uploads,
    users,
    webhooks,
)

ROUTERS = [
    *(archive.router, audio.router, recordings.router, search.router, uploads.router, webhooks.router),
    *(transcripts.router, job_events.router, jobs.router),
    *(users.router, grants.router, tokens.router),
    *(retention.router, holds.router, trash.router, audit.router, keys.router, backups.router),
    *(integrity.router, models.router, metadata_schema.router),
]
