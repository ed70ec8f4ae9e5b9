"""`/api/v1`: everything that the Python API does."""

from audio_storage_system.server.api import archive, job_events, jobs, search, transcripts

ROUTERS = [archive.router, search.router, transcripts.router, job_events.router, jobs.router]
