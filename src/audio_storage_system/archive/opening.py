"""One open archive: its parts, opened and bound together."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from audio_storage_system import deletion, marker, pipeline
from audio_storage_system.blobs import BlobStore, open_blob_store
from audio_storage_system.catalogue import embeddings, fulltext, locks
from audio_storage_system.database import Database, Pool, passage_search
from audio_storage_system.database.migrations import is_empty, migrate
from audio_storage_system.durable import disk_errors
from audio_storage_system.errors import ArchiveDamaged, ArchiveNotFound, InvalidSetting
from audio_storage_system.marker import Marker
from audio_storage_system.settings import Settings, load_settings
from audio_storage_system.spaces import Spaces, open_founding_embedders
from audio_storage_system.vectors import VectorIndex, log, open_vector_index

logger = logging.getLogger(__name__)

CATALOGUE = "audio_storage.db"
SPOOL = "spool"


@dataclass(frozen=True)
class Archive:
    """The parts of an open archive. `close` frees models and connections.

    home: the folder of what is kept on this machine: everything where the archive is local, else captures in progress.
    """

    home: Path
    settings: Settings
    marker: Marker
    database: Database
    blobs: BlobStore
    index: VectorIndex
    spaces: Spaces
    engines: pipeline.Engines

    @property
    def owner_id(self) -> int:
        return marker.OWNER_ID

    @property
    def spool(self) -> Path:
        """Where captures in progress are kept."""
        return self.home / SPOOL

    def mark(self) -> None:
        """Write the marker anew, with the spaces as they are now."""
        with self.database.read() as connection:
            spaces = tuple(embeddings.spaces(connection))
        marker.write(self.blobs, replace(self.marker, spaces=spaces))

    def follow(self) -> None:
        """Bring the vector index up to date and forget the changes that every index has seen."""
        with self.database.read() as connection:
            spaces = [space for space in embeddings.spaces(connection) if space.active]
        for space in spaces:
            self.index.catch_up(space)
        with self.database.write() as connection:
            log.prune(connection)

    def close(self) -> None:
        """Free models and connections."""
        self.engines.close()
        self.index.close()
        self.blobs.close()
        self.database.close()


def open_archive(home: Path, *, create: bool, **given: Any) -> Archive:
    """Open the archive whose folder on this machine is `home`, making it first when it does not exist and `create` is
    set. Where its catalogue and its blobs are is among the settings `given`.

    What a crash left half-done is brought in order: migrations, deletions, blobs without a row. Raises
    `ArchiveNotFound`, `ArchiveMismatch`, `NewerFormat`, `ArchiveDamaged`, `ArchiveReadOnly`, `InvalidSetting`,
    `DatabaseUnavailable`, `DatabaseRefused`.
    """
    settings = load_settings(home, **given)
    _check_partition(settings)
    blobs = open_blob_store(home)
    found = marker.read(blobs)
    database = _connect(settings) if settings.database_url else Database.open(home / CATALOGUE)
    try:
        return _opened(home, settings, blobs, found, database, create)
    except BaseException:
        database.close()
        raise


def _opened(
    home: Path, settings: Settings, blobs: BlobStore, found: Marker | None, database: Database, create: bool
) -> Archive:
    _check_place(database, home, settings, found, create)
    founding = None if found else open_founding_embedders(settings.text_embedder, settings.audio_embedder)
    if not settings.database_url:
        with disk_errors(home):
            home.mkdir(parents=True, exist_ok=True)
    migrate(database)
    identity = _identify(database, settings.partition)
    marker.check(blobs, identity, found)
    archive = Archive(
        home=home,
        settings=settings,
        marker=identity,
        database=database,
        blobs=blobs,
        index=open_vector_index(settings.vectors_url, database, identity.archive_id, home),
        spaces=Spaces(database, settings.combined_weight),
        engines=pipeline.Engines(),
    )
    if founding:
        archive.spaces.found(founding)
        archive.mark()
    if not identity.bound:
        marker.bind(database)
    _bring_in_order(archive)
    return archive


def archive_exists(home: Path, named: Mapping[str, Any]) -> bool:
    """Whether there is an archive at this place, as `settings.locate` names it."""
    settings = load_settings(home, **named)
    if not settings.database_url:
        return (home / CATALOGUE).exists() or marker.read(open_blob_store(home)) is not None
    with closing(_connect(settings)) as database, database.read() as connection:
        return not is_empty(connection, database.place)


def _check_partition(settings: Settings) -> None:
    passage_search.check(settings.partition)
    if settings.partition and not settings.database_url:
        raise InvalidSetting(name="partition", reason="the catalogue has to be on PostgreSQL for that")


def _check_place(database: Database, home: Path, settings: Settings, found: Marker | None, create: bool) -> None:
    """Raise `ArchiveNotFound`, `ArchiveDamaged` where the database ought to hold an archive and does not."""
    if not _is_new(database, home, settings):
        return
    if found is not None or (not settings.database_url and (home / pipeline.BLOB_PREFIX).exists()):
        lost = "its database is empty" if settings.database_url else f"its catalogue {CATALOGUE} is missing"
        raise ArchiveDamaged(place=str(home), reason=f"{lost}; restore it from a backup")
    if not create:
        raise ArchiveNotFound(place=database.place if settings.database_url else str(home))


def _is_new(database: Database, home: Path, settings: Settings) -> bool:
    if not settings.database_url:
        return not (home / CATALOGUE).exists()
    with database.read() as connection:
        return is_empty(connection, database.place)


def _connect(settings: Settings) -> Database:
    pool = Pool(
        settings.pool_size,
        settings.pool_overflow,
        settings.pool_timeout,
        settings.pool_recycle,
        settings.pool_pre_ping,
    )
    return Database.connect(settings.database_url, pool)


def _identify(database: Database, partition: str) -> Marker:
    """What the catalogue is; a new one gets its identity here."""
    with database.read() as connection:
        identity = marker.of_catalogue(connection)
    if identity is None:
        with database.write(locks.FOUNDING) as connection:  # another process may be founding the same archive
            identity = marker.of_catalogue(connection) or marker.create(connection)
            fulltext.create(connection, partition)
    return identity


def _bring_in_order(archive: Archive) -> None:
    deletion.complete_deletions(archive.database, archive.blobs)
    if archive.blobs.crashed():
        adopted = pipeline.adopt_orphans(archive.database, archive.blobs, owner_id=archive.owner_id)
        for audio_id in adopted:
            logger.warning("Recovered recording %d, whose storing had been interrupted", audio_id)
        archive.blobs.tidy()
