"""One open archive: its parts, opened and bound together."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from platformdirs import user_cache_path
from sqlalchemy import Connection, select

from audio_storage_system import deletion, marker, pipeline
from audio_storage_system.access import Access, Role
from audio_storage_system.archive.indexing import Indexing
from audio_storage_system.archive.query_vectors import QueryVectors
from audio_storage_system.archive.replica import Replica
from audio_storage_system.archive.vault import Vault, unlock
from audio_storage_system.archive.vault import found as found_vault
from audio_storage_system.audit import Audit, AuditLog
from audio_storage_system.blobs import BlobStore, open_blob_store
from audio_storage_system.blobs.cache import CachedBlobStore
from audio_storage_system.blobs.sealed import SealedBlobStore
from audio_storage_system.catalogue import data_keys, embeddings, fulltext, locks
from audio_storage_system.catalogue.data_keys import StoredDataKeys
from audio_storage_system.database import Database, Pool, passage_search, tables
from audio_storage_system.database.migrations import is_empty, migrate
from audio_storage_system.durable import disk_errors, make_folders
from audio_storage_system.errors import (
    ArchiveDamaged,
    ArchiveMismatch,
    ArchiveNotFound,
    Conflict,
    InvalidInput,
    InvalidSetting,
    KeyMissing,
    RestoreUnfinished,
)
from audio_storage_system.keys import ArchiveKeys
from audio_storage_system.marker import Marker
from audio_storage_system.model_pool import LoadedModel
from audio_storage_system.scratch import SealedFile
from audio_storage_system.settings import Encryption, Settings, key_source, load_settings
from audio_storage_system.spaces import Founding, Spaces, open_founding_embedders
from audio_storage_system.vectors import VectorIndex, check_address, log, open_vector_index

logger = logging.getLogger(__name__)

CATALOGUE = "audio_storage.db"
SPOOL = "spool"
IN_PLACE = (
    "There is an archive already, and an archive is not encrypted in place. Copy it into a new one that is: "
    "audio-storage copy --encrypt"
)

T = TypeVar("T")


@dataclass
class Streak:
    """Whether the last file that was to be stored was stored already. A hint: threads may overwrite it as they like."""

    duplicates: bool = False


@dataclass(frozen=True)
class Archive:
    """The parts of an open archive. `close` frees models and connections.

    home: the folder of what is kept on this machine: everything where the archive is local, else captures in progress.
    access: who asks. keys: of an archive that is encrypted or whose audit log is kept; vault: what keeps them.
    """

    home: Path
    settings: Settings
    marker: Marker
    database: Database
    blobs: BlobStore
    index: VectorIndex
    spaces: Spaces
    engines: pipeline.Engines
    replica: Replica | None = None
    query_vectors: QueryVectors = field(default_factory=QueryVectors)
    indexing: Indexing = field(default_factory=Indexing)
    streak: Streak = field(default_factory=Streak)
    access: Access = field(default_factory=Access)
    keys: ArchiveKeys | None = None
    vault: Vault | None = None
    audit_log: AuditLog | None = None

    @cached_property
    def audit(self) -> Audit:
        """What enters in the audit log what is done through this archive; without keys there is none."""
        return Audit(self.audit_log, self.access.principal_id, self.access.name)

    @property
    def owner_id(self) -> int:
        """Whose is what is stored through this archive."""
        return self.access.principal_id

    @property
    def spool(self) -> Path:
        """Where captures in progress are kept."""
        return self.home / SPOOL

    def key_for(self, purpose: str) -> bytes | None:
        """What content is encrypted with for this purpose; `None` in an archive that is not encrypted."""
        return content_key(self.keys, purpose)

    @property
    def encrypted(self) -> bool:
        """Whether nothing that the archive keeps can be read without its key."""
        return self.keys is not None and self.keys.encrypted

    def temporary_file(self) -> BinaryIO:
        """A file without a name, gone when it is closed; nobody can read it where the archive is encrypted. On the disk
        of the archive: where the system has such files there is often little room, or memory."""
        with disk_errors(self.spool):
            try:
                return self._temporary_file()
            except FileNotFoundError:
                make_folders(self.spool, private=True)
                return self._temporary_file()

    def _temporary_file(self) -> BinaryIO:
        made = SealedFile(self.spool) if self.encrypted else tempfile.TemporaryFile(dir=self.spool)
        return cast(BinaryIO, made)

    def mark(self) -> None:
        """Write the marker anew, with the spaces as they are now."""
        with self.database.read() as connection:
            spaces = tuple(embeddings.spaces(connection))
        marker.write(self.blobs, replace(self.marker, spaces=spaces))

    def follow(self) -> None:
        """Bring the vector index up to date and forget the changes that every index has seen."""
        with self.database.read() as connection:
            spaces = embeddings.spaces(connection)  # older ones too: what is deleted is deleted there as well
        for space in spaces:
            self.index.follow(space)
        with self.database.write() as connection:
            log.prune(connection)

    def searched(self, question: Callable[[Database, VectorIndex], T]) -> T:
        """The answer of the replica, where there is one that has everything this process wrote, else of the primary."""
        answer = self.replica.ask(question) if self.replica else None
        return question(self.database, self.index) if answer is None else answer

    def loaded_models(self) -> list[LoadedModel]:
        """The models in memory now."""
        return self.engines.loaded()

    def seen_by(self, access: Access) -> Archive:
        """The same archive, open for somebody else; it is closed with this one."""
        return replace(self, access=replace(access, database=self.database), streak=Streak())

    def require(self, audio_id: int, role: Role = Role.READER, action: str = "read") -> None:
        """Raise `NotFound` or `Forbidden` unless who asks has this role on the recording, see `Access.require`."""
        if self.access.restricted:
            with self.database.read() as connection:
                self.access.require(connection, audio_id, role, action)

    def close(self) -> None:
        """Bring the index up to date, then free models and connections."""
        self.indexing.finish(self.follow)
        if self.replica:
            self.replica.close()
        self.engines.close()
        self.index.close()
        self.blobs.close()
        if self.audit_log:
            self.audit_log.close()
        self.database.close()


def open_archive(home: Path, *, create: bool, encryption: Encryption | None = None, **given: Any) -> Archive:
    """Open the archive whose folder on this machine is `home`, making it first when it does not exist and `create` is
    set. Where its catalogue and its blobs are is among the settings `given`. `encryption`: see `Encryption`.

    What a crash left half-done is brought in order: migrations, deletions, blobs without a row. Raises
    `ArchiveNotFound`, `ArchiveMismatch`, `NewerFormat`, `ArchiveDamaged`, `ArchiveReadOnly`, `InvalidSetting`,
    `DatabaseUnavailable`, `DatabaseRefused`, `KeyMissing`, `KeyRefused`.
    """
    settings = load_settings(home, **given)
    _check_partition(settings)
    if encryption and encryption.accept_plaintext_catalogue:
        settings = replace(settings, accept_plaintext_vectors=True)
    blobs = open_blobs(home, settings)
    found = marker.read(blobs)
    begins = found is None and (create or not is_unfounded(home, settings))
    founding = _founding(home, settings) if begins else None
    vault = open_vault(home, settings, blobs, found, encryption or Encryption(), create=create)
    database = reach(home, settings, found, create=create, keys=vault.keys if vault else None)
    try:
        return _opened(home, settings, blobs, found, database, vault, founding)
    except BaseException:
        database.close()
        raise


def _founding(home: Path, settings: Settings) -> Founding:
    """What an archive begins with: all that its settings name, before there is anything of it."""
    for spec in filter(None, (settings.transcriber, settings.transcriber_fallback)):
        pipeline.check_spec(spec)
    check_address(settings.vectors_url, home)
    return open_founding_embedders(settings.text_embedder, settings.audio_embedder)


def _opened(
    home: Path,
    settings: Settings,
    blobs: BlobStore,
    found: Marker | None,
    database: Database,
    vault: Vault | None,
    founding: Founding | None,
) -> Archive:
    make_ready(home, settings, database)
    identity = identify(
        database, settings.partition, partial(marker.create, archive_id=vault.keys.archive_id if vault else None)
    )
    marker.check(blobs, identity, found, together=not (settings.database_url or settings.blobs_url))
    check_vault(identity, vault, database)
    archive = compose(home, settings, identity, database, blobs, vault)
    if founding:
        archive.spaces.found(founding)
        archive.mark()
    if not identity.bound:
        marker.bind(database)
    bring_in_order(archive)
    return archive


def open_blobs(home: Path, settings: Settings, *, cached: bool = True) -> BlobStore:
    """Where the settings keep the blobs; those far away `cached` as the settings say."""
    blobs = open_blob_store(settings.blobs_url or home)
    if not (cached and blobs.remote and settings.blob_cache_bytes > 0):
        return blobs
    base = Path(settings.blob_cache_dir or user_cache_path("audio-storage") / "blobs").expanduser()
    place = hashlib.sha256(settings.blobs_url.encode()).hexdigest()[:32]
    return CachedBlobStore(blobs, base / place, settings.blob_cache_bytes)


def make_ready(home: Path, settings: Settings, database: Database) -> None:
    """Make the folder of a local archive where it is missing, and bring the database to the schema of this version."""
    if not settings.database_url:
        with disk_errors(home):
            make_folders(home, private=True)
    migrate(database)


def compose(
    home: Path, settings: Settings, identity: Marker, database: Database, blobs: BlobStore, vault: Vault | None = None
) -> Archive:
    """The archive of these parts."""
    return Archive(
        home=home,
        settings=settings,
        marker=identity,
        database=database,
        blobs=sealed(blobs, database, vault),
        index=open_vector_index(settings.vectors_url, database, identity.archive_id, home),
        spaces=Spaces(database, settings.combined_weight),
        engines=pipeline.Engines(settings.model_idle_seconds, settings.transcribe_at_once),
        replica=_replica(home, settings, database, identity.archive_id),
        keys=vault.keys if vault else None,
        vault=vault,
        audit_log=AuditLog(database, vault.keys) if vault else None,
    )


def sealed(blobs: BlobStore, database: Database, vault: Vault | None) -> BlobStore:
    """The blobs, sealed where the archive is encrypted. Above the cache, which holds nothing readable then."""
    if vault is None or not vault.keys.encrypted:
        return blobs
    return SealedBlobStore(blobs, vault.keys, StoredDataKeys(database, lambda: vault.keys, vault.reload))


def open_vault(
    home: Path,
    settings: Settings,
    blobs: BlobStore,
    found: Marker | None,
    wanted: Encryption,
    *,
    create: bool,
    archive_id: str | None = None,
) -> Vault | None:
    """The keys of the archive, made where they are wanted and the archive is to be made (under this id if it is
    given). Raises `KeyMissing`, `KeyRefused`, and `Conflict` for an archive that is not encrypted and ought to be."""
    source = key_source(settings, wanted.source)
    opened = unlock(blobs, source)
    if opened is not None:
        if wanted.content and not opened.keys.encrypted:
            raise Conflict(reason=IN_PLACE)
        if opened.keys.encrypted:
            _check_vectors(settings, wanted.accept_plaintext_catalogue)
        return opened
    if not (wanted.content or wanted.audit):
        return None
    exists = found is not None or not is_unfounded(home, settings)
    if wanted.content and exists:
        raise Conflict(reason=IN_PLACE)
    if not (exists or create):
        return None
    check_accepted(settings, wanted)
    archive_id = _known_id(home, settings, found) if exists else archive_id
    return found_vault(blobs, source, archive_id, encrypted=wanted.content)


def check_vault(identity: Marker, vault: Vault | None, database: Database) -> None:
    """Raise `KeyMissing` where an archive has sealed blobs and its keys are gone: nothing may be stored openly then.
    Raise `ArchiveMismatch` where they are another archive's."""
    if vault is not None and vault.keys.archive_id != identity.archive_id:
        reason = f"its keys are of archive {vault.keys.archive_id}, its catalogue is of {identity.archive_id}"
        raise ArchiveMismatch(place=database.place, reason=reason)
    if vault is None or not vault.keys.encrypted:
        with database.read() as connection:
            if data_keys.any_there(connection):
                raise KeyMissing(place=database.place, reason="its keys.json is gone; restore it from a backup")


