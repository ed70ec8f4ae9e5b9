"""Legal holds."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from audio_storage_system.server import problems
from audio_storage_system.server.api.shapes import Answer, Asked, Page, RecordingSelection, number_in, part
from audio_storage_system.server.fields import Conditions, Cursor, Id, Limit, Name, Text
from audio_storage_system.server.gate import Caller

router = APIRouter(tags=["holds"], responses=problems.documented())


class Hold(Answer):
    """What it covers is removed by no rule and by no hand; `released_at` is `null` while it holds."""

    id: int
    name: str = Field(examples=["case 4711"])
    selection: RecordingSelection
    reason: str
    placed_by: int = Field(description="A `principal_id`.")
    placed_at: datetime
    released_at: datetime | None


class NewHold(Asked):
    """A hold to place, on recordings by their ids or on all that meet the conditions, now or later."""

    name: Annotated[Name, Field(max_length=200, examples=["case 4711"])]
    audio_ids: list[Id] = Field(default=[], max_length=10_000, examples=[[1]])
    where: Conditions | None = None
    owner: Name | None = Field(default=None, description="What this principal owns.", examples=[None])
    tag: Name | None = Field(default=None, description="What has this label.", examples=[None])
    reason: Annotated[Text, Field(max_length=10_000)] = ""


@router.get("/holds", summary="The legal holds")
def list_holds(
    storage: Caller,
    released: Annotated[bool, Query(description="Those that hold no longer too.")] = False,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[Hold]:
    """In the order in which they were placed."""
    shown, following = part(storage.holds.list(released=released), limit, number_in(cursor), lambda one: one.id)
    return Page(items=[Hold.of(one) for one in shown], next_cursor=following)


@router.post("/holds", status_code=201, summary="Place a hold", responses=problems.documented(404, 409))
def place_hold(storage: Caller, wanted: NewHold) -> Hold:
    """A name is used once: 409 for one that is or was another's."""
    placed = storage.holds.place(
        wanted.name,
        audio_ids=wanted.audio_ids,
        where=wanted.where,
        owner=wanted.owner,
        tag=wanted.tag,
        reason=wanted.reason,
    )
    return Hold.of(placed)


@router.delete("/holds/{name:path}", summary="Release a hold", responses=problems.documented(404))
def release_hold(storage: Caller, name: Name) -> Hold:
    """What it covered is under the rules again. The hold stays on the list, as released."""
    return Hold.of(storage.holds.release(name))
