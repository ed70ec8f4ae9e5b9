"""Which sets are kept: a plan that touches nothing, then removing, and what only removed sets needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import update

from audio_storage_system.archive import Archive
from audio_storage_system.backup.envelope import Envelope, envelope_of
from audio_storage_system.backup.format import BLOBS, PACKS, SETS, VERIFIED, blob_key, pack_key, set_key
from audio_storage_system.backup.lease import Lease
from audio_storage_system.backup.places import BackupPlace
from audio_storage_system.backup.reading import blobs_of
from audio_storage_system.clock import utc_now
from audio_storage_system.database.tables import backup_sets
from audio_storage_system.errors import InvalidInput, KeyMissing, KeyRefused
from audio_storage_system.records import jsonable

# Objects removed between two looks at whether the lease still holds.
SWEPT = 500


@dataclass(frozen=True, slots=True)
class Keep:
    """How many sets are kept: the last ones, and the last one of each of so many days, weeks and months that have any.
    Days are those of UTC, weeks begin on Monday."""

    last: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0

    def __post_init__(self) -> None:
        if min(self.last, self.daily, self.weekly, self.monthly) < 0:
            raise InvalidInput(reason="How many sets are kept is not negative")

    @property
    def says(self) -> bool:
        """Whether any set is kept by this."""
        return any((self.last, self.daily, self.weekly, self.monthly))


@dataclass(frozen=True, slots=True)
class Taken:
    """What the plan knows of a set."""

    set_id: str
    taken_at: datetime
    verified: bool
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class SetDecision:
    """What becomes of a set, and why."""

    set_id: str
    taken_at: datetime
    keep: bool
    reason: str


@dataclass(frozen=True)
class PruneReport:
    """What pruning did, or would do (`dry_run`). objects: packs, audio and manifests removed. swept: whether what no
    set needs was removed; it is not while a set that stays is sealed with another key, which keeps to itself what it
    needs."""

    destination: str
    decisions: list[SetDecision]
    objects: int
    bytes: int
    dry_run: bool
    swept: bool = True

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        data: dict[str, Any] = jsonable(asdict(self))
        return data


PERIODS: tuple[tuple[str, Callable[[datetime], Any]], ...] = (
    ("daily", lambda at: at.date()),
    ("weekly", lambda at: at.isocalendar()[:2]),
    ("monthly", lambda at: (at.year, at.month)),
)


def plan(sets: Sequence[Taken], keep: Keep, now: datetime) -> list[SetDecision]:
    """What becomes of each set, newest first: one that expires stays until then, any other while a rule keeps it. A set
    is removed only if a newer one that stays was verified: so the last one that is known to be good never is. No I/O.
    Raises `InvalidInput` where nothing says what becomes of a set."""
    if not keep.says and any(taken.expires_at is None for taken in sets):
        raise InvalidInput(
            reason="Say which sets are kept: --keep-last, --keep-daily, --keep-weekly, --keep-monthly (N)"
        )
    newest_first = sorted(sets, key=lambda taken: (taken.taken_at, taken.set_id), reverse=True)
    reasons = _reasons([taken for taken in newest_first if taken.expires_at is None], keep)
    decisions, proven = [], False
    for taken in newest_first:
        reason = _term(taken, now) if taken.expires_at is not None else reasons.get(taken.set_id, "")
        if not reason and not proven:
            reason = "no newer set that stays was verified"
        decisions.append(SetDecision(taken.set_id, taken.taken_at, bool(reason), reason or _gone(taken)))
        proven = proven or (bool(reason) and taken.verified)
    return decisions


def _term(taken: Taken, now: datetime) -> str:
    until = taken.expires_at
    return f"kept until {until:%Y-%m-%d}" if until is not None and until > now else ""


def _gone(taken: Taken) -> str:
    return "no rule keeps it" if taken.expires_at is None else f"expired on {taken.expires_at:%Y-%m-%d}"


def _reasons(newest_first: Sequence[Taken], keep: Keep) -> dict[str, str]:
    reasons = {taken.set_id: "last" for taken in newest_first[: keep.last]}
    for name, period in PERIODS:
        seen: set[Any] = set()
        for taken in newest_first:
            if len(seen) == getattr(keep, name):
                break
            if period(taken.taken_at) not in seen:
                seen.add(period(taken.taken_at))
                reasons.setdefault(taken.set_id, name)
    return reasons


def prune_backups(archive: Archive, destination: str, keep: Keep, dry_run: bool) -> PruneReport:
    """Remove the sets that nothing keeps, and the packs and audio that no set names."""
    archive.access.require_admin("remove backups")
    with closing(BackupPlace.open(destination)) as place:
        if dry_run:
            return PruneReport(place.shown, _planned(place, keep), 0, 0, dry_run=True)
        with Lease(place, "prune") as lease:
            decisions = _planned(place, keep)
            gone = [decision.set_id for decision in decisions if not decision.keep]
            needed = _needed(place, envelope_of(archive.keys), [one.set_id for one in decisions if one.keep])
            lease.check()
            for set_id in gone:
                _remove_set(archive, place, set_id)
            objects, size = _sweep(place, lease, needed) if needed is not None else (0, 0)
    return PruneReport(place.shown, decisions, objects + len(gone), size, dry_run=False, swept=needed is not None)


def _planned(place: BackupPlace, keep: Keep) -> list[SetDecision]:
    set_ids = place.set_ids()
    verified = place.verified(set_ids)
    headers = [place.header(id_) for id_ in set_ids]
    sets = [Taken(one.set_id, one.taken_at, one.set_id in verified, one.expires_at) for one in headers]
    return plan(sets, keep, utc_now())


def _needed(place: BackupPlace, envelope: Envelope, set_ids: Sequence[str]) -> set[str] | None:
    """The objects that these sets name; `None` where one of them is sealed with another key. Raises `BackupDamaged`
    where one cannot be read: then nothing is known to be superfluous."""
    needed: set[str] = set()
    seen: set[str] = set()
    for set_id in set_ids:
        try:
            manifest = place.manifest(set_id, envelope)
        except (KeyMissing, KeyRefused):
            return None
        needed.update(map(pack_key, manifest.packs()))
        for part in manifest.blobs.parts:
            if part.pack not in seen:
                seen.add(part.pack)
                needed.update(blob_key(blob.sha256) for blob in blobs_of(place, envelope, part))
    return needed


def _remove_set(archive: Archive, place: BackupPlace, set_id: str) -> None:
    """The manifest first: from then on there is no such set."""
    place.store.delete(set_key(set_id))
    place.store.delete(f"{VERIFIED}/{set_id}.json")
    with archive.database.write() as connection:
        mine = backup_sets.c.set_id == set_id
        connection.execute(update(backup_sets).where(mine).values(removed_at=utc_now()))
        archive.audit.note(connection, "backup.removed", set_id=set_id, destination=place.shown)


def _sweep(place: BackupPlace, lease: Lease, needed: set[str]) -> tuple[int, int]:
    """Remove what no set names; how many objects and bytes. Nobody makes a backup meanwhile: the lease is ours."""
    objects = size = 0
    for key in _superfluous(place, needed):
        if objects % SWEPT == 0:
            lease.check()
        bytes_ = place.store.size(key)
        if place.store.delete(key):
            objects, size = objects + 1, size + bytes_
    return objects, size


def _superfluous(place: BackupPlace, needed: set[str]) -> list[str]:
    lost = [key for prefix in (PACKS, BLOBS) for key in place.store.keys(prefix) if key not in needed]
    sets = {set_key(set_id) for set_id in place.set_ids()}
    proofs = [key for key in place.store.keys(VERIFIED) if key.replace(VERIFIED, SETS, 1) not in sets]
    return [*lost, *proofs]
