"""Webhooks, and what they are still to be told."""

import sqlalchemy as sa
from alembic import op

from audio_storage_system.database.types import Id, PlainText, UtcDateTime

revision = "0005"
down_revision = "0004"


def _moment(name: str) -> sa.Column[object]:
    return sa.Column(name, UtcDateTime, nullable=False, server_default=sa.func.current_timestamp())


def upgrade() -> None:
    op.create_table(
        "webhooks",
        sa.Column("id", Id, nullable=False),
        sa.Column("principal_id", Id, nullable=False),
        sa.Column("restricted", sa.Boolean(), nullable=False),
        sa.Column("name", PlainText, nullable=False),
        sa.Column("url", PlainText, nullable=False),
        sa.Column("events", sa.JSON(), nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("sealed", sa.Boolean(), nullable=False),
        _moment("created_at"),
        sa.Column("failing_since", UtcDateTime),
        sa.Column("disabled_at", UtcDateTime),
        sa.Column("disabled_reason", PlainText),
        sa.PrimaryKeyConstraint("id", name="pk_webhooks"),
        sa.ForeignKeyConstraint(["principal_id"], ["principals.id"], name="fk_webhooks_principal_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("idx_webhooks_principal_id", "webhooks", ["principal_id"])
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", Id, nullable=False),
        sa.Column("webhook_id", Id, nullable=False),
        sa.Column("delivery_id", sa.String(32), nullable=False),
        sa.Column("event", sa.String(48), nullable=False),
        sa.Column("audio_id", Id),
        sa.Column("facts", sa.JSON(), nullable=False),
        _moment("created_at"),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due_at", UtcDateTime, nullable=False),
        sa.Column("outcome", sa.String(16)),
        sa.Column("status", sa.Integer()),
        sa.Column("reason", PlainText),
        sa.Column("ended_at", UtcDateTime),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_deliveries"),
        sa.UniqueConstraint("delivery_id", name="uq_webhook_deliveries_delivery_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("idx_webhook_deliveries_webhook_id", "webhook_deliveries", ["webhook_id", "id"])
    op.create_index("idx_webhook_deliveries_audio_id", "webhook_deliveries", ["audio_id"])
    waiting = sa.text("outcome IS NULL")
    op.create_index(
        "idx_webhook_deliveries_due", "webhook_deliveries", ["due_at"], sqlite_where=waiting, postgresql_where=waiting
    )
