"""Grants: who may what, with which recordings."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from fastapi import APIRouter
from pydantic import Field

from audio_storage_system.server import problems
from audio_storage_system.server.api.shapes import Answer, Asked, Page, number_in, page
from audio_storage_system.server.fields import Cursor, Id, Limit, Name, Until, Values
from audio_storage_system.server.gate import Caller

router = APIRouter(tags=["grants"], responses=problems.documented())
Role = Literal["reader", "editor", "owner", "admin"]


class Grant(Answer):
    """A role of somebody on a recording, on those that meet conditions (`selection`), or on the archive."""

    grant_id: int
    principal: str = Field(examples=["anna"])
    role: Role
    reach: Literal["recording", "selection", "archive"]
    audio_id: int | None
    where: dict[str, str] = Field(description="The conditions of a selection.", examples=[{}])
    created_at: datetime
    expires_at: datetime | None


class NewGrant(Asked):
    """A grant to give, on one of: a recording, a selection, everything."""

    principal: Name = Field(examples=["anna"])
    role: Role = Field(examples=["reader"])
    audio_id: Id | None = Field(default=None, examples=[1])
    where: Values | None = Field(
        default=None, description="One value for each key of the metadata.", examples=[None, {"session": "meeting_1"}]
    )
    everything: bool = Field(default=False, description="The archive; `admin` is given on it only.")
    expires_at: Until | None = Field(default=None, examples=[None, "2030-01-01T00:00:00+00:00"])


@router.get("/grants", summary="Who may what")
def list_grants(
    storage: Caller,
    principal: Name | None = None,
    audio_id: Id | None = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[Grant]:
    """The oldest first. Who is no administrator is told of those that are to them, or on recordings that they own."""
    found = storage.grants.list(principal, audio_id=audio_id, limit=limit + 1, after=number_in(cursor))
    shown, following = page(found, limit, lambda one: str(one.id))
    return Page(items=[Grant.of(one) for one in shown], next_cursor=following)


@router.post("/grants", status_code=201, summary="Let somebody do something", responses=problems.documented(404))
def give_grant(storage: Caller, wanted: NewGrant) -> Grant:
    """On a recording its owners give; on a selection and on everything, administrators. It holds at once."""
    given = storage.grants.give(
        wanted.principal,
        wanted.role,
        audio_id=wanted.audio_id,
        where=wanted.where,
        everything=wanted.everything,
        expires_at=wanted.expires_at,
    )
    return Grant.of(given)


@router.delete("/grants/{grant_id}", summary="Take a grant back", responses=problems.documented(404))
def revoke_grant(storage: Caller, grant_id: Id) -> Grant:
    """At once. What it was."""
    return Grant.of(storage.grants.revoke(grant_id))
