"""Keys: where they come from, how an archive keeps its own, and what is derived from them."""

from audio_storage_system.keys.archive_keys import ArchiveKeys, DataKeys
from audio_storage_system.keys.ring import Ring, founded
from audio_storage_system.keys.sources import KeySource, read_key_file, write_key_file

__all__ = ["ArchiveKeys", "DataKeys", "KeySource", "Ring", "founded", "read_key_file", "write_key_file"]
