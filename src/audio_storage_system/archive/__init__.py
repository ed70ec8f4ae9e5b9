"""One open archive, and what is done with the whole of it: recording, searching, exporting, reporting."""

from audio_storage_system.archive.copies import Original, open_copy, open_original, open_restoring
from audio_storage_system.archive.opening import Archive, archive_exists, open_archive

__all__ = ["Archive", "Original", "archive_exists", "open_archive", "open_copy", "open_original", "open_restoring"]
