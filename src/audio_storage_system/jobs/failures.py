"""What an error of a step means: whether to try again, when, and what is told of it."""

from __future__ import annotations

from sqlalchemy import Connection

from audio_storage_system import outbox
from audio_storage_system.catalogue import jobs
from audio_storage_system.errors import (
    AudioStorageSystemError,
    StorageFailed,
    TranscriptionFailed,
    VectorIndexUnavailable,
)
from audio_storage_system.records import Job, JobState

# How often a step is tried, and how long after its first failure; each further wait is four times as long.
ATTEMPTS = 5
FIRST_DELAY_SECONDS, DELAY_GROWS = 10.0, 4.0


def delay_before(failures: int) -> float:
    """Seconds to wait after so many failures in a row."""
    return FIRST_DELAY_SECONDS * DELAY_GROWS ** (failures - 1)


def may_pass(error: Exception) -> bool:
    """Whether the same step can end differently another time."""
    if isinstance(error, TranscriptionFailed):
        return bool(error.details["outcome"].retryable)
    return isinstance(error, MemoryError) or (isinstance(error, AudioStorageSystemError) and error.retryable)


def is_outage(error: Exception) -> bool:
    """Whether the archive's own disk, store or database cannot be used now: no fault of the job, and every other would
    fail in the same way."""
    return isinstance(error, StorageFailed | VectorIndexUnavailable) and error.retryable


def told(error: Exception) -> tuple[str, str]:
    """A stable code, and the words for people."""
    if isinstance(error, TranscriptionFailed):
        return str(error.details["outcome"].value), error.message
    if isinstance(error, AudioStorageSystemError):
        return error.code, error.message
    return "unexpected", f"{type(error).__name__}: {error}"


def give_up(connection: Connection, job: Job, code: str, reason: str) -> Job | None:
    """End a job as failed, and have that told; `None` where it counts no longer."""
    ended = jobs.finish(connection, job, JobState.FAILED, code, reason)
    if ended is not None and ended.audio_id is not None:
        facts = {"step": ended.step, "code": code, "transcript_id": None, "job_id": ended.id}
        outbox.tell(connection, outbox.Event.FAILED, ended.audio_id, **facts)
    return ended
