"""How long things are kept, and what is gone."""

from sqlalchemy import JSON, Boolean, Column, Float, Index, String, UniqueConstraint

from audio_storage_system.database.tables.base import identity, now, reference, table
from audio_storage_system.database.types import Id, PlainText, UtcDateTime

tombstones = table(
    "tombstones",
    identity(),
    Column("audio_id", Id, nullable=False),
    Column("file_hash", PlainText, nullable=False),
    Column("file_path", PlainText, nullable=False),
    Column("deleted_at", UtcDateTime, nullable=False),
    Column("completed", Boolean, nullable=False),
    Column("receipt", JSON, nullable=False),
    Index("idx_tombstones_audio_id", "audio_id"),
)

# What was removed of recordings, whole or in part, when, and by which rule (NULL: by hand). `files`: the keys of what
# goes with it, until `completed`; `scrubbed`: nothing of it is left in the database's own files.
removals = table(
    "removals",
    identity(),
    Column("audio_id", Id, nullable=False),
    Column("stage", String(16), nullable=False),
    Column("rule", PlainText),
    Column("removed_at", UtcDateTime, nullable=False),
    Column("files", JSON, nullable=False),
    Column("completed", Boolean, nullable=False),
    Column("scrubbed", Boolean, nullable=False),
    Index("idx_removals_audio_id", "audio_id"),
    Index("idx_removals_rule", "rule"),
    Index("idx_removals_open", "scrubbed", "completed"),
)

# Each time the rules were carried out; `ended_at` is NULL where that was cut short.
retention_runs = table(
    "retention_runs",
    identity(),
    Column("started_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime),
    Column("started_by", Id, nullable=False),
    Column("removed", Id, nullable=False),
    Column("held", Id, nullable=False),
)

# For how long a stage of the recordings that meet the conditions is kept, in days.
retention_rules = table(
    "retention_rules",
    identity(),
    Column("name", PlainText, nullable=False, unique=True),
    Column("stage", String(16), nullable=False),
    Column("keep_days", Float, nullable=False),
    Column("conditions", JSON, nullable=False),
    Column("created_by", Id, nullable=False),
    now(),
)

# What must not be removed, whatever any rule or person says.
legal_holds = table(
    "legal_holds",
    identity(),
    Column("name", PlainText, nullable=False, unique=True),
    Column("conditions", JSON, nullable=False),
    Column("reason", PlainText, nullable=False),
    Column("placed_by", Id, nullable=False),
    now("placed_at"),
    Column("released_at", UtcDateTime),
)

# Recordings that were thrown away and can still be had back. Nobody finds them meanwhile.
trash = table(
    "trash",
    identity(),
    reference("audio_file_id", "audio_files"),
    Column("trashed_by", Id, nullable=False),
    now("trashed_at"),
    Column("purge_after", UtcDateTime, nullable=False),
    UniqueConstraint("audio_file_id"),
    Index("idx_trash_purge_after", "purge_after"),
)

# The backup sets that were made of this archive, as far as it knows. `destination` holds no secret.
backup_sets = table(
    "backup_sets",
    identity(),
    Column("destination", PlainText, nullable=False),
    Column("set_id", String(64), nullable=False),
    Column("taken_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime),
    Column("verified_at", UtcDateTime),
    Column("removed_at", UtcDateTime),
    UniqueConstraint("destination", "set_id"),
)
