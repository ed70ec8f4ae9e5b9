"""The audit log."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime, BaseModel, Field, Strict

from audio_storage_system.server import problems
from audio_storage_system.server.api.shapes import Answer, Asked, Page, number_in
from audio_storage_system.server.fields import Cursor, Id, Limit, Name
from audio_storage_system.server.gate import Caller
from audio_storage_system.server.long_tasks import MEDIA_TYPE, Line, NdJson, Tasks, Tell

router = APIRouter(prefix="/audit", tags=["audit"], responses=problems.documented(409))
Moment = Annotated[
    AwareDatetime | None,
    Query(description="ISO 8601, with its offset from UTC.", examples=["2026-11-22T12:00:00+00:00"]),
]
CSV = "text/csv"


class AuditEntry(Answer):
    """What was done, by whom and from where; `chain`, `sequence` and `mac` are its place in the log."""

    id: int
    at: datetime
    principal_id: int
    principal: str = Field(examples=["anna"])
    action: str = Field(examples=["recording.read"])
    audio_id: int | None = Field(description="The recording concerned, which may be gone by now.")
    origin: str = Field(examples=["http:10.0.0.7"])
    details: dict[str, Any]
    chain: str
    sequence: int
    mac: str


class AuditAnchor(Answer):
    """How far every chain had come at a moment, each as `[chain, sequence, mac]`. Kept where nobody who can change the
    archive can change it, it proves later that nothing was cut off."""

    format: str
    archive_id: str
    at: datetime
    heads: list[tuple[str, int, str]]
    mac: str


class GivenAuditAnchor(Asked):
    """An anchor as it was given out."""

    format: Annotated[str, Field(max_length=100)]
    archive_id: Annotated[str, Field(max_length=100)]
    at: Annotated[str, Field(max_length=100)]
    heads: list[Annotated[tuple[str, int, str], Strict(False)]]
    mac: Annotated[str, Field(max_length=200)]


class AuditVerifying(Asked):
    """What to compare the log with."""

    anchors: list[GivenAuditAnchor] = Field(default=[], max_length=100)


class AuditFault(BaseModel):
    """Something that is not as it was written."""

    what: Literal["changed", "missing", "repeated", "inserted", "anchor"]
    chain: str
    sequence: int
    message: str


class AuditVerification(Answer):
    """What a verification found."""

    ok: bool = Field(description="Everything is as it was written, as far as can be known.")
    entries: int
    chains: int
    anchors: int
    fault_count: int
    faults: list[AuditFault] = Field(description="The first hundred.")


def wanted(
    audio_id: Id | None = None,
    principal: Name | None = None,
    action: Annotated[Name | None, Query(description="`recording.` is all that begin so.")] = None,
    since: Moment = None,
    until: Moment = None,
) -> dict[str, Any]:
    """Which entries."""
    return {"audio_id": audio_id, "principal": principal, "action": action, "since": since, "until": until}


Wanted = Annotated[dict[str, Any], Depends(wanted)]


@router.get("", summary="The log, the latest first")
def list_audit(storage: Caller, wanted: Wanted, limit: Limit = 100, cursor: Cursor = None) -> Page[AuditEntry]:
    """409 in an archive that keeps none, here and below."""
    found = storage.audit.list(**wanted, limit=limit, cursor=number_in(cursor) or None)
    following = str(found.cursor) if found.cursor is not None else None
    return Page(items=[AuditEntry.of(one) for one in found.entries], next_cursor=following)


@router.get("/anchor", summary="How far the log has come")
def get_audit_anchor(storage: Caller) -> AuditAnchor:
    """To be kept elsewhere, and given back to be compared with."""
    return AuditAnchor.of(storage.audit.heads())


@router.post(
    "/verify",
    summary="Whether the log is whole",
    response_class=NdJson,
    responses={200: {"model": Line[AuditVerification]}},
)
def verify_audit(storage: Caller, tasks: Tasks, wanted: AuditVerifying) -> StreamingResponse:
    """Computes every chain again, and compares it with anchors. A long task."""
    anchors = [anchor.model_dump() for anchor in wanted.anchors]

    def do(tell: Tell) -> AuditVerification:
        def progress(done: int, total: int) -> None:
            tell("reading entries", done, total)

        return AuditVerification.of(storage.audit.verify(anchors, progress))

    return tasks.run(do)


@router.get(
    "/export",
    summary="The log in a file",
    response_class=NdJson,
    responses={200: {"model": AuditEntry, "content": {CSV: {"schema": {"type": "string"}}}}},
)
def export_audit(
    storage: Caller, tasks: Tasks, wanted: Wanted, format: Literal["jsonl", "csv"] = "jsonl"
) -> StreamingResponse:
    """The oldest first: an entry a line, or a table. Where it fails halfway, the connection is cut."""

    def write(out: Any) -> None:
        storage.audit.export(out, format, **wanted)

    return tasks.export(write, MEDIA_TYPE if format == "jsonl" else CSV)
