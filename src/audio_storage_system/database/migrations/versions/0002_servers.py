"""The transaction of each change, which readers of the log need on a server; and the bond to the place of the blobs."""

import sqlalchemy as sa
from alembic import op

from audio_storage_system.database.types import TransactionId, this_transaction

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("change_log", sa.Column("xid", TransactionId, server_default=this_transaction()))
    op.add_column("index_cursors", sa.Column("xid", TransactionId))
    op.add_column("archive", sa.Column("bound", sa.Boolean(), nullable=False, server_default=sa.false()))
    if op.get_context().dialect.name == "postgresql":
        op.create_index("idx_change_log_order", "change_log", ["xid", "id"])
