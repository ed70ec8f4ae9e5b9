"""Reading a set back: every pack decoded, every row counted, every byte of audio hashed."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from sqlalchemy import update

from audio_storage_system.archive import Archive
from audio_storage_system.backup.envelope import Envelope, envelope_of
from audio_storage_system.backup.format import BLOB_TABLE, ROTTEN, Part, blob_key, pack_key
from audio_storage_system.backup.lease import Lease
from audio_storage_system.backup.places import BackupPlace
from audio_storage_system.backup.reading import KNOWN, blobs_of, check_revision, rows_of
from audio_storage_system.backup.report import BackupProgress, Damage, Progress, VerifyReport
from audio_storage_system.backup.sources import Blob
from audio_storage_system.database.tables import backup_sets
from audio_storage_system.errors import BackupDamaged, NotFound

FILES = 4


def verify_backup(
    archive: Archive, destination: str, set_id: str | None, repair: bool, progress: Progress
) -> VerifyReport:
    """Read a set back (default: the last one). repair: set aside what is rotten, so that the next backup stores it
    again."""
    archive.access.require_admin("verify backups")
    with closing(BackupPlace.open(destination)) as place:
        report = read_back(place, envelope_of(archive.keys), place.choose(set_id), progress)
        if repair and report.damages:
            with Lease(place, "repair"):
                _set_aside(place, {damage.key for damage in report.damages})
        note(archive, place, report)
    return report


def read_back(place: BackupPlace, envelope: Envelope, set_id: str, progress: Progress) -> VerifyReport:
    """What reading all of a set finds. Raises what reading its manifest raises."""
    began = time.monotonic()
    manifest = place.manifest(set_id, envelope)
    check_revision(manifest, place)
    damages, rows = [], 0
    for name, cut in manifest.tables.items():
        for part in cut.parts:
            damages += _damage_of_rows(place, envelope, name, part)
            rows += part.rows
            progress(BackupProgress(name, rows))
    blobs: list[Blob] = []
    for part in manifest.blobs.parts:
        try:
            blobs += blobs_of(place, envelope, part)
        except BackupDamaged as error:
            damages.append(_damage(BLOB_TABLE, part, error))
    damages += _damages_of_audio(place, blobs, rows, progress)
    return VerifyReport(
        set_id=set_id,
        destination=place.shown,
        how="verify",
        complete=manifest.complete,
        rows={name: cut.rows for name, cut in manifest.tables.items()},
        blobs=len(blobs),
        bytes=sum(blob.size for blob in blobs),
        damages=damages,
        audit=manifest.audit,
        seconds=time.monotonic() - began,
    )


def note(archive: Archive, place: BackupPlace, report: VerifyReport) -> None:
    """Note at the destination and in the catalogue that a set was found whole; or that it is so no longer, so that no
    older set goes for it."""
    set_id = report.set_id
    at = place.note_verified(set_id, report.how) if report.whole else None
    if at is None:
        place.forget_verified(set_id)
    with archive.database.write() as connection:
        mine = backup_sets.c.set_id == set_id
        connection.execute(update(backup_sets).where(mine).values(verified_at=at))
        action = "backup.verified" if at else "backup.damaged"
        archive.audit.note(connection, action, set_id=set_id, destination=place.shown, how=report.how)


def _set_aside(place: BackupPlace, keys: set[str]) -> None:
    for key in filter(place.store.has, keys):
        with place.store.open(key) as file:
            staged = place.store.stage(file)
        place.store.replace(staged, f"{ROTTEN}/{key}")
        place.store.delete(key)


def damage_of(place: BackupPlace, blob: Blob) -> str | None:
    """Why the audio of a recording cannot be had from the backup; `None` when it can."""
    try:
        found = place.store.describe(blob_key(blob.sha256))
    except NotFound:
        return "it is missing"
    if found.sha256 != blob.sha256:
        return f"its {found.size:,} bytes do not have the hash that it is named by"
    return None if found.size == blob.size else f"it has {found.size:,} bytes, and the set says {blob.size:,}"


def _damage_of_rows(place: BackupPlace, envelope: Envelope, name: str, part: Part) -> list[Damage]:
    try:
        rows_of(place, envelope, KNOWN[name], part)
        return []
    except BackupDamaged as error:
        return [_damage(name, part, error)]


def _damage(table: str, part: Part, error: BackupDamaged) -> Damage:
    return Damage(pack_key(part.pack), str(error.details["reason"]), table, part.start)


def _damages_of_audio(place: BackupPlace, blobs: list[Blob], rows: int, progress: Progress) -> list[Damage]:
    of_bytes, done, read = sum(blob.size for blob in blobs), 0, 0
    damages = []
    with ThreadPoolExecutor(FILES, "verify") as pool:
        for blob, reason in zip(blobs, pool.map(lambda blob: damage_of(place, blob), blobs), strict=True):
            done, read = done + 1, read + blob.size
            if reason is not None:
                damages.append(Damage(blob_key(blob.sha256), reason, audio_id=blob.audio_id))
            progress(BackupProgress("audio", rows, done, len(blobs), read, of_bytes))
    return damages
