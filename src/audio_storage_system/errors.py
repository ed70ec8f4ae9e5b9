"""Every error the system raises on purpose, as one tree.

    AudioStorageSystemError
    ├── InvalidInput           what was given can never work as it stands
    │   ├── NotAudio
    │   ├── UnknownSpec
    │   ├── InvalidFilter
    │   ├── InvalidMetadata
    │   ├── InvalidVector
    │   ├── TooLarge
    │   ├── ChecksumMismatch
    │   ├── TooSlow
    │   └── InvalidSetting
    ├── NotFound
    │   ├── InTrash
    │   └── AudioRemoved
    ├── Conflict               what was given contradicts what is stored
    │   ├── DuplicateRecording
    │   ├── ArchiveMismatch
    │   ├── VectorIndexMismatch
    │   ├── UnderLegalHold
    │   ├── OffsetMismatch
    │   ├── UploadBusy
    │   ├── TooManyUploads
    │   ├── StillRecording
    │   ├── SessionHeld
    │   ├── RestoreUnfinished
    │   └── NewerFormat
    ├── Unauthorized           nobody says who asks
    ├── Forbidden              who asks may not
    ├── TooManyRequests        who asks does so too often
    ├── TooManySessions        who asks has enough of them
    ├── ClientSilent
    ├── Unexpected             a defect, told to who asked without what caused it
    ├── KeyMissing
    ├── KeyRefused
    ├── Unavailable            something outside the archive is missing
    │   ├── MissingExtra
    │   ├── MissingExtension
    │   ├── EngineUnavailable
    │   │   └── WeightsUnavailable
    │   ├── EmbedderMissing
    │   ├── MicrophoneUnavailable
    │   ├── VectorIndexUnavailable
    │   ├── Busy
    │   └── ServiceFailed
    ├── TranscriptionFailed
    ├── DeadlineExceeded
    ├── Cancelled
    └── StorageFailed          the archive's own disk, object store or database refused
        ├── StorageUnavailable
        ├── StorageRefused
        ├── BucketNotFound
        ├── ArchiveNotFound
        ├── ArchiveReadOnly
        ├── StorageFull
        ├── ArchiveBusy
        ├── ArchiveDamaged
        │   └── SealBroken
        ├── BackupDamaged
        ├── DatabaseUnavailable
        └── DatabaseRefused

A class's docstring is its message, filled in with the keyword arguments it is raised with. Each class names its exit
code for the command line, its HTTP status, and whether trying the same call again can help.
"""

from typing import Any, ClassVar


class AudioStorageSystemError(Exception):
    """Something went wrong: {reason}"""

    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(self, message: str | None = None, /, **details: Any) -> None:
        self.details = details
        template = " ".join((type(self).__doc__ or type(self).__name__).split())
        self.message = message if message is not None else template.format(**details)
        super().__init__(self.message)

    @property
    def code(self) -> str:
        """A stable name for programs: the class name in snake case."""
        return "".join("_" + c.lower() if c.isupper() else c for c in type(self).__name__).lstrip("_")

    def as_dict(self) -> dict[str, Any]:
        """The error as JSON-able data: code, message, retryable."""
        return {"code": self.code, "message": self.message, "retryable": self.retryable}


class InvalidInput(AudioStorageSystemError):
    """{reason}"""

    exit_code, http_status = 2, 400


class NotAudio(InvalidInput):
    """{name} is not audio that can be read: {reason}"""

    http_status = 415


class UnknownSpec(InvalidInput):
    """There is no {kind} "{spec}". Known: {known}."""


class InvalidFilter(InvalidInput):
    """The filter on {key} cannot be used: {reason}"""


class InvalidMetadata(InvalidInput):
    """The metadata entry {key} cannot be stored: {reason}"""


class InvalidVector(InvalidInput):
    """The embedding from {model} cannot be stored: {reason}"""


class TooLarge(InvalidInput):
    """{what} is larger than the limit of {limit}."""

    http_status = 413


class ChecksumMismatch(InvalidInput):
    """What was appended to upload {id} does not have its checksum, and was discarded. Send it again."""

    retryable = True


class TooSlow(InvalidInput):
    """The request came too slowly to wait for the rest of it."""

    http_status, retryable = 408, True


class InvalidSetting(InvalidInput):
    """The setting {name} cannot be used: {reason}"""


class NotFound(AudioStorageSystemError):
    """No {kind} with id {id}."""

    exit_code, http_status = 4, 404


class InTrash(NotFound):
    """Recording {audio_id} is in the trash. Put it back with: audio-storage trash restore {audio_id}"""


class AudioRemoved(NotFound):
    """The audio of recording {audio_id} was removed by a retention rule; what was said in it may still be here."""

    http_status = 410


class Conflict(AudioStorageSystemError):
    """{reason}"""

    exit_code, http_status = 5, 409


class DuplicateRecording(Conflict):
    """{name} is already stored as recording {audio_id}{reason}."""


class ArchiveMismatch(Conflict):
    """The archive at {place} is not the one expected: {reason}"""


class VectorIndexMismatch(Conflict):
    """The vector index at {place} holds {found}, and this archive would put {wanted} there. Give the archive an address
    of its own, or remove what is there."""


class UnderLegalHold(Conflict):
    """Recording {audio_id} is under the legal hold "{hold}" and stays until that is released."""


class OffsetMismatch(Conflict):
    """Upload {id} has {offset} bytes; go on from there, not from {given}."""

    retryable = True


class UploadBusy(Conflict):
    """Upload {id} is being written to by another request."""

    http_status, retryable = 423, True


class TooManyUploads(Conflict):
    """There is no room for another upload: {reason}. Finish or abort one, or wait until one expires."""

    http_status, retryable = 429, True