def check_accepted(settings: Settings, wanted: Encryption) -> None:
    """Raise `InvalidInput` where `wanted` is to be encrypted, some of it would be readable, and nobody accepts that."""
    if not wanted.content:
        return
    readable = []
    if settings.database_url:
        readable.append("in PostgreSQL, what was said, names, metadata and vectors")
    if settings.vectors_url:
        readable.append("in the vector database, vectors and what searches filter by")
    if readable and not wanted.accept_plaintext_catalogue:
        reason = f"Not all of it would be encrypted. Readable stay: {'; '.join(readable)}. If that is accepted, "
        raise InvalidInput(reason=reason + "say so: --accept-plaintext-catalogue (accept_plaintext_catalogue=True)")


def _check_vectors(settings: Settings, accepted: bool) -> None:
    """From vectors much of a text can be guessed. A catalogue on a server has them in clear itself."""
    if settings.vectors_url and not (settings.database_url or settings.accept_plaintext_vectors or accepted):
        reason = "the archive is encrypted, and its vectors would be readable there, as they are not in its own index. "
        raise InvalidSetting(name="vectors_url", reason=f"{reason}To accept it, set accept_plaintext_vectors to true")


def is_unfounded(home: Path, settings: Settings) -> bool:
    """Whether there is no catalogue of an archive."""
    if not settings.database_url:
        return not (home / CATALOGUE).exists()
    with closing(_connect(settings)) as database:
        return _has_no_archive(database)


