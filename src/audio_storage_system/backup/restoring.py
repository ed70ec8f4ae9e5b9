"""Restoring: a set becomes an archive again, in an empty place, on any backends.

Nobody can open it before all of it is there and has been compared with the set: its marker says so. What was deleted
after the set was taken, whole or in part, as far as newer sets or another archive know, is never written; a token that
was revoked since stays revoked. Cut short, the same call goes on: rows and files that are there are left as they are.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from datetime import datetime

from sqlalchemy import Connection, Table, delete, func, insert, select

from audio_storage_system import marker
from audio_storage_system.archive import Archive, open_original, open_restoring
from audio_storage_system.archive.reports import reindex
from audio_storage_system.archive.sidecars import keys_of
from audio_storage_system.backup.envelope import Envelope, envelope_of
from audio_storage_system.backup.format import TABLES, Manifest, Problem, blob_key
from audio_storage_system.backup.packs import Row
from audio_storage_system.backup.places import BackupPlace
from audio_storage_system.backup.reading import blobs_of, check_revision, graves_of, rows_of, unseen_rows
from audio_storage_system.backup.removed import Key, Removed, key_of
from audio_storage_system.backup.report import BackupProgress, Progress, RestoreReport
from audio_storage_system.backup.sources import Blob
from audio_storage_system.blobs import BlobStore, open_blob_store
from audio_storage_system.catalogue import locks
from audio_storage_system.catalogue.recordings import AUDIO_REMOVED, RECORDING
from audio_storage_system.database import bulk
from audio_storage_system.database.queries import within
from audio_storage_system.database.sequences import advance, advance_to, last_given
from audio_storage_system.database.tables import (
    api_tokens,
    audio_files,
    audit_log,
    backup_sets,
    data_keys,
    embeddings,
    removals,
    tombstones,
    transcripts,
)
from audio_storage_system.errors import ArchiveMismatch, BackupDamaged, KeyMissing, KeyRefused, NotFound, Unavailable
from audio_storage_system.keys import ArchiveKeys, KeySource, Ring
from audio_storage_system.marker import Marker
from audio_storage_system.records import Stage
from audio_storage_system.settings import Encryption, key_source, load_settings, locate_apart

logger = logging.getLogger(__name__)

# The rows that go with a part, and all that refers to them.
_STAGE_OF = {transcripts: Stage.TRANSCRIPT, embeddings: Stage.EMBEDDINGS}
# Rows per transaction, and files on their way at a time.
BATCH, FILES = 1_000, 4


def restore_backup(
    backup: str,
    archive: str,
    *,
    set_id: str | None = None,
    at: datetime | None = None,
    deletions_of: str | None = None,
    encryption: str | bytes | KeySource | None = None,
    accept_plaintext_catalogue: bool = False,
    progress: Progress = lambda _: None,
) -> RestoreReport:
    """Restore an archive from a backup into an empty place: its catalogue, audio and embeddings, ids kept.

    backup: a folder, or an address such as `s3://bucket/prefix`. archive: the place to restore into: a folder, a
    database's address, or an `audio-storage.toml`. set_id: which set (a unique beginning is enough); at: the last one
    taken until then; default: the last one. deletions_of: an archive, the damaged original for one, whose deletions
    are honoured as well as those that the backup knows of: what was deleted after the set was taken stays deleted, and
    a token that was revoked stays revoked.
    encryption: the key of an encrypted archive, or where it is, before what the environment and the settings at the new
    place say; accept_plaintext_catalogue: see `AudioStorageSystem`.

    Nobody can open the archive before it is whole. Cut short, the same call goes on. Raises `NotFound` where there is
    no such set, `BackupDamaged` naming what is rotten, `Conflict` where an archive is already, `KeyMissing`,
    `KeyRefused`, `NewerFormat`.
    """
    began, protection = time.monotonic(), Encryption.of(encryption, audit=False, accept=accept_plaintext_catalogue)
    home, named = locate_apart(archive)
    with ExitStack() as opened:
        place = opened.enter_context(closing(BackupPlace.open(backup)))
        chosen = place.choose(set_id, at)
        source = key_source(load_settings(home, **named), protection.source)
        keys = _keys(place, chosen, source, demanded=encryption is not None)
        envelope = envelope_of(keys)
        manifest = place.manifest(chosen, envelope)
        check_revision(manifest, place)
        known = _Known.of(place, envelope, manifest)
        if deletions_of is not None:
            known.add_archive(deletions_of, manifest.header.archive_id)
        protection = replace(protection, content=keys is not None and keys.encrypted)
        restored = open_restoring(home, _marker(manifest), manifest.header.keys, protection, **named)
        opened.callback(restored.close)
        stored = opened.enter_context(closing(open_blob_store(restored.settings.blobs_url or restored.home)))
        return _Restoring(restored, stored, place, envelope, manifest, known, progress).run(began)


def _keys(place: BackupPlace, set_id: str, source: KeySource, *, demanded: bool) -> ArchiveKeys | None:
    """The keys of the archive that a set is of, from the set itself; `demanded`: it must have some. Raises
    `KeyMissing`, `KeyRefused`."""
    policy = place.header(set_id).keys
    if policy is None:
        if demanded:  # somebody may have put a readable set in the place of a sealed one
            raise KeyRefused(place=place.shown, reason=f"a key was given, and set {set_id} is not encrypted")
        return None
    ring = Ring.read(policy.encode(), place.shown)
    return ring.opened(ring.master(source, place.shown), place.shown)


def _marker(manifest: Manifest) -> Marker:
    header = manifest.header
    return Marker(header.archive_id, marker.FORMAT_VERSION, manifest.created_at, restoring=header.set_id)


@dataclass
class _Known:
    """What is known beyond the set: which recordings were deleted, what of others was removed, when tokens (by their
    digests) were revoked, and the ids that were ever given."""

    removed: Removed
    graves: dict[tuple[int, str], Row] = field(default_factory=dict)
    revoked: dict[str, datetime] = field(default_factory=dict)
    last_ids: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, place: BackupPlace, envelope: Envelope, chosen: Manifest) -> _Known:
        """What all sets of a place know. One that cannot be read is no reason not to restore another."""
        known, seen = cls(Removed.since(place, envelope, chosen)), set[str]()
        for set_id in place.set_ids():
            try:
                manifest = place.manifest(set_id, envelope)
                known.add(graves_of(place, envelope, manifest, seen), manifest.last_ids)
                known.add_tokens(unseen_rows(place, envelope, manifest, api_tokens, seen))
                known.removed.add_set(place, envelope, manifest)
            except (BackupDamaged, KeyMissing, KeyRefused, NotFound) as error:
                if set_id == chosen.header.set_id:
                    raise
                logger.warning("What only set %s knows to be deleted may come back: %s", set_id, error)
        return known

    def add(self, graves: Iterable[Row], last_ids: Mapping[str, int]) -> None:
        """Know this as well."""
        for grave in graves:
            self.graves.setdefault((grave["audio_id"], grave["file_hash"]), grave)
        for name, last in last_ids.items():
            self.last_ids[name] = max(last, self.last_ids.get(name, 0))

    def add_tokens(self, tokens: Iterable[Row]) -> None:
        """Know which of these were revoked."""
        self.revoked |= {token["digest"]: token["revoked_at"] for token in tokens if token["revoked_at"] is not None}

    def add_archive(self, place: str, archive_id: str) -> None:
        """Know what another archive of this identity knows."""
        home, named = locate_apart(place)
        with closing(open_original(home, **named)) as other, other.database.read() as connection:
            if other.marker.archive_id != archive_id:
                reason = f"it is archive {other.marker.archive_id}, and the backup is of {archive_id}"
                raise ArchiveMismatch(place=other.database.place, reason=reason)
            graves = [dict(row) for row in connection.execute(select(tombstones)).mappings()]
            self.add(graves, {table.name: last_given(connection, table) for table in TABLES})
            self.add_tokens(dict(row) for row in connection.execute(select(api_tokens)).mappings())
            self.removed.add_archive(connection)

    def is_buried(self, audio_id: int, file_hash: str) -> bool:
        """Whether this recording was deleted: its id alone could be that of another in an archive that went its own
        way since."""
        return (audio_id, file_hash) in self.graves


@dataclass
class _Restoring:
    """A restore under way. gone: of each table the ids of rows that are left out, with what refers to them;
    gone_keys: the keys of their blobs, whose data keys are left out, too. removed: of each stage the recordings that
    it is left out of; entered: the removals that the set does not know of. unfinished: how many recordings of it were
    still coming in."""

    archive: Archive
    stored: BlobStore
    place: BackupPlace
    envelope: Envelope
    manifest: Manifest
    known: _Known
    progress: Progress
    gone: dict[str, set[int]] = field(default_factory=dict)
    gone_keys: set[str] = field(default_factory=set)
    removed: dict[Stage, set[int]] = field(default_factory=lambda: defaultdict(set))
    entered: dict[Key, Row] = field(default_factory=dict)
    rows: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)
    unfinished: int = 0
    blobs: int = 0
    bytes: int = 0

    def run(self, began: float) -> RestoreReport:
        """All of it, in the order in which it is safe."""
        for table in TABLES:
            if cut := self.manifest.tables.get(table.name):
                for part in cut.parts:
                    self._put(table, rows_of(self.place, self.envelope, table, part))
        self._bury()
        self._enter_removals()
        self._bring_all()
        self._advance()
        self._derive()
        differences = self._differences()
        self._finish(whole=not differences)
        return RestoreReport(
            set_id=self.manifest.header.set_id,
            archive_id=self.manifest.header.archive_id,
            source=self.place.shown,
            destination=self.archive.database.place,
            taken_at=self.manifest.header.taken_at,
            rows=dict(self.rows),
            blobs=self.blobs,
            bytes=self.bytes,
            kept_deleted=len(self.gone.get(audio_files.name, ())) - self.unfinished,
            kept_removed=sum(row["stage"] != Stage.RECORDING.value for row in self.entered.values()),
            problems=sorted(self.problems, key=lambda problem: problem.audio_id),
            differences=differences,
            seconds=time.monotonic() - began,
        )

    # Rows

    def _put(self, table: Table, rows: list[Row]) -> None:
        if table is api_tokens:
            self._revoke(rows)
        kept = [row for row in rows if not self._is_gone(table, row)]
        for start in range(0, len(kept), BATCH):
            batch = kept[start : start + BATCH]
            with self.archive.database.write(locks.COPYING) as connection:
                bulk.write(connection, table, _absent(connection, table, batch))
            self.rows[table.name] += len(batch)
            self._tell(table.name)

    def _revoke(self, tokens: list[Row]) -> None:
        """What was revoked after the set was taken opens nothing again."""
        for token in tokens:
            token["revoked_at"] = token["revoked_at"] or self.known.revoked.get(token["digest"])

    def _is_gone(self, table: Table, row: Row) -> bool:
        """Whether a row is of a recording that was deleted, directly or by what it refers to; or of one that was still
        being recorded, of which no sound is here."""
        if table is audio_files and row["status"] == RECORDING:
            gone = True
            self.unfinished += 1
        elif table is audio_files:
            gone = self.known.is_buried(row["id"], row["file_hash"])
            self._note_removed(row, [Stage.RECORDING] if gone else [])
        elif table is data_keys:
            gone = row["file_path"] in self.gone_keys
        else:
            stage = _STAGE_OF.get(table)
            gone = (stage is not None and row["audio_file_id"] in self.removed[stage]) or any(
                row.get(key.parent.name) in self.gone.get(key.column.table.name, ()) for key in table.foreign_keys
            )
        if gone:
            self.gone.setdefault(table.name, set()).add(row["id"])
        return gone

    def _note_removed(self, row: Row, stages: list[Stage]) -> None:
        """Leave out what was removed of this recording since: all of it, or parts."""
        audio_id, path = row["id"], row["file_path"]
        if stages:
            grave = self.known.graves[audio_id, row["file_hash"]]
            rule, at = (grave["receipt"] or {}).get("rule"), grave["deleted_at"]
            found = [{"audio_id": audio_id, "stage": Stage.RECORDING.value, "rule": rule, "removed_at": at}]
        else:
            found = list(self.known.removed.of(audio_id, row["file_hash"]).values())
        self.entered |= {key_of(one): one for one in found}
        for stage in {Stage(one["stage"]) for one in found}:
            self.removed[stage].add(audio_id)
            self.gone_keys.update(keys_of(stage, path))
        if audio_id in self.removed[Stage.AUDIO]:
            row["status"] = AUDIO_REMOVED

    def _enter_removals(self) -> None:
        """Enter the removals that the set does not know of. Nothing of them is here, nor ever was."""
        with self.archive.database.write(locks.COPYING) as connection:
            advance(connection, removals)
            columns = (removals.c.audio_id, removals.c.stage, removals.c.removed_at)
            there = {tuple(row) for row in connection.execute(select(*columns))}
            done = {"files": [], "completed": True, "scrubbed": True}
            new = [{**row, **done} for key, row in self.entered.items() if key not in there]
            for row in new:
                row.pop("id", None)  # it may be that of another here
            if new:
                connection.execute(insert(removals), new)

    def _bury(self) -> None:
        """Enter the deletions that the set does not know of. Of their audio nothing is here."""
        with self.archive.database.write(locks.COPYING) as connection:
            there = {tuple(row) for row in connection.execute(select(tombstones.c.audio_id, tombstones.c.file_hash))}
            taken = set(connection.execute(select(tombstones.c.id)).scalars())
            new = [dict(grave) for key, grave in self.known.graves.items() if key not in there]
            # Ids of another archive may be those of other rows here.
            kept = [{**grave, "completed": True} for grave in new if grave["id"] not in taken]
            bulk.write(connection, tombstones, kept)
            advance(connection, tombstones)
            others = [{**grave, "completed": True} for grave in new if grave["id"] in taken]
            for grave in others:
                del grave["id"]
                connection.execute(insert(tombstones), grave)

    def _advance(self) -> None:
        """Let no id be given again that any set, or the other archive, knows of."""
        with self.archive.database.write(locks.COPYING) as connection:
            for table in TABLES:
                advance(connection, table)
                advance_to(connection, table, self.known.last_ids.get(table.name, 0))

    # Audio

    def _bring_all(self) -> None:
        gone = self.gone.get(audio_files.name, set()) | self.removed[Stage.AUDIO]
        with ThreadPoolExecutor(FILES, "restore") as pool:
            for part in self.manifest.blobs.parts:
                blobs = [blob for blob in blobs_of(self.place, self.envelope, part) if blob.audio_id not in gone]
                for blob, reason in zip(blobs, pool.map(self._bring, blobs), strict=True):
                    if reason is not None:
                        self.problems.append(Problem(blob.audio_id, blob.key, reason))
                    self.blobs, self.bytes = self.blobs + 1, self.bytes + blob.size
                    self._tell("audio")
        self.problems += [problem for problem in self.manifest.problems if problem.audio_id not in gone]

    def _bring(self, blob: Blob) -> str | None:
        """Have these bytes under their key, read back; why not, if not."""
        if not self.stored.has(blob.key):
            try:
                with self.place.store.open(blob_key(blob.sha256)) as file:
                    staged = self.stored.stage(file, name=blob.key)
            except NotFound:
                return "its audio is missing in the backup"
            if staged.sha256 != blob.sha256:
                self.stored.discard(staged)
                return f"its audio in the backup is damaged ({blob_key(blob.sha256)})"
            given = self.stored.publish(staged, blob.key)
            if given != blob.key:  # another process restores the same set
                self.stored.delete(given)
        found = self.stored.describe(blob.key)
        return None if found.sha256 == blob.sha256 else "what is stored under its key are other bytes"

    # The end

    def _derive(self) -> None:
        """Make full text and vector indexes. One in a vector database that is down follows by itself later."""
        try:
            reindex(self.archive)
        except Unavailable as error:
            logger.warning("The vector index could not follow yet: %s", error)

    def _differences(self) -> list[str]:
        """Where the archive has another number of rows than the set, less what was deleted since."""
        with self.archive.database.read() as connection:
            counts = {
                table.name: connection.execute(select(func.count()).select_from(table)).scalar_one() for table in TABLES
            }
        wanted = {
            name: cut.rows - len(self.gone.get(name, ()))
            for name, cut in self.manifest.tables.items()
            if name != tombstones.name
        }
        wanted[tombstones.name] = len(self.known.graves)
        wanted[removals.name] = wanted.get(removals.name, 0) + len(self.entered)
        # An earlier attempt may have come as far as to note that it was there.
        own = {name: max(0, counts[name] - wanted[name]) for name in (backup_sets.name, audit_log.name)}
        return [
            f"{name} has {counts[name]:,} rows where the set has {wanted[name]:,}"
            for name in wanted
            if counts[name] - own.get(name, 0) != wanted[name]
        ]

    def _finish(self, whole: bool) -> None:
        """Let others open it."""
        if not whole:
            return
        archive = self.archive
        with archive.database.write() as connection:
            _know_sets(connection, self.place, self.manifest)
            archive.audit.note(
                connection, "archive.restored", set_id=self.manifest.header.set_id, source=self.place.shown
            )
        archive.mark()

    def _tell(self, stage: str) -> None:
        of = self.manifest.blobs.rows, self.manifest.blob_bytes
        self.progress(BackupProgress(stage, sum(self.rows.values()), self.blobs, of[0], self.bytes, of[1]))


def _absent(connection: Connection, table: Table, rows: list[Row]) -> list[Row]:
    """Those that an earlier attempt has not written."""
    ids = within(table.c.id, (row["id"] for row in rows))
    there = set(connection.execute(select(table.c.id).where(ids)).scalars())
    return [row for row in rows if row["id"] not in there]


def _know_sets(connection: Connection, place: BackupPlace, manifest: Manifest) -> None:
    """The set that the archive comes from is one of its own from now on, and the next backup builds on it."""
    set_id = manifest.header.set_id
    connection.execute(delete(backup_sets).where(backup_sets.c.set_id == set_id))
    row = {"destination": place.shown, "set_id": set_id, "taken_at": manifest.header.taken_at}
    row |= {"expires_at": manifest.header.expires_at}
    connection.execute(insert(backup_sets), row | {"verified_at": place.verified([set_id]).get(set_id)})
