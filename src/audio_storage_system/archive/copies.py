"""Opening the two archives of a copy: the original, in which nothing is changed, and the one that is to equal it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from audio_storage_system import marker
from audio_storage_system.archive.opening import (
    Archive,
    bring_in_order,
    check_accepted,
    check_vault,
    compose,
    identify,
    is_unfounded,
    make_ready,
    open_blobs,
    open_vault,
    reach,
    sealed,
)
from audio_storage_system.archive.vault import unlock
from audio_storage_system.blobs import BlobStore
from audio_storage_system.database import Database, tables
from audio_storage_system.database.migrations import HEAD, is_empty, revision_of
from audio_storage_system.errors import ArchiveDamaged, ArchiveMismatch, Conflict, NewerFormat, RestoreUnfinished
from audio_storage_system.keys.ring import FILE_NAME as KEYS_FILE
from audio_storage_system.locations import redacted
from audio_storage_system.marker import Marker
from audio_storage_system.pipeline import BLOB_PREFIX
from audio_storage_system.settings import Encryption, Settings, key_source, load_settings

Furnish = Callable[[Connection], None]


@dataclass(frozen=True)
class Original:
    """The truth of an archive: what it is, its catalogue and its blobs. `sealed`: they are encrypted."""

    marker: Marker
    database: Database
    blobs: BlobStore
    sealed: bool = False

    def close(self) -> None:
        """Free connections."""
        self.blobs.close()
        self.database.close()


def open_original(home: Path, **given: Any) -> Original:
    """Open the archive whose folder on this machine is `home` as it is: not migrated, and nothing in it recovered, so
    that it may be in use meanwhile.

    Raises as `open_archive` does, and `Conflict` for one that was last opened by an earlier version.
    """
    settings = load_settings(home, **given)
    blobs = open_blobs(home, settings, cached=False)  # each is read once
    found = marker.read(blobs)
    vault = unlock(blobs, key_source(settings))
    keys = vault.keys if vault else None
    database = reach(home, settings, found, create=False, keys=keys)
    with database.read() as connection:
        _check_revision(revision_of(connection), database.place)
        identity = marker.of_catalogue(connection)
    if identity is None:
        raise ArchiveDamaged(place=database.place, reason="its catalogue does not say which archive it is")
    marker.check(blobs, identity, found)
    check_vault(identity, vault, database)
    return Original(identity, database, sealed(blobs, database, vault), bool(keys and keys.encrypted))


def open_copy(
    home: Path, original: Original, furnish: Furnish, encryption: Encryption | None = None, **given: Any
) -> Archive:
    """Open the archive that is to become a copy of `original`, founding it with the same identity where there is none.
    `furnish` enters, in the transaction of founding, what every archive has from its beginning. No model is loaded.

    Raises as `open_archive` does, `ArchiveMismatch` where another archive is, before anything is changed there, and
    `Conflict` where it would be the original itself, or share its files.
    """
    settings = load_settings(home, **given)
    blobs = open_blobs(home, settings, cached=False)  # each is read once
    if blobs.url == original.blobs.url:
        place = redacted(blobs.url)
        raise Conflict(reason=f"Both archives would keep their audio in {place}: give the copy a place of its own")
    found = marker.read(blobs)
    refill = found is not None and found.archive_id == original.marker.archive_id
    wanted = encryption or Encryption()
    if wanted.accept_plaintext_catalogue:
        settings = replace(settings, accept_plaintext_vectors=True)
    vault = open_vault(home, settings, blobs, found, wanted, create=True, archive_id=original.marker.archive_id)
    database = reach(home, settings, found, create=True, refill=refill, keys=vault.keys if vault else None)
    if database.place == original.database.place:
        raise Conflict(reason=f"Both archives would keep their catalogue in {database.place}")
    _refuse_another(database, settings, found, original.marker.archive_id)
    make_ready(home, settings, database)
    identity = identify(database, settings.partition, partial(_found, original=original.marker, furnish=furnish))
    marker.check(blobs, identity, found)
    check_vault(identity, vault, database)
    archive = compose(home, settings, replace(identity, spaces=()), database, blobs, vault)
    if found is None:
        archive.mark()
    if not identity.bound:
        marker.bind(database)
    bring_in_order(archive)
    return archive


def open_restoring(
    home: Path, wanted: Marker, policy: str | None = None, encryption: Encryption | None = None, **given: Any
) -> Archive:
    """Open the place where the archive `wanted` is to be restored from its set `wanted.restoring`, founding it with
    that identity: an empty one, or one where restoring that set has begun. Until its marker is written anew nobody else
    can open it, and it has nothing: no principal, no space. policy: the text of its `keys.json`, if it has one.

    Raises as `open_archive` does, `Conflict` where an archive is, and `RestoreUnfinished` where another set is being
    restored, before anything is changed there.
    """
    settings, protection = load_settings(home, **given), encryption or Encryption()
    blobs = open_blobs(home, settings, cached=False)
    found = marker.read(blobs)
    mine = found is not None and (found.archive_id, found.restoring) == (wanted.archive_id, wanted.restoring)
    if not mine:
        _refuse_taken(home, settings, blobs, found)
        check_accepted(settings, protection)
        marker.write(blobs, wanted)  # first of all: whoever comes now is told
    if policy is not None:
        blobs.put(KEYS_FILE, policy.encode())
    vault = unlock(blobs, key_source(settings, protection.source))
    database = reach(home, settings, found, create=True, refill=True, keys=vault.keys if vault else None)
    try:
        make_ready(home, settings, database)
        identity = identify(database, settings.partition, lambda connection: marker.identify(connection, wanted))
        check_vault(identity, vault, database)
        if identity.archive_id != wanted.archive_id:
            raise ArchiveMismatch(place=database.place, reason=f"its catalogue is of archive {identity.archive_id}")
        marker.bind(database)
    except BaseException:
        database.close()
        raise
    return compose(home, settings, replace(identity, bound=True), database, blobs, vault)


def _refuse_taken(home: Path, settings: Settings, blobs: BlobStore, found: Marker | None) -> None:
    if found is not None and found.restoring:
        raise RestoreUnfinished(place=redacted(blobs.url), set=found.restoring)
    taken = redacted(settings.database_url) or str(home) if not is_unfounded(home, settings) else None
    if taken is None and (found is not None or next(iter(blobs.keys(BLOB_PREFIX)), None) is not None):
        taken = redacted(blobs.url)
    if taken is not None:
        raise Conflict(
            reason=f"There is an archive at {taken}, and restoring never replaces one: restore into an empty place, "
            "look at what is there, then use that one. To have what was deleted here stay deleted there, name this "
            "archive as the one whose deletions are honoured"
        )


def _check_revision(revision: str | None, place: str) -> None:
    if revision == HEAD:
        return
    if revision is None or revision > HEAD:
        raise NewerFormat(place=place, found=revision, known=HEAD)
    raise Conflict(
        reason=f"The archive at {place} is of an earlier version. Open it once with this one (audio-storage stats), "
        "then copy it"
    )


def _refuse_another(database: Database, settings: Settings, found: Marker | None, wanted: str) -> None:
    for identity in (found.archive_id if found else None, _archive_id(database, settings)):
        if identity not in (None, wanted):
            reason = f"it is archive {identity}, and only an empty place or archive {wanted} can be filled"
            raise ArchiveMismatch(place=database.place, reason=reason)


def _archive_id(database: Database, settings: Settings) -> str | None:
    """Which archive a catalogue of any revision belongs to; `None` for one that is still to be founded."""
    if not settings.database_url and not Path(database.place).exists():
        return None
    with database.read() as connection:
        if is_empty(connection, database.place):
            return None
        return connection.execute(select(tables.archive.c.archive_id)).scalar()


def _found(connection: Connection, original: Marker, furnish: Furnish) -> Marker:
    identity = marker.identify(connection, original)
    furnish(connection)
    return identity
