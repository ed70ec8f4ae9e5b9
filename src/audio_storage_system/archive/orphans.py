"""Orphans: blobs that belong to no recording, and recordings whose blob is missing.

A blob without a row is not deleted, only moved aside, into the folder `quarantine/<date>/`, from where it can be put
back until its term is over. Whoever is storing it this moment loses nothing: it is moved under the lock of its key, and
its storing, which looks under the same lock whether the bytes are still there, then publishes them again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import select

from audio_storage_system import deletion, pipeline
from audio_storage_system.archive import sidecars
from audio_storage_system.archive.opening import Archive
from audio_storage_system.catalogue import holds, recordings
from audio_storage_system.clock import utc_now
from audio_storage_system.database.queries import one_of
from audio_storage_system.database.tables import audio_files, tombstones
from audio_storage_system.errors import AudioStorageSystemError, InvalidInput, NotFound

logger = logging.getLogger(__name__)

QUARANTINE = "quarantine"
DERIVED = ("transcripts", "embeddings", "copies")
# A younger blob may be about to get its row, or its deletion be under way.
SAFE_AGE = timedelta(hours=24)
AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Orphans:
    """unowned: keys that belong to no recording. missing: the key of each recording, by its id, whose audio is not
    there though no rule removed it: reported, never removed."""

    unowned: tuple[str, ...]
    missing: dict[int, str]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def scan(archive: Archive, *, older_than: timedelta = SAFE_AGE) -> Orphans:
    """Compare the blobs with the catalogue. Blobs younger than `older_than`, as far as their store knows ages, are left
    out. It changes nothing."""
    return Orphans(tuple(unowned(archive, older_than=older_than)), _missing(archive))


def unowned(archive: Archive, *, older_than: timedelta = timedelta(0)) -> Iterator[str]:
    """The keys of blobs that belong to no recording and are as old as that, as far as their store knows ages; what is
    being stored or deleted at this moment is left out."""
    yield from _without_row(archive, older_than)
    yield from _derived_from_nothing(archive, older_than)


def quarantine(archive: Archive, keys: Sequence[str]) -> dict[str, str]:
    """Move these blobs aside unless they belong to a recording by now; their new keys by their old. One that cannot be
    read stays where it is, and is logged."""
    moved: dict[str, str] = {}
    for key in keys:
        try:
            if (kept := _move_aside(archive, key)) is not None:
                moved[key] = kept
        except AudioStorageSystemError as error:
            logger.warning("%s belongs to no recording and stays where it is: %s", key, error)
    if moved:
        with archive.database.write() as connection:
            archive.audit.note(connection, "files.quarantined", files=len(moved))
    return moved


def quarantined(archive: Archive) -> list[str]:
    """The keys in quarantine."""
    return list(archive.blobs.keys(QUARANTINE))


def restore(archive: Archive, key: str) -> str:
    """Put a blob in quarantine back where it was (under the next free name, where that was taken); its key now. Audio
    becomes a recording, unless the bytes are one already. Raises `NotFound`, and `InvalidInput` for a key that is not
    in quarantine."""
    prefix, _, rest = key.partition("/")
    _, _, before = rest.partition("/")
    if prefix != QUARANTINE or not before.startswith(tuple(f"{place}/" for place in (pipeline.BLOB_PREFIX, *DERIVED))):
        raise InvalidInput(reason=f"{key} is not in {QUARANTINE}/<date>/")
    back = _copy(archive, key, before)
    if back.startswith(f"{pipeline.BLOB_PREFIX}/"):
        pipeline.adopt_orphans(archive.database, archive.blobs, owner_id=archive.owner_id, audit=archive.audit)
    deletion.withdraw_orphan(archive.database, archive.blobs, key)  # all of it is at its old place
    with archive.database.write() as connection:
        archive.audit.note(connection, "files.restored", files=1)
    return back


def purge(archive: Archive, older_than: timedelta) -> list[str]:
    """Remove for good what has been in quarantine for so long; which keys. What a recording may need again, or a legal
    hold keeps, stays."""
    with archive.database.read() as connection:
        if holds.standing(connection):  # before anything is read; asked again for each
            return []
    removed = [key for key in quarantined(archive) if _is_over(archive, key, older_than) and _is_purged(archive, key)]
    if removed:
        with archive.database.write() as connection:
            archive.audit.note(connection, "files.removed", files=len(removed))
    return removed


def _is_over(archive: Archive, key: str, older_than: timedelta) -> bool:
    """By the day in its key, all of which counts as not yet over, and by its age, as far as its store knows ages."""
    try:
        day = datetime.strptime(key.split("/")[1], "%Y%m%d").replace(tzinfo=UTC)
    except ValueError:  # nothing of ours
        return False
    return day + timedelta(days=1) + older_than <= utc_now() and _is_old(archive, key, older_than)


def _is_purged(archive: Archive, key: str) -> bool:
    try:
        return deletion.purge_orphan(archive.database, archive.blobs, key)
    except NotFound:  # it was put back
        return False
    except AudioStorageSystemError as error:
        logger.warning("%s stays in quarantine: %s", key, error)
        return False


def _without_row(archive: Archive, older_than: timedelta) -> Iterator[str]:
    """The blobs of recordings without a row, some at a time, so that archives of any size can be looked at."""
    for batch in pipeline.batches(archive.blobs.settled(pipeline.BLOB_PREFIX), AT_ONCE):
        with archive.database.read() as connection:
            known = select(audio_files.c.file_path).where(one_of(audio_files.c.file_path, batch))
            dying = select(tombstones.c.file_path).where(tombstones.c.completed.is_(False))
            owned = {*connection.execute(known).scalars(), *connection.execute(dying).scalars()}
        yield from (key for key in batch if key not in owned and _is_old(archive, key, older_than))


def _derived_from_nothing(archive: Archive, older_than: timedelta) -> Iterator[str]:
    found = [key for prefix in DERIVED for key in archive.blobs.settled(prefix)]
    if not found:
        return
    with archive.database.read() as connection:
        dying = select(tombstones.c.file_path).where(tombstones.c.completed.is_(False))
        paths = [*recordings.paths(connection), *connection.execute(dying).scalars()]
    possible = {key for path in paths for key in sidecars.derived_keys(path)}
    yield from (key for key in found if key not in possible and _is_old(archive, key, older_than))


def _is_old(archive: Archive, key: str, older_than: timedelta) -> bool:
    try:
        age = archive.blobs.age(key)
    except NotFound:  # gone since it was listed
        return False
    return age is None or age >= older_than


def _missing(archive: Archive) -> dict[int, str]:
    """Asked again where the listing lacks them: a recording may have come or gone meanwhile."""
    present, found, after = set(archive.blobs.keys(pipeline.BLOB_PREFIX)), dict[int, str](), 0
    wanted = audio_files.c.status == recordings.STORED
    while True:
        query = select(audio_files.c.id, audio_files.c.file_path).where(audio_files.c.id > after, wanted)
        with archive.database.read() as connection:
            rows = connection.execute(query.order_by(audio_files.c.id).limit(AT_ONCE)).all()
        if not rows:
            return found
        after = rows[-1].id
        found |= {row.id: row.file_path for row in rows if row.file_path not in present and _is_gone(archive, row)}


def _is_gone(archive: Archive, row: Any) -> bool:
    if archive.blobs.has(row.file_path):
        return False
    with archive.database.read() as connection:
        return recordings.find_by_path(connection, row.file_path) == row.id and recordings.has_audio(connection, row.id)


def _move_aside(archive: Archive, key: str) -> str | None:
    try:
        kept = _copy(archive, key, f"{QUARANTINE}/{utc_now():%Y%m%d}/{key}")
    except NotFound:  # withdrawn by whoever was storing it
        return None
    if deletion.withdraw_orphan(archive.database, archive.blobs, key):
        return kept
    deletion.withdraw_orphan(archive.database, archive.blobs, kept)  # it got its row meanwhile, and has its bytes
    return None


def _copy(archive: Archive, key: str, to: str) -> str:
    """The bytes under another key, all of them."""
    with archive.blobs.open(key) as file:
        staged = archive.blobs.stage(file, name=key)
    return archive.blobs.publish(staged, to)