def _known_id(home: Path, settings: Settings, found: Marker | None) -> str | None:
    """The id of an archive that is not encrypted."""
    if found is not None:
        return found.archive_id
    with closing(_connect(settings) if settings.database_url else Database.open(home / CATALOGUE)) as database:
        migrate(database)
        with database.read() as connection:
            identity = marker.of_catalogue(connection)
    return identity.archive_id if identity else None


def archive_exists(home: Path, named: Mapping[str, Any]) -> bool:
    """Whether there is an archive at this place, as `settings.locate` names it."""
    settings = load_settings(home, **named)
    if not settings.database_url:
        return (home / CATALOGUE).exists() or marker.read(open_blobs(home, settings)) is not None
    return not is_unfounded(home, settings)


def _check_partition(settings: Settings) -> None:
    passage_search.check(settings.partition)
    if settings.partition and not settings.database_url:
        raise InvalidSetting(name="partition", reason="the catalogue has to be on PostgreSQL for that")


def reach(
    home: Path,
    settings: Settings,
    found: Marker | None,
    *,
    create: bool,
    refill: bool = False,
    keys: ArchiveKeys | None = None,
) -> Database:
    """The catalogue's database, which may be new. Raises `ArchiveNotFound`, `RestoreUnfinished`, and `ArchiveDamaged`
    where it ought to hold an archive and does not, unless it is to be filled again."""
    key = content_key(keys, "catalogue")
    database = _connect(settings) if settings.database_url else Database.open(home / CATALOGUE, key)
    try:
        _check_place(database, home, settings, found, create=create, refill=refill)
    except BaseException:
        database.close()
        raise
    return database


