"""The schema that the metadata of an owner's recordings has to meet."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Response
from pydantic import BaseModel

from audio_storage_system.errors import NotFound
from audio_storage_system.server import problems
from audio_storage_system.server.api.shapes import Answer, Page, number_in, part
from audio_storage_system.server.fields import Cursor, Limit, Name, Values
from audio_storage_system.server.gate import Caller

router = APIRouter(prefix="/metadata-schema", tags=["metadata"], responses=problems.documented(404))
Owner = Annotated[
    Name | None, Query(description="Whose recordings; default one's own. Others' are for administrators.")
]
EXAMPLE = {"type": "object", "required": ["session"], "properties": {"session": {"type": "string"}}}


class Violation(BaseModel):
    """A rule that metadata breaks."""

    key: str
    rule: str
    message: str


class Nonconforming(Answer):
    """A recording whose metadata does not meet the schema."""

    audio_id: int
    original_name: str
    violations: list[Violation]


@router.get("", summary="The schema")
def get_metadata_schema(storage: Caller, owner: Owner = None) -> dict[str, Any]:
    """JSON Schema, Draft 2020-12. 404 where there is none."""
    found = storage.metadata_schema(owner)
    if found is None:
        raise NotFound("There is no schema for this metadata.")
    return found


@router.put("", status_code=204, summary="Set the schema")
def set_metadata_schema(
    storage: Caller, wanted: Annotated[Values, Body(examples=[EXAMPLE])], owner: Owner = None
) -> Response:
    """From now on, what would break it is refused. What is stored stays, see `GET /metadata-schema/violations`. It is
    JSON Schema, Draft 2020-12, of at most 64 KiB, without references out of itself."""
    storage.set_metadata_schema(wanted, owner)
    return Response(status_code=204)


@router.delete("", status_code=204, summary="Take the schema away")
def remove_metadata_schema(storage: Caller, owner: Owner = None) -> Response:
    """404 where there is none."""
    if not storage.remove_metadata_schema(owner):
        raise NotFound("There is no schema for this metadata.")
    return Response(status_code=204)


@router.get("/violations", summary="Recordings whose metadata does not meet it")
def check_metadata(
    storage: Caller, owner: Owner = None, limit: Limit = 100, cursor: Cursor = None
) -> Page[Nonconforming]:
    """With the rules that they break."""
    shown, following = part(storage.check_metadata(owner), limit, number_in(cursor), lambda one: one.audio_id)
    return Page(items=[Nonconforming.of(one) for one in shown], next_cursor=following)
