"""Background jobs and the workers that do them."""

import sqlalchemy as sa
from alembic import op

from audio_storage_system.database.types import Id, PlainText, UtcDateTime

revision = "0003"
down_revision = "0002"


def _moment(name: str) -> sa.Column[object]:
    return sa.Column(name, UtcDateTime, nullable=False, server_default=sa.func.current_timestamp())


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", Id, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("audio_file_id", Id),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("share", PlainText, nullable=False),
        sa.Column("turn", Id, nullable=False),
        sa.Column("step", sa.String(16), nullable=False),
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("deaths", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.String(16)),
        sa.Column("code", sa.String(64)),
        sa.Column("reason", PlainText),
        _moment("created_at"),
        _moment("updated_at"),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
        sa.ForeignKeyConstraint(["audio_file_id"], ["audio_files.id"], name="fk_jobs_audio_file_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("idx_jobs_audio_id", "jobs", ["audio_file_id"])
    waiting = sa.text("outcome IS NULL")
    for name, columns in (("idx_jobs_waiting", ["priority", "share", "turn"]), ("idx_jobs_turn", ["priority", "turn"])):
        op.create_index(name, "jobs", columns, sqlite_where=waiting, postgresql_where=waiting)
    op.create_table(
        "workers",
        sa.Column("id", Id, nullable=False),
        sa.Column("name", PlainText, nullable=False),
        sa.Column("host", PlainText, nullable=False),
        sa.Column("place", PlainText, nullable=False),
        sa.Column("process", sa.Integer(), nullable=False),
        sa.Column("version", sa.String(32), nullable=False),
        sa.Column("queues", sa.JSON(), nullable=False),
        _moment("started_at"),
        _moment("heartbeat_at"),
        sa.Column("beats", Id, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_workers"),
        sqlite_autoincrement=True,
    )
