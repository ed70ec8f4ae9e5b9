"""Background jobs: given to a board, queued as runs, done by workers in steps."""

from audio_storage_system.jobs.board import Jobs
from audio_storage_system.jobs.concurrency import concurrency_of
from audio_storage_system.jobs.moments import Moment
from audio_storage_system.jobs.uploads import Uploads
from audio_storage_system.jobs.worker import JobEvent, Worker

__all__ = ["JobEvent", "Jobs", "Moment", "Uploads", "Worker", "concurrency_of"]
