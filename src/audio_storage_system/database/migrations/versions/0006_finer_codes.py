"""Codes of vectors that tell more: those of before go, and are made again by the first search or by `reindex`."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.execute(sa.text("DELETE FROM index_cursors WHERE index_name LIKE 'sqlite/%'"))
    for table in ("vector_blocks", "vector_generations"):
        op.drop_table(table, if_exists=True)