def _check_place(
    database: Database, home: Path, settings: Settings, found: Marker | None, *, create: bool, refill: bool
) -> None:
    if found is not None and found.restoring and not refill:
        raise RestoreUnfinished(place=str(home), set=found.restoring)
    # Asked first: another process that is founding the archive makes the catalogue before there is any audio.
    has_audio = found is not None or (not settings.database_url and (home / pipeline.BLOB_PREFIX).exists())
    if not _is_new(database, home, settings):
        return
    if has_audio and not refill:
        lost = "its database is empty" if settings.database_url else f"its catalogue {CATALOGUE} is missing"
        raise ArchiveDamaged(place=str(home), reason=f"{lost}; restore it from a backup")
    if not create:
        raise ArchiveNotFound(place=database.place if settings.database_url else str(home))


def content_key(keys: ArchiveKeys | None, purpose: str) -> bytes | None:
    """What an archive's content is encrypted with for a purpose; `None` where it is not encrypted."""
    return keys.derive(purpose) if keys and keys.encrypted else None


def _is_new(database: Database, home: Path, settings: Settings) -> bool:
    return (not settings.database_url and not (home / CATALOGUE).exists()) or _has_no_archive(database)


def _has_no_archive(database: Database) -> bool:
    """Whether nobody has founded an archive there; who was killed meanwhile leaves tables at most."""
    with database.read() as connection:
        if is_empty(connection, database.place):
            return True
        return connection.execute(select(tables.archive.c.archive_id)).first() is None


def _replica(home: Path, settings: Settings, database: Database, archive_id: str) -> Replica | None:
    if not (settings.replica_url and settings.database_url):
        return None
    copy = _connect(replace(settings, database_url=settings.replica_url))
    return Replica(database, copy, lambda at: open_vector_index(settings.vectors_url, at, archive_id, home))


def _connect(settings: Settings) -> Database:
    pool = Pool(
        settings.pool_size,
        settings.pool_overflow,
        settings.pool_timeout,
        settings.pool_recycle,
        settings.pool_pre_ping,
    )
    return Database.connect(settings.database_url, pool)


def identify(database: Database, partition: str, found: Callable[[Connection], Marker]) -> Marker:
    """What the catalogue is; a new one gets its identity here, by `found`."""
    with database.read() as connection:
        identity = marker.of_catalogue(connection)
    if identity is None:
        with database.write(locks.FOUNDING) as connection:  # another process may be founding the same archive
            identity = marker.of_catalogue(connection) or found(connection)
            fulltext.create(connection, partition)
    return identity


def bring_in_order(archive: Archive) -> None:
    """Finish what a crash left half-done."""
    deletion.complete_deletions(archive.database, archive.blobs)
    if archive.blobs.crashed():
        if not marker.is_filling(archive.blobs):  # else a copy that was cut short will give them their own rows
            _adopt(archive)
        archive.blobs.tidy()


def _adopt(archive: Archive) -> None:
    for audio_id in pipeline.adopt_orphans(
        archive.database, archive.blobs, owner_id=archive.owner_id, audit=archive.audit
    ):
        logger.warning("Recovered recording %d, whose storing had been interrupted", audio_id)
