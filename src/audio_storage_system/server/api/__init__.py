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

# In the order in which they are described; of two that answer at one address, the first.
ROUTERS = [
    *(archive.router, audio.router, recordings.router, transcripts.router, search.router),
    *(job_events.router, jobs.router, uploads.router, webhooks.router),
    *(users.router, grants.router, tokens.router),
    *(retention.router, holds.router, trash.router, audit.router, keys.router, backups.router),
    *(integrity.router, models.router, metadata_schema.router),
]
