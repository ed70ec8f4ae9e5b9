"""The database: engine, schema and migrations. No other layer knows which database it is."""

from audio_storage_system.database.dialect import Pool, Shared
from audio_storage_system.database.engine import Database

__all__ = ["Database", "Pool", "Shared"]
