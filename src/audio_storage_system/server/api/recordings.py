"""Recordings: put in, listed, described, removed."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Self

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from audio_storage_system import AudioStorageSystem
from audio_storage_system.records import Job
from audio_storage_system.server import forms, incoming, problems
from audio_storage_system.server.api.shapes import Answer, Asked, Filters, Page, cursor_of, number_in, page, place_of
from audio_storage_system.server.api.storing import LONGEST_WAIT, Stored, Storing, awaited
from audio_storage_system.server.fields import AudioId, ConditionTexts, Cursor, Limit, Name, Text, Values, where_of
from audio_storage_system.server.gate import Caller

router = APIRouter(prefix="/recordings", tags=["recordings"], responses=problems.documented())


class Recording(Answer):
    """A recording: what its file is, and what was said of it."""

    audio_id: int = Field(examples=[7])
    original_name: str = Field(examples=["meeting.m4a"])
    media_type: str | None = Field(examples=["audio/mp4"])
    codec: str | None = Field(examples=["aac"])
    file_size: int = Field(description="Bytes.")
    file_hash: str = Field(description="SHA-256; in an encrypted archive an HMAC of it.")
    duration: float | None = Field(description="Seconds.")
    sample_rate: int | None
    channels: int | None
    recorded_at: datetime
    recorded_offset_minutes: int | None
    created_at: datetime
    updated_at: datetime
    status: str = Field(examples=["stored"])
    owner_id: int
    metadata: dict[str, Any]
    warnings: list[str] = Field(description="What is wrong with the file.")


class Listing(Filters):
    """Which recordings to list."""

    where: ConditionTexts = Field(default=[])
    limit: Limit = 50
    cursor: Cursor = None


class RecordingPatch(Asked):
    """What is to change: something is."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    metadata: Values = Field(
        default={},
        description="A JSON merge patch (RFC 7396): keys to set; null takes one away, objects are merged key by key.",
        examples=[{"user": "john", "old": None}],
    )
    append: Values = Field(
        default={},
        description="Values to add, each to the end of the list under its key; one is made where nothing is there. "
        "Done after `metadata`.",
        examples=[{"notes": "call back on Monday"}],
    )

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("nothing is to change")
        return self


class MetadataChange(Answer):
    """What one key was before it was changed."""

    id: int
    key: str
    op: str = Field(examples=["update"])
    old_value: Any
    changed_at: datetime
    principal_id: int
    principal: str | None


class Removed(BaseModel):
    """What became of a recording that was removed."""

    audio_id: int
    for_good: bool
    purge_after: datetime | None = Field(default=None, description="Until when it can be had back from the trash.")
    receipt: dict[str, Any] | None = Field(default=None, description="What was deleted, if it was for good.")


class NewRecording(Storing):
    """The fields of a form beside its file."""

    name: Annotated[Text, Field(max_length=1000)] = Field(default="", description="Else as the file is called.")


@router.post(
    "",
    status_code=201,
    response_model=Stored,
    summary="Store a file",
    openapi_extra=forms.documented(NewRecording, "The audio."),
    responses={
        **problems.documented(404, 409, 415, 507),
        200: {"model": Stored, "description": "These bytes were stored before."},
    },
)
async def store_recording(
    request: Request,
    response: Response,
    storage: Caller,
    wait: Annotated[
        float, Query(ge=0, le=LONGEST_WAIT, description="Seconds to wait for the job to end before answering.")
    ] = 0,
) -> Stored:
    """The file is safe when this answers; workers transcribe and embed it. The same bytes again are the same
    recording. A large file over an unreliable network is better sent in parts, see `/uploads`."""
    job = await _received(request, storage)
    response.headers["Location"] = str(request.url_for("get_recording", audio_id=job.audio_id).path)
    if job.duplicate:
        response.status_code = 200
    return await awaited(storage, job, wait)


async def _received(request: Request, storage: AudioStorageSystem) -> Job:
    incoming.must_write(storage, "store recordings")
    async with incoming.form_of(request, storage) as form:
        file, wanted = incoming.file_in(form), forms.read(form, NewRecording)
        name = bare(wanted.name or file.filename or "")
        given = wanted.arguments(storage)
        return await to_thread.run_sync(lambda: storage.submit(file.file, name=name, **given))


def bare(name: str) -> str:
    """A file's name without folders, which some browsers send."""
    return name.replace("\\", "/").rpartition("/")[2][:1000]


@router.get("", summary="List recordings", responses=problems.documented())
def list_recordings(storage: Caller, wanted: Annotated[Listing, Query()]) -> Page[Recording]:
    """The latest recorded first. A page stays what it is while recordings come and go."""
    limits = wanted.limits(where_of(wanted.where))
    found = storage.list_recordings(**limits, limit=wanted.limit + 1, after=place_of(wanted.cursor))
    shown, following = page(found, wanted.limit, lambda one: cursor_of(one.recorded_at, one.id))
    return Page(items=[Recording.of(one) for one in shown], next_cursor=following)


@router.get("/{audio_id}", summary="One recording", responses=problems.documented(404))
def get_recording(storage: Caller, audio_id: AudioId) -> Recording:
    """What its file is, and its metadata."""
    return Recording.of(storage.get_recording(audio_id))


@router.patch("/{audio_id}", summary="Change metadata", responses=problems.documented(404))
def patch_recording(storage: Caller, audio_id: AudioId, patch: RecordingPatch) -> Recording:
    """In one step, or not at all. The history keeps what was there before. Adding to a list loses nothing that others
    add at the same time; 400 where something else is under that key."""
    storage.patch_metadata(audio_id, patch.metadata, append=patch.append)
    return Recording.of(storage.get_recording(audio_id))


@router.get(
    "/{audio_id}/metadata/history",
    summary="What the metadata was before",
    responses=problems.documented(404),
)
def metadata_history(
    storage: Caller, audio_id: AudioId, key: Name | None = None, limit: Limit = 100, cursor: Cursor = None
) -> Page[MetadataChange]:
    """Every change of the metadata, or of one key, the oldest first."""
    found = storage.metadata_history(audio_id, key, after=number_in(cursor), limit=limit + 1)
    shown, following = page(found, limit, lambda one: str(one.id))
    return Page(items=[MetadataChange.of(one) for one in shown], next_cursor=following)


@router.delete("/{audio_id}", summary="Remove a recording", responses=problems.documented(404, 409))
def remove_recording(
    storage: Caller,
    audio_id: AudioId,
    for_good: Annotated[bool, Query(description="Delete it at once and completely; it cannot be had back.")] = False,
) -> Removed:
    """It goes into the trash, from where it can be had back for a while. One that is in the trash already can only be
    deleted for good."""
    if for_good:
        receipt = storage.delete(audio_id)
        return Removed(audio_id=audio_id, for_good=True, receipt=receipt.as_dict())
    [trashed] = storage.trash.put(audio_id)
    return Removed(audio_id=audio_id, for_good=False, purge_after=trashed.purge_after)
