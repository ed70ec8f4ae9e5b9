"""`/api/v1`: everything that the Python API does."""

from audio_storage_system.server.api import (
    archive,
    audit,
    backups,
    grants,
    holds,
    integrity,
    keys,
    metadata_schema,
    models,
    retention,
    tokens,
    trash,
    users,
)

ROUTERS = [
    *(archive.router, users.router, grants.router, tokens.router),
    *(retention.router, holds.router, trash.router, audit.router, keys.router, backups.router),
    *(integrity.router, models.router, metadata_schema.router),
]
