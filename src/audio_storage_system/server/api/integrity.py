"""Whether everything is there and fits together, and what an auditor would name."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from audio_storage_system.clock import MOST_DAYS
from audio_storage_system.server import problems
from audio_storage_system.server.api.shapes import Answer, Asked, Page, part
from audio_storage_system.server.fields import LARGEST_ID, Cursor, Limit, Text
from audio_storage_system.server.gate import Caller
from audio_storage_system.server.long_tasks import Line, NdJson, Tasks, Tell

router = APIRouter(tags=["integrity"], responses=problems.documented())


class Verifying(Asked):
    """How to look."""

    deep: bool = Field(default=False, description="Read every file, text and vector too.")
    repair: bool = Field(default=False, description="Make anew what is derived. What was recorded and said stays.")
    after: Annotated[int, Field(ge=0, le=LARGEST_ID)] = Field(
        default=0, description="Of files, only those of recordings with a higher id: `last_id` of a call cut short."
    )


class Finding(BaseModel):
    """Something that is not as it should be."""

    check: str = Field(examples=["hashes"])
    severity: Literal["error", "warning", "note"]
    what: str
    remedy: str
    kind: str = Field(description="What `ids` are ids of.")
    ids: list[int | str] = Field(description="At most 20 of the `count` there are.")
    count: int
    repairable: bool
    repaired: bool


class Verification(Answer):
    """What was looked at, and what was found."""

    clean: bool
    archive_id: str
    deep: bool
    checks: list[str]
    findings: list[Finding]
    skipped: dict[str, str] = Field(description="What could not be looked at, and why.")
    recordings: int
    bytes: int
    last_id: int
    seconds: float


class FileKey(BaseModel):
    """The key of a file."""

    key: str = Field(examples=["quarantine/20261122/audio_files/2026/11/audio_20261122_120000.wav"])


class QuarantineRestoring(Asked):
    """A file in quarantine."""

    key: Annotated[Text, Field(min_length=1, max_length=4_096)] = Field(
        examples=["quarantine/20261122/audio_files/2026/11/audio_20261122_120000.wav"]
    )


class QuarantineEmptying(Asked):
    """Of what to be rid."""

    older_than_days: Annotated[float, Field(ge=0, le=MOST_DAYS)] | None = Field(
        default=None, description="What has been there for so long; else the setting `quarantine_days`."
    )


class QuarantineEmptied(Answer):
    """What is gone."""

    removed: list[str] = Field(examples=[["quarantine/20261122/audio_files/2026/11/audio_20261122_120000.wav"]])


class SecurityChecking(Asked):
    """What counts as stale."""

    stale_days: Annotated[float, Field(ge=0, le=MOST_DAYS)] = Field(
        default=90.0, description="What nobody has used for so long."
    )


class Weakness(BaseModel):
    """Something an auditor would name."""

    name: str = Field(examples=["tokens without expiry"])
    gravity: Literal["serious", "moderate", "note"]
    evidence: str
    fix: str


class SecurityReport(Answer):
    """The weaknesses found, the worst first."""

    serious: bool
    weaknesses: list[Weakness]
    unchecked: dict[str, str] = Field(description="What could not be looked at, and why.")


@router.post(
    "/verify",
    summary="Whether everything is there and fits together",
    response_class=NdJson,
    responses={200: {"model": Line[Verification]}},
)
def verify(storage: Caller, tasks: Tasks, wanted: Verifying) -> StreamingResponse:
    """While the archive is in use. A long task."""

    def do(tell: Tell) -> Verification:
        done = storage.verify(deep=wanted.deep, repair=wanted.repair, after=wanted.after, progress=tell)
        return Verification.of(done)

    return tasks.run(do)


@router.post(
    "/security/check",
    summary="What an auditor would name",
    response_class=NdJson,
    responses={200: {"model": Line[SecurityReport]}},
)
def check_security(storage: Caller, tasks: Tasks, wanted: SecurityChecking) -> StreamingResponse:
    """Open files, keys beside data, old tokens, no backups …, each with the fix. Known vulnerabilities are looked up in
    the server's own database of advisories. Changes nothing. A long task."""
    return tasks.run(lambda tell: SecurityReport.of(storage.check_security(stale_days=wanted.stale_days)))


@router.get("/quarantine", summary="Files that no recording has")
def list_quarantine(storage: Caller, limit: Limit = 100, cursor: Cursor = None) -> Page[FileKey]:
    """What `verify` with `repair` moved aside."""
    shown, following = part(sorted(storage.quarantine.list()), limit, cursor or "", str)
    return Page(items=[FileKey(key=key) for key in shown], next_cursor=following)


@router.post("/quarantine/empty", summary="Remove what has been there for long")
def empty_quarantine(storage: Caller, wanted: QuarantineEmptying) -> QuarantineEmptied:
    """For good. While a legal hold stands nothing is removed, and never the bytes that a recording is missing."""
    return QuarantineEmptied(removed=storage.quarantine.empty(older_than_days=wanted.older_than_days))


@router.post("/quarantine/restore", summary="Put a file back", responses=problems.documented(404))
def restore_from_quarantine(storage: Caller, wanted: QuarantineRestoring) -> FileKey:
    """Where it was, or under the next free name. Audio becomes a recording, unless the archive has these bytes."""
    return FileKey(key=storage.quarantine.restore(wanted.key))
