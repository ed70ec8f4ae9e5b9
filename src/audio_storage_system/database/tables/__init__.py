"""The schema: the tables that hold the truth. Migrations must arrive at exactly this.

Derived tables (full text, vector codes) are made by the code that uses them and can be dropped at any time.
"""

from audio_storage_system.database.tables.access import api_tokens, grant_conditions, grants, memberships, principals
from audio_storage_system.database.tables.audit import audit_log, metadata_history, metadata_schemas
from audio_storage_system.database.tables.base import metadata_of_schema
from audio_storage_system.database.tables.content import (
    annotations,
    archive,
    audio_files,
    change_log,
    embedding_spaces,
    embeddings,
    index_cursors,
    metadata,
    passages,
    segments,
    transcription_windows,
    transcripts,
)
from audio_storage_system.database.tables.keeping import (
    backup_sets,
    legal_holds,
    removals,
    retention_rules,
    retention_runs,
    tombstones,
    trash,
)
from audio_storage_system.database.tables.sealing import data_keys
from audio_storage_system.database.tables.webhooks import webhook_deliveries, webhooks
from audio_storage_system.database.tables.work import jobs, workers

__all__ = [
    "annotations",
    "api_tokens",
    "archive",
    "audio_files",
    "audit_log",
    "backup_sets",
    "change_log",
    "data_keys",
    "embedding_spaces",
    "embeddings",
    "grant_conditions",
    "grants",
    "index_cursors",
    "jobs",
    "legal_holds",
    "memberships",
    "metadata",
    "metadata_history",
    "metadata_of_schema",
    "metadata_schemas",
    "passages",
    "principals",
    "removals",
    "retention_rules",
    "retention_runs",
    "segments",
    "tombstones",
    "transcription_windows",
    "transcripts",
    "trash",
    "webhook_deliveries",
    "webhooks",
    "workers",
]
