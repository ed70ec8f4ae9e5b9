"""One open archive: its parts, opened and bound together."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from audio_storage_system import deletion, marker, pipeline
from audio_storage_system.blobs import BlobStore, open_blob_store
from audio_storage_system.catalogue import embeddings, fulltext
from audio_storage_system.database import Database
from audio_storage_system.database.migrations import migrate
from audio_storage_system.durable import disk_errors
from audio_storage_system.errors import ArchiveDamaged, ArchiveNotFound
from audio_storage_system.marker import Marker
from audio_storage_system.settings import Settings, load_settings
from audio_storage_system.spaces import Spaces, open_founding_embedders
from audio_storage_system.vectors import VectorIndex, log, open_vector_index

logger = logging.getLogger(__name__)

CATALOGUE = "audio_storage.db"
SPOOL = "spool"


@dataclass(frozen=True)
class Archive:
    """The parts of an open archive. `close` frees models and connections."""

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
        """Write the marker file anew, with the spaces as they are now."""
        with self.database.read() as connection:
            spaces = tuple(embeddings.spaces(connection))
        with disk_errors(self.home):
            marker.write(self.home, replace(self.marker, spaces=spaces))

    def follow(self) -> None:
        """Bring the vector index up to date and forget the changes that every index has seen."""
        with self.database.read() as connection:
            spaces = embeddings.spaces(connection)  # older ones too: what is deleted is deleted there as well
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
    """Open the archive in `home`, making it first when it does not exist and `create` is set.

    What a crash left half-done is brought in order: migrations, deletions, blobs without a row. Raises
    `ArchiveNotFound`, `ArchiveMismatch`, `NewerFormat`, `ArchiveDamaged`, `ArchiveReadOnly`, `InvalidSetting`.
    """
    found = marker.read(home)
    _check_place(home, found, create)
    settings = load_settings(home, **given)
    founding = None if found else open_founding_embedders(settings.text_embedder, settings.audio_embedder)
    with disk_errors(home):
        home.mkdir(parents=True, exist_ok=True)
    database = Database.open(home / CATALOGUE)
    migrate(database)
    spaces = Spaces(database, settings.combined_weight)
    identity = _identify(database)
    marker.check(home, identity, found)
    archive = Archive(
        home=home,
        settings=settings,
        marker=identity,
        database=database,
        blobs=open_blob_store(home),
        index=open_vector_index(settings.vectors_url, database, identity.archive_id, home),
        spaces=spaces,
        engines=pipeline.Engines(),
    )
    if founding:
        archive.spaces.found(founding)
        archive.mark()
    _bring_in_order(archive)
    return archive


def _check_place(home: Path, found: Marker | None, create: bool) -> None:
    if (home / CATALOGUE).exists():
        return
    if found is not None or (home / pipeline.BLOB_PREFIX).exists():
        raise ArchiveDamaged(place=str(home), reason=f"its catalogue {CATALOGUE} is missing; restore it from a backup")
    if not create:
        raise ArchiveNotFound(place=str(home))


def _identify(database: Database) -> Marker:
    """What the catalogue is; a new one gets its identity here."""
    with database.read() as connection:
        identity = marker.of_catalogue(connection)
    if identity is None:
        with database.write() as connection:  # another process may be founding the same archive
            identity = marker.of_catalogue(connection) or marker.create(connection)
            fulltext.create(connection)
    return identity


def _bring_in_order(archive: Archive) -> None:
    deletion.complete_deletions(archive.database, archive.blobs)
    if archive.blobs.crashed():
        adopted = pipeline.adopt_orphans(archive.database, archive.blobs, owner_id=archive.owner_id)
        for audio_id in adopted:
            logger.warning("Recovered recording %d, whose storing had been interrupted", audio_id)
        archive.blobs.tidy()
