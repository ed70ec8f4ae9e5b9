"""`/api/v1`: everything that the Python API does."""

from audio_storage_system.server.api import (
    archive,
    audio,
    audit,
    backups,
    grants,
    holds,
    integrity,
    keys,
    metadata_schema,
    models,
    recordings,
    retention,
    search,
    tokens,
    trash,
    uploads,
    users,
    webhooks,
)

ROUTERS = [
    *(archive.router, audio.router, recordings.router, search.router, uploads.router, webhooks.router),
    *(users.router, grants.router, tokens.router),
    *(retention.router, holds.router, trash.router, audit.router, keys.router, backups.router),
    *(integrity.router, models.router, metadata_schema.router),
]
