"""What is said of a file that is to be stored, and what is answered."""

from __future__ import annotations

import time
from typing import Any, Literal, Self

from anyio import sleep, to_thread
from pydantic import AwareDatetime, BaseModel, Field

from audio_storage_system import AudioStorageSystem
from audio_storage_system.records import Job
from audio_storage_system.server import forms, withheld
from audio_storage_system.server.api.shapes import Given
from audio_storage_system.server.fields import Language, Model, Values, parsed_object
from audio_storage_system.server.offers import offered

POLL_SECONDS = 0.25
LONGEST_WAIT = 60.0


class Storing(Given):
    """How a file is to be stored and what is to become of it."""

    metadata: Values = Field(default={}, description="Any keys and values.", examples=[{"user": "john"}])
    whisper_model: Model | None = Field(default=None, examples=["base"])
    language: Language | None = Field(default=None, description="ISO 639-1; else the engine decides.", examples=["en"])
    generate_embeddings: bool = True
    recorded_at: AwareDatetime | None = Field(
        default=None, description="When it was recorded, where the file itself does not say it."
    )
    on_duplicate: Literal["keep", "update", "error"] = Field(
        default="keep", description="What of the metadata wins, if these bytes are stored already; or `error`."
    )
    priority: Literal["high", "normal", "low"] = "normal"

    @classmethod
    def of_texts(cls, given: dict[str, Any]) -> Self:
        """From the fields of a form or header, which are text; `metadata` is JSON. Raises `RequestValidationError`,
        `InvalidInput`."""
        values = {name: value for name, value in given.items() if value != ""}
        if "metadata" in values:
            values["metadata"] = parsed_object(values["metadata"], "metadata")
        with forms.checked():
            return cls.model_validate(values)

    def arguments(self, storage: AudioStorageSystem) -> dict[str, Any]:
        """For `submit` and `uploads.create`. Raises `UnknownSpec`."""
        given = {name: getattr(self, name) for name in Storing.model_fields}
        return {**given, "whisper_model": offered(storage, self.whisper_model)}


class Stored(BaseModel):
    """What a file became."""

    audio_id: int = Field(description="The recording.", examples=[7])
    job_id: int = Field(description="The job that transcribes and embeds it.", examples=[12])
    duplicate: bool = Field(description="Whether these bytes were stored before.")
    state: str = Field(description="Of the job.", examples=["waiting"])
    reason: str | None = Field(default=None, description="Why the job failed, if it did.")

    @classmethod
    def of(cls, job: Job) -> Self:
        """The answer for a job."""
        reason = withheld.reason_of(job)
        return cls(audio_id=job.audio_id or 0, job_id=job.id, duplicate=job.duplicate, state=job.state, reason=reason)


async def awaited(storage: AudioStorageSystem, job: Job, seconds: float) -> Stored:
    """What became of a file once its job has ended, or after so many seconds; no thread waits meanwhile."""
    until, answer = time.monotonic() + seconds, Stored.of(job)
    while not job.state.ended and time.monotonic() < until:
        await sleep(POLL_SECONDS)
        job = await to_thread.run_sync(storage.jobs.get, job.id)
        answer = Stored.of(job).model_copy(update={"duplicate": answer.duplicate})
    return answer
