"""`/api/v1`: everything that the Python API does."""

from audio_storage_system.server.api import archive

ROUTERS = [archive.router]
