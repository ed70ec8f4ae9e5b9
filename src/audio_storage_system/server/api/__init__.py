"""`/api/v1`: everything that the Python API does."""

from audio_storage_system.server.api import archive, search

ROUTERS = [archive.router, search.router]
