"""Principals and what they may, the audit log, the keys of sealed blobs, retention, the trash, backups."""

import sqlalchemy as sa
from alembic import op

from audio_storage_system.database.types import Id, PlainText, UtcDateTime

revision = "0004"
down_revision = "0003"

# Whose a recording was by its metadata, as it says now: they may do with it what owners may. It stays the archive's own
# all the same, so that its bytes are found again as before; later edits of the metadata change nothing.
_USERS = """
    INSERT INTO principals (name, kind)
    SELECT DISTINCT m.value, 'user' FROM metadata m
    WHERE m.key = 'user_id' AND m.value_type IN ('text', 'integer')
    AND m.value = trim(m.value) AND length(m.value) BETWEEN 1 AND 255
    AND NOT EXISTS (SELECT 1 FROM principals p WHERE p.name = m.value)
"""
_THEIRS = """
    INSERT INTO grants (principal_id, role, reach, audio_file_id, created_by)
    SELECT p.id, 'owner', 'recording', m.audio_file_id, 1 FROM metadata m JOIN principals p ON p.name = m.value
    WHERE m.key = 'user_id' AND m.value_type IN ('text', 'integer')
"""


def _moment(name: str) -> sa.Column[object]:
    return sa.Column(name, UtcDateTime, nullable=False, server_default=sa.func.current_timestamp())


def upgrade() -> None:
    _add_access()
    _add_audit()
    _add_sealing()
    _add_keeping()
    op.execute(_USERS)
    op.execute(_THEIRS)
    _forget_names()


