"""The database: engine, schema and migrations. No other layer knows which database it is."""

from audio_storage_system.database.dialect import Pool, Shared
from audio_storage_system.database.engine import Database, Ending, on_end

__all__ = ["Database", "Ending", "Pool", "Shared", "on_end"]
