"""Users, groups and services."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from fastapi import APIRouter, Response
from pydantic import Field

from audio_storage_system.server import problems
from audio_storage_system.server.api.shapes import Answer, Asked, Page, number_in, page
from audio_storage_system.server.fields import Cursor, Limit, Name
from audio_storage_system.server.gate import Caller

router = APIRouter(tags=["users"], responses=problems.documented())
Kind = Literal["user", "group", "service"]


class User(Answer):
    """Somebody, a group of them, or a service."""

    principal_id: int
    name: str = Field(examples=["anna"])
    kind: Kind
    created_at: datetime
    groups: list[str] = Field(description="Those that it is in itself.", examples=[["editors"]])


class NewUser(Asked):
    """Somebody to add."""

    name: Name = Field(examples=["anna"])
    kind: Kind = "user"


class Membership(Asked):
    """A member of a group."""

    group: Name = Field(examples=["editors"])
    member: Name = Field(examples=["anna"])


@router.get("/users", summary="Everybody")
def list_users(storage: Caller, limit: Limit = 100, cursor: Cursor = None) -> Page[User]:
    """The oldest first, with the groups that they are in."""
    found = storage.users.list(limit=limit + 1, after=number_in(cursor))
    shown, following = page(found, limit, lambda one: str(one.id))
    return Page(items=[User.of(one) for one in shown], next_cursor=following)


@router.post("/users", status_code=201, summary="Add somebody", responses=problems.documented(409))
def add_user(storage: Caller, wanted: NewUser) -> User:
    """A user, a group or a service. 409 where the name is taken."""
    return User.of(storage.users.add(wanted.name, wanted.kind))


@router.get("/users/{name:path}", summary="One of them", responses=problems.documented(404))
def get_user(storage: Caller, name: Name) -> User:
    """With the groups that they are in."""
    return User.of(storage.users.get(name))


@router.delete(
    "/users/{name:path}", status_code=204, summary="Take somebody away", responses=problems.documented(404, 409)
)
def remove_user(storage: Caller, name: Name) -> Response:
    """With their grants, tokens and memberships. 409 for one that owns recordings."""
    storage.users.remove(name)
    return Response(status_code=204)


@router.post(
    "/memberships", status_code=204, summary="Put somebody into a group", responses=problems.documented(404, 409)
)
def join_group(storage: Caller, wanted: Membership) -> Response:
    """Or a group into a group. What is granted to the group is granted to them. 409 for a circle."""
    storage.users.join(wanted.group, wanted.member)
    return Response(status_code=204)


@router.delete(
    "/memberships", status_code=204, summary="Take somebody out of a group", responses=problems.documented(404)
)
def leave_group(storage: Caller, group: Name, member: Name) -> Response:
    """A member that the group does not have is no error."""
    storage.users.leave(group, member)
    return Response(status_code=204)
