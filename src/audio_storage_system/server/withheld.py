"""What is told of the server's own trouble to who asks from elsewhere: that there is some, not where or why.

Paths, addresses and the words of disks and databases stay in the server's log. They would tell anybody with a token how
the machine is built, and help nobody who cannot reach it.
"""

from __future__ import annotations

from http import HTTPStatus

from audio_storage_system import errors
from audio_storage_system.errors import AudioStorageSystemError, StorageFailed, TranscriptionFailed
from audio_storage_system.records import Job

LOG = "Whoever runs the server finds more in its log."
# By the nearest class of an error; every class whose message names a place is below one of these.
WORDS: dict[type[AudioStorageSystemError], str] = {
    errors.ArchiveMismatch: f"What is there is not of this archive. {LOG}",
    errors.VectorIndexMismatch: f"The server's vector index belongs to another archive. {LOG}",
    errors.RestoreUnfinished: "The server's archive is being restored from a backup, and is not whole yet.",
    errors.NewerFormat: f"The server's archive has a format that this version does not read. {LOG}",
    errors.KeyMissing: f"The server's archive opens with its key, which is not there. {LOG}",
    errors.KeyRefused: f"The server's key does not open its archive. {LOG}",
    errors.MissingExtension: f"The server's database lacks the extension pgvector. {LOG}",
    errors.VectorIndexUnavailable: "The server's vector database cannot be used now. Try again later.",
    StorageFailed: f"The archive could not be written or read. {LOG}",
    errors.StorageUnavailable: "The server's storage cannot be reached now. Nothing was half-stored. Try again later.",
    errors.StorageRefused: f"The server's storage refused. {LOG}",
    errors.BucketNotFound: f"The server's storage is not there. {LOG}",
    errors.ArchiveNotFound: f"The server's archive is not there. {LOG}",
    errors.ArchiveReadOnly: f"The server's archive cannot be written. Nothing was half-stored. {LOG}",
    errors.StorageFull: "There is no room left on the server. Nothing was half-stored.",
    errors.ArchiveBusy: "The server's archive stayed locked for too long. Try again later.",
    errors.ArchiveDamaged: f"Something in the server's archive is damaged. {LOG}",
    errors.SealBroken: f"Something in the server's archive is damaged. {LOG}",
    errors.BackupDamaged: f"The backup is damaged. {LOG}",
    errors.QueueDamaged: f"The server's queue of jobs is damaged. {LOG}",
    errors.DatabaseUnavailable: "The server's database does not answer. Nothing was half-stored. Try again later.",
    errors.DatabaseRefused: f"The server's database refused. {LOG}",
}

_WORDS_BY_CODE = {kind("").code: words for kind, words in WORDS.items()}


def reason_of(job: Job) -> str | None:
    """Why a job failed, as it is told."""
    return _WORDS_BY_CODE.get(job.code or "", job.reason)


def words_for(error: BaseException | None) -> str | None:
    """What is told instead of the error's message; `None` where that may be told."""
    if isinstance(error, TranscriptionFailed):
        return _of_transcription(error)
    return next((words for kind in type(error).__mro__ if (words := WORDS.get(kind))), None)


def _of_transcription(error: TranscriptionFailed) -> str | None:
    """Its message quotes what made it fail."""
    words = LOG if isinstance(error.__cause__, OSError) else words_for(error.__cause__)
    return words and TranscriptionFailed(**{**error.details, "reason": words}).message


def status_of(error: AudioStorageSystemError) -> HTTPStatus:
    """The status of the answer. Storage that refuses or lacks something is the server's trouble: neither is the
    recording missing nor may who asks do too little."""
    is_theirs = error.http_status < HTTPStatus.INTERNAL_SERVER_ERROR
    ours = isinstance(error, StorageFailed) and is_theirs
    return HTTPStatus.SERVICE_UNAVAILABLE if ours else HTTPStatus(error.http_status)
