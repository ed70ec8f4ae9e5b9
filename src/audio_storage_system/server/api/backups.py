"""Backups, at places that whoever runs the server has named: nobody chooses a path or an address from outside."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from audio_storage_system import AudioStorageSystem
from audio_storage_system.clock import MOST_DAYS
from audio_storage_system.errors import NotFound
from audio_storage_system.server import problems
from audio_storage_system.server.api.audit import AuditAnchor
from audio_storage_system.server.api.shapes import Answer, Asked, Page, part
from audio_storage_system.server.fields import Cursor, Limit
from audio_storage_system.server.gate import Caller
from audio_storage_system.server.long_tasks import Line, NdJson, Tasks, Tell

router = APIRouter(prefix="/backups", tags=["backups"], responses=problems.documented(404, 409))
Destination = Annotated[
    str, Path(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="Its name in `backup_destinations`.", examples=["offsite"])
]
SetId = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_.:-]+$")]
Number = Annotated[int, Field(ge=0, le=100_000)]


class UnsavedAudio(BaseModel):
    """A recording whose audio could not be backed up."""

    audio_id: int
    key: str
    reason: str


class BackupSet(Answer):
    """One set. `there`: it is at the destination; `null` where that was not looked at."""

    set_id: str
    destination: str
    taken_at: datetime
    verified_at: datetime | None
    expires_at: datetime | None
    removed_at: datetime | None
    there: bool | None


class BackupCreating(Asked):
    """How to make a set."""

    full: bool = Field(default=False, description="Read every row again.")
    keep_days: Annotated[float, Field(gt=0, le=MOST_DAYS)] | None = Field(
        default=None, description="Pruning removes it then, and not before.", examples=[None, 30]
    )


class BackupReport(Answer):
    """What making a set did."""

    set_id: str
    destination: str
    taken_at: datetime
    rows: dict[str, int]
    packs_written: int
    packs_reused: int
    blobs: int
    bytes: int
    blobs_copied: int
    bytes_copied: int
    expires_at: datetime | None
    problems: list[UnsavedAudio]
    seconds: float
    complete: bool = Field(description="The audio of every recording is in the set.")


class BackupChoice(Asked):
    """A set."""

    set_id: SetId | None = Field(default=None, description="Default: the last one.", examples=[None])


class BackupVerifying(BackupChoice):
    """How to read it back."""

    repair: bool = Field(
        default=False, description="Move aside what is rotten, so that the next backup stores it anew."
    )


class BackupDamage(BaseModel):
    """What is rotten, and what is lost with it."""

    key: str
    reason: str
    table: str | None
    from_id: int | None
    audio_id: int | None


class BackupVerification(Answer):
    """What reading a set back found."""

    set_id: str
    destination: str
    how: str = Field(examples=["verify"])
    complete: bool
    rows: dict[str, int]
    blobs: int
    bytes: int
    damages: list[BackupDamage]
    differences: list[str]
    searched: int | None
    audit: Any = Field(description="The anchor of the audit log that is in the set.")
    seconds: float
    whole: bool = Field(description="Everything that the set names is there and is what was written.")


class BackupPruning(Asked):
    """Which sets are kept: the last ones, and the last one of each of so many days, weeks and months."""

    keep_last: Number = Field(default=0, examples=[3])
    keep_daily: Number = Field(default=0, examples=[7])
    keep_weekly: Number = Field(default=0, examples=[4])
    keep_monthly: Number = Field(default=0, examples=[12])
    dry_run: bool = Field(default=False, description="Only say what would be removed.")


class BackupSetDecision(BaseModel):
    """What becomes of a set, and why."""

    set_id: str
    taken_at: datetime
    keep: bool
    reason: str


class PruneReport(Answer):
    """What pruning did, or would do."""

    destination: str
    decisions: list[BackupSetDecision]
    objects: int
    bytes: int
    dry_run: bool
    swept: bool


class BackupDestinations(BaseModel):
    """Where backups may be made."""

    destinations: list[str] = Field(examples=[["disk", "offsite"]])


@router.get("", summary="The sets that the archive knows of, anywhere")
def list_backups(storage: Caller, limit: Limit = 100, cursor: Cursor = None) -> Page[BackupSet]:
    """The oldest first, removed ones too. Looks at no destination."""
    return _page(storage.backups.list(), limit, cursor)


@router.get("/destinations", summary="Where backups may be made")
def list_backup_destinations(storage: Caller) -> BackupDestinations:
    """The names in the setting `backup_destinations` of the archive."""
    return BackupDestinations(destinations=sorted(storage.backups.destinations))


@router.get("/{destination}/sets", summary="The sets at a destination")
def list_backup_sets(
    storage: Caller, destination: Destination, limit: Limit = 100, cursor: Cursor = None
) -> Page[BackupSet]:
    """The oldest first."""
    return _page(storage.backups.list(_place(storage, destination)), limit, cursor)


@router.get("/{destination}/anchor", summary="How far the audit log had come when the last set was taken")
def get_backup_anchor(storage: Caller, destination: Destination) -> AuditAnchor:
    """409 where no log was kept then."""
    return AuditAnchor.of(storage.backups.anchor(_place(storage, destination)))


@router.post(
    "/{destination}/create", summary="Make a set", response_class=NdJson, responses={200: {"model": Line[BackupReport]}}
)
def create_backup(storage: Caller, tasks: Tasks, destination: Destination, wanted: BackupCreating) -> StreamingResponse:
    """All that the archive holds at one moment, while it is in use. A long task; cut short, the next call does not
    copy again what is there."""
    place = _place(storage, destination)

    def do(tell: Tell) -> BackupReport:
        made = storage.backups.create(place, full=wanted.full, keep_days=wanted.keep_days, progress=_told(tell))
        return BackupReport.of(made)

    return tasks.run(do)


@router.post(
    "/{destination}/verify",
    summary="Read a set back",
    response_class=NdJson,
    responses={200: {"model": Line[BackupVerification]}},
)
def verify_backup(
    storage: Caller, tasks: Tasks, destination: Destination, wanted: BackupVerifying
) -> StreamingResponse:
    """All of it: what is missing or rotten is named. A long task."""
    place = _place(storage, destination)

    def do(tell: Tell) -> BackupVerification:
        found = storage.backups.verify(place, wanted.set_id, repair=wanted.repair, progress=_told(tell))
        return BackupVerification.of(found)

    return tasks.run(do)


@router.post(
    "/{destination}/rehearse",
    summary="Restore a set for a try",
    response_class=NdJson,
    responses={200: {"model": Line[BackupVerification]}},
)
def rehearse_backup(storage: Caller, tasks: Tasks, destination: Destination, wanted: BackupChoice) -> StreamingResponse:
    """Verifies it, restores it where the server keeps temporary files, compares, searches, and removes what was
    restored. It needs room for all of the archive. A long task."""
    place = _place(storage, destination)
    return tasks.run(
        lambda tell: BackupVerification.of(storage.backups.rehearse(place, wanted.set_id, progress=_told(tell)))
    )


@router.post(
    "/{destination}/prune",
    summary="Remove sets that nothing keeps",
    response_class=NdJson,
    responses={200: {"model": Line[PruneReport]}},
)
def prune_backups(storage: Caller, tasks: Tasks, destination: Destination, wanted: BackupPruning) -> StreamingResponse:
    """The last set that is known to be good never goes. A long task."""
    place = _place(storage, destination)
    return tasks.run(lambda tell: PruneReport.of(storage.backups.prune(place, **wanted.model_dump())))


def _place(storage: AudioStorageSystem, destination: str) -> str:
    """The place of this name. Raises `Forbidden`, `NotFound`."""
    known = storage.backups.destinations
    if destination not in known:
        raise NotFound(kind="backup destination", id=destination)
    return known[destination]


def _page(found: list[Any], limit: int, cursor: str | None) -> Page[BackupSet]:
    shown, following = part(sorted(found, key=_id), limit, cursor or "", _id)
    return Page(items=[BackupSet.of(one) for one in shown], next_cursor=following)


def _id(one: Any) -> str:
    return str(one.set_id)  # begins with the time at which it was taken


def _told(tell: Tell) -> Callable[[Any], None]:
    """The progress of backups as that of tasks: of audio in bytes, of tables in rows."""

    def progress(now: Any) -> None:
        audio = now.stage == "audio"
        tell(now.stage, now.bytes if audio else now.rows, now.of_bytes if audio else None)

    return progress
