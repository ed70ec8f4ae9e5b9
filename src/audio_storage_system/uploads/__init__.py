"""Uploads on their way into the archive: files that arrive in parts, with breaks between them, and lose nothing."""

from audio_storage_system.uploads.appending import Appending, Checksum
from audio_storage_system.uploads.folder import UploadFolder, folders

__all__ = ["Appending", "Checksum", "UploadFolder", "folders"]
