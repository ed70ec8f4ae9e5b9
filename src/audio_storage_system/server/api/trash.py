"""The trash."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from audio_storage_system.server import problems
from audio_storage_system.server.api.removal import Receipt
from audio_storage_system.server.api.shapes import Answer, Asked, Page, cursor_of, page, place_of
from audio_storage_system.server.fields import Cursor, Id, Limit
from audio_storage_system.server.gate import Caller
from audio_storage_system.server.long_tasks import Line, NdJson, Tasks

router = APIRouter(tags=["trash"], responses=problems.documented())
AudioIds = Annotated[list[Id], Field(min_length=1, max_length=10_000, examples=[[1]])]


class Trashed(Answer):
    """A recording in the trash, which goes for good after `purge_after`."""

    audio_id: int
    owner_id: int = Field(description="A `principal_id`.")
    original_name: str = Field(examples=["meeting.m4a"])
    duration: float | None
    trashed_by: int = Field(description="A `principal_id`.")
    trashed_at: datetime
    purge_after: datetime


class TrashChoice(Asked):
    """Recordings in the trash."""

    audio_ids: AudioIds


class TrashEmptying(Asked):
    """Recordings in the trash."""

    audio_ids: AudioIds | None = Field(default=None, description="`null` is everything.", examples=[None, [1]])


class TrashRestored(BaseModel):
    """The recordings that are back."""

    audio_ids: list[int]


class TrashEmptied(BaseModel):
    """What emptying the trash did."""

    deleted: list[Receipt]
    held: dict[int, str] = Field(description="What a legal hold keeps, and why.")


@router.get("/trash", summary="What is in the trash")
def list_trash(storage: Caller, limit: Limit = 100, cursor: Cursor = None) -> Page[Trashed]:
    """The latest first, of what one could delete oneself."""
    found = storage.trash.list(limit=limit + 1, after=place_of(cursor))
    shown, following = page(found, limit, lambda one: cursor_of(one.trashed_at, one.audio_id))
    return Page(items=[Trashed.of(one) for one in shown], next_cursor=following)


@router.post("/trash/restore", summary="Put recordings back", responses=problems.documented(404))
def restore_from_trash(storage: Caller, wanted: TrashChoice) -> TrashRestored:
    """As they were; all of them or none. What was not transcribed yet is left to the workers."""
    return TrashRestored(audio_ids=storage.trash.restore(*wanted.audio_ids))


@router.post(
    "/trash/empty",
    summary="Delete for good",
    response_class=NdJson,
    responses={200: {"model": Line[TrashEmptied]}, **problems.documented(404)},
)
def empty_trash(storage: Caller, tasks: Tasks, wanted: TrashEmptying) -> StreamingResponse:
    """These, or everything in the trash that one could delete; what a legal hold covers stays. A long task."""

    def do(tell: object) -> TrashEmptied:
        return TrashEmptied.model_validate(storage.trash.empty(*wanted.audio_ids or ()).as_dict())

    return tasks.run(do)
