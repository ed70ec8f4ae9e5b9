"""`/api/v1`: everything that the Python API does."""

from audio_storage_system.server.api import archive, audio, recordings, search, uploads

ROUTERS = [archive.router, recordings.router, audio.router, uploads.router, search.router]
