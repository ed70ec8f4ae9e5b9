"""Background jobs: found, cancelled, retried, given."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field

from audio_storage_system import AudioStorageSystem, records
from audio_storage_system.records import EmbeddingKind
from audio_storage_system.server import problems, withheld
from audio_storage_system.server.api.shapes import Asked, Given, Page, number_in, page
from audio_storage_system.server.fields import Cursor, Id, Language, Limit, Model, Name, Text
from audio_storage_system.server.gate import Caller
from audio_storage_system.server.offers import embedder, offered

router = APIRouter(tags=["jobs"], responses=problems.documented())

State = Literal["waiting", "running", "delayed", "done", "failed", "cancelled"]
Priority = Literal["high", "normal", "low"]
Rule = Literal["always", "if-better", "never"]
JobId = Annotated[Id, Path(description="The job.", examples=[12])]
MOST_AT_ONCE = 200


class Job(BaseModel):
    """Something to be done in the background."""

    job_id: int = Field(examples=[12])
    kind: str = Field(description="What: `add`, `retranscribe`, `translate`, `reembed` …", examples=["add"])
    audio_id: int | None = Field(description="Of which recording; null where it is about the archive.")
    options: dict[str, Any] = Field(description="How.")
    priority: Priority
    step: str = Field(description="Where it is.", examples=["transcribe"])
    failures: int = Field(description="How often in a row this step has failed.")
    state: State
    code: str | None = Field(description="Why it failed, for programs.", examples=["decode_failed"])
    reason: str | None = Field(description="The same for people.")
    created_at: str = Field(json_schema_extra={"format": "date-time"})
    updated_at: str = Field(json_schema_extra={"format": "date-time"})
    worker: str | None = Field(description="Who is at it.")
    until: str | None = Field(description="When it is tried again.", json_schema_extra={"format": "date-time"})
    seconds_done: float | None = Field(description="How much of the recording is transcribed.")
    seconds: float | None = Field(description="How long the recording is.")
    duplicate: bool

    @classmethod
    def of(cls, job: records.Job) -> Self:
        """The answer for a job."""
        return cls.model_validate({**job.as_dict(), "reason": withheld.reason_of(job)})


class Counts(BaseModel):
    """How many jobs have ended in which way, and how many have not."""

    done: int
    failed: int
    cancelled: int
    unfinished: int


class Listing(Given):
    """Which jobs to list."""

    state: State | None = None
    audio_id: Id | None = Field(default=None, description="Of this recording.")
    limit: Limit = 50
    cursor: Cursor = None


class Retranscription(Asked):
    """How to make a new version of what is said."""

    whisper_model: Model | None = Field(default=None, description="Else as it is set.", examples=["large-v3"])
    language: Language | None = Field(default=None, examples=["en"])
    prompt: Annotated[Text, Field(max_length=10_000)] | None = Field(
        default=None, description="Words and names that are likely to be said."
    )
    activate: Rule | None = Field(default=None, description="Whether search follows it.")
    priority: Priority = "normal"

    def arguments(self, storage: AudioStorageSystem) -> dict[str, Any]:
        """For `retranscribe`, without the recordings. Raises `UnknownSpec`."""
        given = {name: getattr(self, name) for name in Retranscription.model_fields}
        return {**given, "whisper_model": offered(storage, self.whisper_model)}


class Retranscriptions(Retranscription):
    """The same, of which recordings."""

    audio_ids: list[Id] = Field(min_length=1, max_length=MOST_AT_ONCE, examples=[[7, 8]])


class Reembedding(Asked):
    """How to embed the archive anew."""

    embedder: Name | None = Field(default=None, description="Else the one in use.", examples=["wordllama"])
    kind: Literal["transcript", "audio"] = "transcript"
    drop_old: bool = Field(default=False, description="Free the spaces of this kind that are no longer used.")
    priority: Priority = "normal"


@router.get("/jobs", summary="List jobs")
def list_jobs(storage: Caller, wanted: Annotated[Listing, Query()]) -> Page[Job]:
    """Of the recordings that you may see, the latest first."""
    before = number_in(wanted.cursor) or None
    found = storage.jobs.find(wanted.state, audio_id=wanted.audio_id, before=before, limit=wanted.limit + 1)
    shown, following = page(found, wanted.limit, lambda one: str(one.id))
    return Page(items=[Job.of(job) for job in shown], next_cursor=following)


@router.get("/jobs/counts", summary="How many jobs there are")
def count_jobs(storage: Caller) -> Counts:
    """Of the recordings that you may see."""
    return Counts.model_validate(storage.jobs.counts())


@router.post(
    "/retranscribe", status_code=202, summary="Transcribe recordings again", responses=problems.documented(404)
)
def retranscribe_recordings(storage: Caller, wanted: Retranscriptions) -> list[Job]:
    """A job for each recording, in the order given. Earlier versions stay."""
    return [Job.of(job) for job in storage.retranscribe(wanted.audio_ids, **wanted.arguments(storage))]


@router.post("/reembed", status_code=202, summary="Embed the archive anew", responses=problems.documented(409))
def reembed(storage: Caller, wanted: Reembedding) -> Job:
    """Searches use the old space until the new one is complete. The embedder is the bundled one, one that the settings
    or a space of the archive name, or one of fastembed's. For administrators."""
    given = wanted.model_dump()
    given["embedder"] = embedder(storage, wanted.embedder, EmbeddingKind(wanted.kind))
    return Job.of(storage.submit_reembedding(**given))


@router.get("/jobs/{job_id}", summary="One job", responses=problems.documented(404))
def get_job(storage: Caller, job_id: JobId) -> Job:
    """Where it is, and how much of the recording is done."""
    return Job.of(storage.jobs.get(job_id))


@router.post("/jobs/{job_id}/cancel", summary="Cancel a job", responses=problems.documented(404))
def cancel_job(storage: Caller, job_id: JobId) -> Job:
    """What it has stored stays. One that has ended already stays as it ended."""
    storage.jobs.cancel(job_id)
    return Job.of(storage.jobs.get(job_id))


@router.post("/jobs/{job_id}/retry", summary="Retry a job", responses=problems.documented(404, 409))
def retry_job(storage: Caller, job_id: JobId) -> Job:
    """One that failed or was cancelled goes on where it ended; 409 for one that did neither."""
    storage.jobs.retry(job_id)
    return Job.of(storage.jobs.get(job_id))
