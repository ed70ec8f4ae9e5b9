"""The board of backups: made, listed, verified, rehearsed, removed."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from sqlalchemy import select

from audio_storage_system.archive import Archive
from audio_storage_system.audit import Anchor
from audio_storage_system.backup.creating import create_backup
from audio_storage_system.backup.envelope import envelope_of
from audio_storage_system.backup.places import BackupPlace
from audio_storage_system.backup.pruning import Keep, PruneReport, prune_backups
from audio_storage_system.backup.rehearsing import rehearse_backup
from audio_storage_system.backup.report import BackupReport, BackupSet, Progress, VerifyReport
from audio_storage_system.backup.verifying import verify_backup
from audio_storage_system.clock import MOST_DAYS
from audio_storage_system.database.tables import backup_sets
from audio_storage_system.errors import Conflict, InvalidInput
from audio_storage_system.locations import is_url
from audio_storage_system.settings import destinations

Place = str | os.PathLike[str]


class Backups:
    """The backups of an archive. A destination is a folder, or the address of a place in object storage such as
    `s3://bucket/prefix`, which has the backups of one archive and nothing else. See `restore_backup` for the way back.
    """

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    @property
    def destinations(self) -> dict[str, str]:
        """The places that the setting `backup_destinations` names, for programs that must not choose one themselves.
        Raises `Forbidden`."""
        self._archive.access.require_admin("see where backups are kept")
        return destinations(self._archive.settings)

    def create(
        self,
        destination: Place,
        *,
        full: bool = False,
        keep_days: float | None = None,
        progress: Progress = lambda _: None,
    ) -> BackupReport:
        """Make a set: all that the archive holds at one moment, while it is in use. What earlier sets at the
        destination have is not stored again.

        full: read every row again, also of what is never changed; for a catalogue that was written to past this
        program. keep_days: pruning removes the set after so many days and not before, whatever else it is told to keep;
        so a receipt can say until when a backup holds what was deleted. Raises `Conflict` while another backup is made
        there, `ArchiveMismatch` where the place is another's, `NewerFormat`, `StorageFailed`, `InvalidInput`.
        """
        keep_for = None if keep_days is None else _days(keep_days)
        return create_backup(self._archive, _place(destination), full, keep_for, progress)

    def list(self, destination: Place | None = None) -> list[BackupSet]:
        """The sets, oldest first: those at the destination, else those that the catalogue knows of anywhere."""
        self._archive.access.require_admin("list backups")
        known = self._known()
        if destination is None:
            return list(known.values())
        with closing(BackupPlace.open(_place(destination))) as place:
            set_ids = place.set_ids()
            verified = place.verified(set_ids)
            found = [
                replace(
                    known.get(id_, BackupSet(id_, place.shown, place.header(id_).taken_at)),
                    expires_at=place.header(id_).expires_at,
                    verified_at=verified.get(id_),
                    there=True,
                )
                for id_ in set_ids
            ]
        return found

    def verify(
        self,
        destination: Place,
        set_id: str | None = None,
        *,
        repair: bool = False,
        progress: Progress = lambda _: None,
    ) -> VerifyReport:
        """Read all of a set back (default: the last one): what is missing or rotten is named in the report.

        repair: move what is rotten to `rotten/`: the next backup stores it again, as far as the archive still has it,
        and this set is whole then as well. Raises `BackupDamaged` where its manifest is rotten, `NotFound`,
        `KeyMissing`, `KeyRefused`, `NewerFormat`.
        """
        return verify_backup(self._archive, _place(destination), set_id, repair, progress)

    def rehearse(
        self,
        destination: Place,
        set_id: str | None = None,
        *,
        scratch: Place | None = None,
        progress: Progress = lambda _: None,
    ) -> VerifyReport:
        """Verify a set, restore it below the folder `scratch` (default: where temporary files are kept; it needs room
        for all of the archive), compare counts and hashes, search it, and remove what was restored."""
        folder = Path(scratch) if scratch is not None else None
        return rehearse_backup(self._archive, _place(destination), set_id, folder, progress)

    def anchor(self, destination: Place, set_id: str | None = None) -> Anchor:
        """How far the audit log had come when a set (default: the last one) was taken, for `audit.verify`. Raises
        `Conflict` where none was kept, and as `verify` does."""
        self._archive.access.require_admin("read the anchors in backups")
        with closing(BackupPlace.open(_place(destination))) as place:
            chosen = place.choose(set_id)
            manifest = place.manifest(chosen, envelope_of(self._archive.keys))
        if manifest.audit is None or self._archive.keys is None:
            raise Conflict(reason=f"Backup set {chosen} has no anchor: no audit log was kept when it was taken")
        return Anchor.read(manifest.audit, self._archive.keys)

    def prune(
        self,
        destination: Place,
        *,
        keep_last: int = 0,
        keep_daily: int = 0,
        keep_weekly: int = 0,
        keep_monthly: int = 0,
        dry_run: bool = False,
    ) -> PruneReport:
        """Remove the sets that none of these keeps, and what only they needed. One that was made with `keep_days` goes
        by that alone. A set stays until a newer one that stays was verified. dry_run: only say what would be
        removed."""
        keep = Keep(keep_last, keep_daily, keep_weekly, keep_monthly)
        return prune_backups(self._archive, _place(destination), keep, dry_run)

    def _known(self) -> dict[str, BackupSet]:
        with self._archive.database.read() as connection:
            rows = connection.execute(select(backup_sets).order_by(backup_sets.c.taken_at)).mappings()
            return {row["set_id"]: BackupSet(**{name: row[name] for name in _COLUMNS}) for row in rows}


_COLUMNS = ("set_id", "destination", "taken_at", "verified_at", "expires_at", "removed_at")


def _days(number: float) -> timedelta:
    if not 0 < number <= MOST_DAYS:
        raise InvalidInput(reason=f"A backup is kept for more than 0 days and at most {MOST_DAYS:,}")
    return timedelta(days=number)


def _place(destination: Place) -> str:
    return str(destination) if is_url(destination) else str(Path(destination).expanduser().absolute())
