"""The wrapped keys of sealed blobs."""

from sqlalchemy import Column, Index, LargeBinary, String

from audio_storage_system.database.tables.base import identity, now, table
from audio_storage_system.database.types import PlainText

# The key of each sealed blob, itself encrypted. `blob_id` is the salt in the blob's header; `file_path` is where the
# blob belongs, empty until its recording has a row. `wrapping` names the key that it is encrypted with.
data_keys = table(
    "data_keys",
    identity(),
    Column("blob_id", String(64), nullable=False, unique=True),
    Column("file_path", PlainText),
    Column("wrapped", LargeBinary, nullable=False),
    Column("wrapping", String(36), nullable=False),
    now(),
    Index("idx_data_keys_file_path", "file_path"),
    Index("idx_data_keys_wrapping", "wrapping"),
)