def _add_access() -> None:
    op.create_table(
        "memberships",
        sa.Column("id", Id, nullable=False),
        sa.Column("group_id", Id, nullable=False),
        sa.Column("member_id", Id, nullable=False),
        _moment("created_at"),
        sa.PrimaryKeyConstraint("id", name="pk_memberships"),
        sa.ForeignKeyConstraint(["group_id"], ["principals.id"], name="fk_memberships_group_id"),
        sa.ForeignKeyConstraint(["member_id"], ["principals.id"], name="fk_memberships_member_id"),
        sa.UniqueConstraint("group_id", "member_id", name="uq_memberships_group_id_member_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("idx_memberships_member_id", "memberships", ["member_id"])
    op.create_table(
        "grants",
        sa.Column("id", Id, nullable=False),
        sa.Column("principal_id", Id, nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("reach", sa.String(16), nullable=False),
        sa.Column("audio_file_id", Id),
        sa.Column("created_by", Id, nullable=False),
        _moment("created_at"),
        sa.Column("expires_at", UtcDateTime),
        sa.PrimaryKeyConstraint("id", name="pk_grants"),
        sa.ForeignKeyConstraint(["principal_id"], ["principals.id"], name="fk_grants_principal_id"),
        sa.ForeignKeyConstraint(["audio_file_id"], ["audio_files.id"], name="fk_grants_audio_file_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("idx_grants_audio_id", "grants", ["audio_file_id"])
    op.create_index("idx_grants_principal_id", "grants", ["principal_id"])
    op.create_table(
        "grant_conditions",
        sa.Column("id", Id, nullable=False),
        sa.Column("grant_id", Id, nullable=False),
        sa.Column("key", PlainText, nullable=False),
        sa.Column("value", PlainText, nullable=False),
        sa.Column("value_number", sa.Float()),
        sa.PrimaryKeyConstraint("id", name="pk_grant_conditions"),
        sa.ForeignKeyConstraint(["grant_id"], ["grants.id"], name="fk_grant_conditions_grant_id"),
        sa.UniqueConstraint("grant_id", "key", name="uq_grant_conditions_grant_id_key"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "api_tokens",
        sa.Column("id", Id, nullable=False),
        sa.Column("principal_id", Id, nullable=False),
        sa.Column("name", PlainText, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("created_by", Id, nullable=False),
        _moment("created_at"),
        sa.Column("expires_at", UtcDateTime),
        sa.Column("revoked_at", UtcDateTime),
        sa.Column("last_used_at", UtcDateTime),
        sa.PrimaryKeyConstraint("id", name="pk_api_tokens"),
        sa.UniqueConstraint("digest", name="uq_api_tokens_digest"),
        sa.ForeignKeyConstraint(["principal_id"], ["principals.id"], name="fk_api_tokens_principal_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("idx_api_tokens_principal_id", "api_tokens", ["principal_id"])


def _add_audit() -> None:
    op.create_table(
        "audit_log",
        sa.Column("id", Id, nullable=False),
        sa.Column("chain", sa.String(36), nullable=False),
        sa.Column("sequence", Id, nullable=False),
        sa.Column("at", UtcDateTime, nullable=False),
        sa.Column("principal_id", Id, nullable=False),
        sa.Column("principal", PlainText, nullable=False),
        sa.Column("action", sa.String(48), nullable=False),
        sa.Column("audio_id", Id),
        sa.Column("origin", PlainText, nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("mac", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_log"),
        sa.UniqueConstraint("chain", "sequence", name="uq_audit_log_chain_sequence"),
        sqlite_autoincrement=True,
    )
    op.create_index("idx_audit_log_at", "audit_log", ["at"])
    op.create_index("idx_audit_log_audio_id", "audit_log", ["audio_id"])
    op.create_table(
        "metadata_history",
        sa.Column("id", Id, nullable=False),
        sa.Column("audio_file_id", Id, nullable=False),
        sa.Column("key", PlainText, nullable=False),
        sa.Column("op", sa.String(8), nullable=False),
        sa.Column("old_value", PlainText),
        sa.Column("old_type", sa.String(16)),
        sa.Column("principal_id", Id, nullable=False),
        _moment("changed_at"),
        sa.PrimaryKeyConstraint("id", name="pk_metadata_history"),
        sa.ForeignKeyConstraint(["audio_file_id"], ["audio_files.id"], name="fk_metadata_history_audio_file_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("idx_metadata_history_audio_id", "metadata_history", ["audio_file_id", "key"])
    op.create_table(
        "metadata_schemas",
        sa.Column("id", Id, nullable=False),
        sa.Column("owner_id", Id, nullable=False),
        sa.Column("json_schema", sa.JSON(), nullable=False),
        sa.Column("created_by", Id, nullable=False),
        _moment("created_at"),
        sa.PrimaryKeyConstraint("id", name="pk_metadata_schemas"),
        sa.ForeignKeyConstraint(["owner_id"], ["principals.id"], name="fk_metadata_schemas_owner_id"),
        sa.UniqueConstraint("owner_id", name="uq_metadata_schemas_owner_id"),
        sqlite_autoincrement=True,
    )


def _add_sealing() -> None:
    op.create_table(
        "data_keys",
        sa.Column("id", Id, nullable=False),
        sa.Column("blob_id", sa.String(64), nullable=False),
        sa.Column("file_path", PlainText),
        sa.Column("wrapped", sa.LargeBinary(), nullable=False),
        sa.Column("wrapping", sa.String(36), nullable=False),
        _moment("created_at"),
        sa.PrimaryKeyConstraint("id", name="pk_data_keys"),
        sa.UniqueConstraint("blob_id", name="uq_data_keys_blob_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("idx_data_keys_file_path", "data_keys", ["file_path"])
    op.create_index("idx_data_keys_wrapping", "data_keys", ["wrapping"])


def _add_keeping() -> None:
    op.create_table(
        "removals",
        sa.Column("id", Id, nullable=False),
        sa.Column("audio_id", Id, nullable=False),
        sa.Column("stage", sa.String(16), nullable=False),
        sa.Column("rule", PlainText),
        sa.Column("removed_at", UtcDateTime, nullable=False),
        sa.Column("files", sa.JSON(), nullable=False),
        sa.Column("completed", sa.Boolean(), nullable=False),
        sa.Column("scrubbed", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_removals"),
        sqlite_autoincrement=True,
    )
    op.create_index("idx_removals_audio_id", "removals", ["audio_id"])
    op.create_index("idx_removals_rule", "removals", ["rule"])
    op.create_index("idx_removals_open", "removals", ["scrubbed", "completed"])
    op.create_table(
        "retention_runs",
        sa.Column("id", Id, nullable=False),
        sa.Column("started_at", UtcDateTime, nullable=False),
        sa.Column("ended_at", UtcDateTime),
        sa.Column("started_by", Id, nullable=False),
        sa.Column("removed", Id, nullable=False),
        sa.Column("held", Id, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_retention_runs"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "retention_rules",
        sa.Column("id", Id, nullable=False),
        sa.Column("name", PlainText, nullable=False),
        sa.Column("stage", sa.String(16), nullable=False),
        sa.Column("keep_days", sa.Float(), nullable=False),
        sa.Column("conditions", sa.JSON(), nullable=False),
        sa.Column("created_by", Id, nullable=False),
        _moment("created_at"),
        sa.PrimaryKeyConstraint("id", name="pk_retention_rules"),
        sa.UniqueConstraint("name", name="uq_retention_rules_name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "legal_holds",
        sa.Column("id", Id, nullable=False),
        sa.Column("name", PlainText, nullable=False),
        sa.Column("conditions", sa.JSON(), nullable=False),
        sa.Column("reason", PlainText, nullable=False),
        sa.Column("placed_by", Id, nullable=False),
        _moment("placed_at"),
        sa.Column("released_at", UtcDateTime),
        sa.PrimaryKeyConstraint("id", name="pk_legal_holds"),
        sa.UniqueConstraint("name", name="uq_legal_holds_name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "trash",
        sa.Column("id", Id, nullable=False),
        sa.Column("audio_file_id", Id, nullable=False),
        sa.Column("trashed_by", Id, nullable=False),
        _moment("trashed_at"),
        sa.Column("purge_after", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_trash"),
        sa.ForeignKeyConstraint(["audio_file_id"], ["audio_files.id"], name="fk_trash_audio_file_id"),
        sa.UniqueConstraint("audio_file_id", name="uq_trash_audio_file_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("idx_trash_purge_after", "trash", ["purge_after"])
    op.create_table(
        "backup_sets",
        sa.Column("id", Id, nullable=False),
        sa.Column("destination", PlainText, nullable=False),
        sa.Column("set_id", sa.String(64), nullable=False),
        sa.Column("taken_at", UtcDateTime, nullable=False),
        sa.Column("expires_at", UtcDateTime),
        sa.Column("verified_at", UtcDateTime),
        sa.Column("removed_at", UtcDateTime),
        sa.PrimaryKeyConstraint("id", name="pk_backup_sets"),
        sa.UniqueConstraint("destination", "set_id", name="uq_backup_sets_destination_set_id"),
        sqlite_autoincrement=True,
    )


def _forget_names() -> None:
    """Take what a deleted recording was called out of its tombstone: that it is gone is proven without."""
    graves = sa.table("tombstones", sa.column("id"), sa.column("receipt", sa.JSON()))
    connection = op.get_bind()
    for grave in connection.execute(sa.select(graves)).all():
        receipt = {name: value for name, value in grave.receipt.items() if name != "original_name"}
        connection.execute(sa.update(graves).where(graves.c.id == grave.id).values(receipt=receipt))
