"""One open archive, and what is done with the whole of it: recording, searching, exporting, reporting."""

from audio_storage_system.archive.opening import Archive, archive_exists, open_archive

__all__ = ["Archive", "archive_exists", "open_archive"]
