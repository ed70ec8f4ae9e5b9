"""Who did what, and what was there before."""

from sqlalchemy import JSON, Column, Index, String, UniqueConstraint

from audio_storage_system.database.tables.base import identity, now, reference, table
from audio_storage_system.database.types import Id, PlainText, UtcDateTime

# Refers to nothing by foreign key: it outlives what it tells of. Entries of one chain follow each other without gaps,
# and `mac` is a keyed hash of the entry and of the one before it.
audit_log = table(
    "audit_log",
    identity(),
    Column("chain", String(36), nullable=False),
    Column("sequence", Id, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("principal_id", Id, nullable=False),
    Column("principal", PlainText, nullable=False),
    Column("action", String(48), nullable=False),
    Column("audio_id", Id),
    Column("origin", PlainText, nullable=False),
    Column("details", JSON, nullable=False),
    Column("mac", String(64), nullable=False),
    UniqueConstraint("chain", "sequence"),
    Index("idx_audit_log_at", "at"),
    Index("idx_audit_log_audio_id", "audio_id"),
)

# What a metadata entry was before it was changed; goes with its recording.
metadata_history = table(
    "metadata_history",
    identity(),
    reference("audio_file_id", "audio_files"),
    Column("key", PlainText, nullable=False),
    Column("op", String(8), nullable=False),
    Column("old_value", PlainText),
    Column("old_type", String(16)),
    Column("principal_id", Id, nullable=False),
    now("changed_at"),
    Index("idx_metadata_history_audio_id", "audio_file_id", "key"),
)

# What an owner wants the metadata of his recordings to be, as JSON Schema.
metadata_schemas = table(
    "metadata_schemas",
    identity(),
    reference("owner_id", "principals"),
    Column("json_schema", JSON, nullable=False),
    Column("created_by", Id, nullable=False),
    now(),
    UniqueConstraint("owner_id"),
)