class StillRecording(Conflict):
    """Recording {audio_id} is still being recorded. When that has ended, it can be done."""

    retryable = True


class SessionHeld(Conflict):
    """The live session {session} is held by another process, or by another client. When that lets go of it, it can be
    resumed."""

    retryable = True


class RestoreUnfinished(Conflict):
    """The archive at {place} is being restored from the backup set {set}, and is not whole yet. If that was
    interrupted, run the same restore again: it goes on."""


class NewerFormat(Conflict):
    """The archive at {place} has format {found}; this version reads up to {known}. Upgrade audio-storage-system."""


class Unauthorized(AudioStorageSystemError):
    """The token is not accepted: {reason}."""

    exit_code, http_status = 10, 401


class Forbidden(AudioStorageSystemError):
    """{principal} may not {action}."""

    exit_code, http_status = 10, 403


class TooManyRequests(AudioStorageSystemError):
    """Too many requests: the next one may come in {seconds:.3g} s."""

    exit_code, http_status, retryable = 12, 429, True


class TooManySessions(AudioStorageSystemError):
    """No more than {limit} live sessions of one caller are open at the same time. End one first."""

    http_status, retryable = 429, True


class ClientSilent(AudioStorageSystemError):
    """Nothing came over the socket for {seconds:g} s. What came before is kept."""

    http_status, retryable = 408, True


class Unexpected(AudioStorageSystemError):
    """This should not have happened; the server's log says more."""

    retryable = True


class KeyMissing(AudioStorageSystemError):
    """The archive at {place} opens with its key, which is not here: {reason}. Nothing was changed."""

    exit_code, http_status = 11, 503


class KeyRefused(AudioStorageSystemError):
    """The key given does not open the archive at {place}: {reason}. Nothing was changed."""

    exit_code, http_status = 11, 503


class Unavailable(AudioStorageSystemError):
    """{reason}"""

    exit_code, http_status = 6, 503


class MissingExtra(Unavailable):
    """{what} needs a package that is not installed: pip install "audio-storage-system[{extra}]"."""


class MissingExtension(Unavailable):
    """The database at {place} lacks the extension pgvector ({reason}). Where it is installed, a superuser makes it
    with: CREATE EXTENSION vector. Or choose another vector index, see the setting vectors_url."""


class EngineUnavailable(Unavailable):
    """{spec} cannot run here: {reason}"""

    retryable = True


class WeightsUnavailable(EngineUnavailable):
    """{spec} cannot run here: {reason}"""


class EmbedderMissing(Unavailable):
    """This archive's active space is {space}, but its function was not given. Assign it (see use_embedder), or search
    with mode="keyword"."""


class MicrophoneUnavailable(Unavailable):
    """No sound can be recorded here: {reason}"""


class VectorIndexUnavailable(Unavailable):
    """The vector database at {place} cannot be used: {reason}"""

    retryable = True


class Busy(Unavailable):
    """{reason}"""

    retryable = True


class ServiceFailed(Unavailable):
    """The service {service} did not answer as expected: {reason}"""

    http_status, retryable = 502, True


class TranscriptionFailed(AudioStorageSystemError):
    """Recording {audio_id} was stored, but not transcribed: {reason}"""

    exit_code = 7


class DeadlineExceeded(AudioStorageSystemError):
    """Stopped: the deadline of {seconds:.3g} s passed."""

    exit_code, http_status, retryable = 8, 504, True


class Cancelled(AudioStorageSystemError):
    """Stopped, because whoever asked wants it no longer."""

    exit_code, http_status, retryable = 8, 503, True


class StorageFailed(AudioStorageSystemError):
    """The archive could not be written or read: {reason}"""

    exit_code = 9


class StorageUnavailable(StorageFailed):
    """The storage at {place} cannot be reached: {reason}. Nothing was half-stored. Check its address and the network,
    then try again."""

    http_status, retryable = 503, True


class StorageRefused(StorageFailed):
    """The storage at {place} refused: {reason}"""

    http_status = 403


class BucketNotFound(StorageFailed):
    """There is no bucket or container {bucket} for {place}. Make it, or check its name, its region and the endpoint."""

    http_status = 404


class ArchiveNotFound(StorageFailed):
    """There is no archive at {place}. Make one with: audio-storage init"""

    http_status = 404


class ArchiveReadOnly(StorageFailed):
    """The archive at {place} cannot be written: {reason}. Nothing was half-stored. Check who owns the folder and how it
    is mounted."""

    http_status = 403


class StorageFull(StorageFailed):
    """There is no room left at {place}. Nothing was half-stored; free some space and run the same command again."""

    http_status, retryable = 507, True


class ArchiveBusy(StorageFailed):
    """The archive at {place} stayed locked by another process for too long."""

    http_status, retryable = 503, True


class ArchiveDamaged(StorageFailed):
    """The archive at {place} is damaged: {reason}"""


class SealBroken(ArchiveDamaged):
    """The blob {key} is not what was stored: {reason}"""


class BackupDamaged(StorageFailed):
    """The backup at {place} is damaged: {reason}"""


class QueueDamaged(StorageFailed):
    """The queue of jobs at {place} is damaged: {reason}. Stop the workers and delete that file: the archive knows what
    is to be done, and the next worker queues it again."""


class DatabaseUnavailable(StorageFailed):
    """The database at {place} does not answer: {reason}. Check that it runs, that host and port are right, and that it
    accepts connections from here. Nothing was half-stored."""

    http_status, retryable = 503, True


class DatabaseRefused(StorageFailed):
    """The database at {place} refused: {reason}. Check user and password (in the address, PGPASSWORD or .pgpass), the
    database's name, and what the user may do."""
