"""Making a backup: rows as one snapshot shows them, then the audio that these rows name, last the manifest.

Until the manifest is there the set does not exist; what was written before it is found and used by the next run.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Table, func, insert, select

from audio_storage_system.archive import Archive
from audio_storage_system.archive.vault import read_text
from audio_storage_system.audit import heads
from audio_storage_system.backup.envelope import Envelope, envelope_of
from audio_storage_system.backup.format import (
    BLOB_COLUMNS,
    BLOB_TABLE,
    BLOBS,
    IMMUTABLE,
    PACKS,
    TABLES,
    WINDOW,
    WINDOWS,
    Cut,
    Header,
    Manifest,
    Part,
    ids_hash,
    new_set_id,
    pack_key,
    time_of,
)
from audio_storage_system.backup.lease import Lease
from audio_storage_system.backup.packs import row_as_json, write_plain, write_rows
from audio_storage_system.backup.places import BackupPlace
from audio_storage_system.backup.reading import previous_set, read_blobs
from audio_storage_system.backup.report import BackupProgress, BackupReport, Progress
from audio_storage_system.backup.sources import Blob, Source, Wanted
from audio_storage_system.blobs import BlobStore, open_blob_store
from audio_storage_system.catalogue.recordings import STORED
from audio_storage_system.clock import utc_now
from audio_storage_system.database.migrations import HEAD
from audio_storage_system.database.sequences import last_given
from audio_storage_system.database.tables import audio_files, backup_sets, data_keys, tombstones
from audio_storage_system.errors import InvalidInput

DISTRIBUTION = "audio-storage-system"
# Ids fetched from the database at a time, and files on their way at a time.
FETCHED, FILES = 50_000, 4


def create_backup(
    archive: Archive, destination: str, full: bool, keep_for: timedelta | None, progress: Progress
) -> BackupReport:
    """Make a set of the archive as it is now. full: read every row again, whatever earlier sets have. keep_for: how
    long pruning keeps it, whatever its rules say."""
    archive.access.require_admin("make backups")
    began = time.monotonic()
    stored = open_blob_store(archive.settings.blobs_url or archive.home)  # as it lies there: what is sealed stays so
    with closing(stored), closing(BackupPlace.open(destination)) as place:
        _refuse_inside(archive, place, stored)
        place.check(archive.marker.archive_id)
        with Lease(place, "create") as lease:
            place.claim(archive.marker.archive_id)
            making = _Making(archive, place, stored, envelope_of(archive.keys), keep_for, progress)
            manifest = making.manifest(full)
            lease.check()
            place.write_manifest(manifest, making.envelope)
        _note(archive, place, manifest)
    return making.report(manifest, time.monotonic() - began)


def _refuse_inside(archive: Archive, place: BackupPlace, stored: BlobStore) -> None:
    """A copy that is lost with the original is none."""
    for url in (stored.url, archive.home.resolve().as_uri()):
        if f"{place.store.url.rstrip('/')}/".startswith(f"{url.rstrip('/')}/"):
            reason = f"{place.shown} lies inside the archive: put backups on another disk or into another bucket"
            raise InvalidInput(reason=reason)


def _note(archive: Archive, place: BackupPlace, manifest: Manifest) -> None:
    header = manifest.header
    row = {"destination": place.shown, "set_id": header.set_id, "taken_at": header.taken_at}
    row |= {"expires_at": header.expires_at}
    with archive.database.write() as connection:
        connection.execute(insert(backup_sets), row)
        archive.audit.note(connection, "backup.created", set_id=header.set_id, destination=place.shown)


@dataclass(frozen=True)
class _Snapshot:
    """What the catalogue held at one moment. policy: the archive's `keys.json`. buried: the last tombstone."""

    at: datetime
    policy: str | None
    tables: dict[str, Cut]
    last_ids: dict[str, int]
    wanted: list[Wanted]
    buried: int
    audit: Any


@dataclass
class _Making:
    """A set that is being made. present: the objects that are there already."""

    archive: Archive
    place: BackupPlace
    stored: BlobStore
    envelope: Envelope
    keep_for: timedelta | None
    progress: Progress
    present: set[str] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    of_blobs: int = 0
    of_bytes: int = 0

    def manifest(self, full: bool) -> Manifest:
        """Everything but the manifest is written; this is what it says."""
        for prefix in (PACKS, BLOBS):
            self.present.update(self.place.store.keys(prefix))
        earlier = previous_set(self.archive, self.place, self.envelope)
        known = read_blobs(self.place, earlier, self.envelope) if earlier else {}
        seen = self._snapshot(earlier.tables if earlier and not full and earlier.revision == HEAD else {})
        source = Source(self.archive, self.place, self.stored, self.present)
        blobs = self._blobs(source, seen.wanted, known)
        return Manifest(
            header=self._header(seen),
            created_at=self.archive.marker.created_at,
            revision=HEAD,
            program=version(DISTRIBUTION),
            tables=seen.tables,
            blobs=self._cut_blobs(blobs),
            blob_bytes=sum(blob.size for blob in blobs),
            last_ids=seen.last_ids,
            deleted=tuple(self._deleted_after(seen.buried)),
            problems=tuple(source.problems),
            audit=seen.audit,
        )

    def _header(self, seen: _Snapshot) -> Header:
        """Sets have the order of their ids, also where the clock was put back."""
        last = max(map(time_of, self.place.set_ids()), default=seen.at)
        set_id = new_set_id(max(seen.at, last + timedelta(microseconds=1)))
        until = None if self.keep_for is None else seen.at + self.keep_for
        return Header(self.archive.marker.archive_id, set_id, seen.at, self.envelope.key_id, seen.policy, until)

    def _snapshot(self, earlier: Mapping[str, Cut]) -> _Snapshot:
        """The rows as they are at one moment, with the keys of that moment."""
        while True:
            policy = read_text(self.stored)
            seen = self._rows(policy, earlier)
            if read_text(self.stored) == policy:  # else keys were changed meanwhile
                return seen

    def _rows(self, policy: str | None, earlier: Mapping[str, Cut]) -> _Snapshot:
        at, keys = utc_now(), self.archive.keys
        with self.archive.database.read() as connection:
            return _Snapshot(
                at=at,
                policy=policy,
                tables={
                    table.name: self._cut(connection, table, _parts(earlier.get(table.name), _window(table)))
                    for table in TABLES
                },
                last_ids={table.name: last_given(connection, table) for table in TABLES},
                wanted=_wanted(connection),
                buried=int(connection.execute(select(func.coalesce(func.max(tombstones.c.id), 0))).scalar_one()),
                audit=heads(connection, keys).as_dict() if keys is not None else None,
            )

    def report(self, manifest: Manifest, seconds: float) -> BackupReport:
        """What was done."""
        return BackupReport(
            set_id=manifest.header.set_id,
            destination=self.place.shown,
            taken_at=manifest.header.taken_at,
            expires_at=manifest.header.expires_at,
            rows={name: cut.rows for name, cut in manifest.tables.items()},
            packs_written=self.counts["written"],
            packs_reused=self.counts["reused"],
            blobs=manifest.blobs.rows,
            bytes=manifest.blob_bytes,
            blobs_copied=self.counts["blobs"],
            bytes_copied=self.counts["bytes"],
            problems=list(manifest.problems),
            seconds=seconds,
        )

    # Rows

    def _cut(self, connection: Connection, table: Table, earlier: dict[int, Part]) -> Cut:
        """The rows of a table, in packs; those of an immutable one that an earlier set has are not read."""
        window = _window(table)
        parts = []
        for start, ids in _windows(connection, table, window):
            part = earlier.get(start) if table.name in IMMUTABLE else None
            if part and part.ids == ids_hash(ids) and pack_key(part.pack) in self.present:
                self.counts["reused"] += 1
            else:
                part = self._part(connection, table, start, start + window)
            parts.append(part)
            self.counts["rows"] += part.rows
            self._tell(table.name)
        return Cut(window, tuple(parts))

    def _part(self, connection: Connection, table: Table, start: int, end: int) -> Part:
        query = select(table).where(table.c.id >= start, table.c.id < end).order_by(table.c.id)
        rows = connection.execute(query).all()
        return self._packed(start, [row.id for row in rows], write_rows(table, rows))

    def _packed(self, start: int, ids: Sequence[int], payload: bytes) -> Part:
        """The part with this content, whose pack is written unless it is there."""
        name = self.envelope.name(payload)
        key = pack_key(name)
        if key in self.present:
            self.counts["reused"] += 1
            size = self.place.store.size(key)
        else:
            data = self.envelope.wrap(name, payload)
            self.place.put(key, data)
            self.present.add(key)
            self.counts["written"] += 1
            size = len(data)
        return Part(start, len(ids), ids_hash(np.asarray(ids, "<i8")), name, size, len(payload))

    # Audio

    def _blobs(self, source: Source, wanted: Sequence[Wanted], known: dict[int, Blob]) -> list[Blob]:
        """The audio of these recordings, copied unless it is there."""
        found, missing = [], []
        for one in wanted:
            blob = source.known(one, known.get(one.audio_id))
            if blob is None:
                missing.append(one)
            else:
                found.append(blob)
        self.of_blobs, self.of_bytes = len(missing), sum(one.size or 0 for one in missing)
        with ThreadPoolExecutor(FILES, "backup") as pool:
            for brought in pool.map(source.bring, missing):
                if brought is not None:
                    found.append(brought.blob)
                    self.counts["blobs"] += brought.copied
                    self.counts["bytes"] += brought.blob.size if brought.copied else 0
                self._tell("audio")
        return sorted(found, key=lambda blob: blob.audio_id)

    def _cut_blobs(self, blobs: Sequence[Blob]) -> Cut:
        windows: dict[int, list[Blob]] = {}
        for blob in blobs:
            windows.setdefault(blob.audio_id - blob.audio_id % WINDOW, []).append(blob)
        parts = [
            self._packed(start, [blob.audio_id for blob in some], write_plain(BLOB_TABLE, BLOB_COLUMNS, some))
            for start, some in windows.items()
        ]
        return Cut(WINDOW, tuple(parts))

    def _deleted_after(self, last: int) -> Iterator[dict[str, Any]]:
        """What was deleted since the snapshot was taken."""
        with self.archive.database.read() as connection:
            for row in connection.execute(select(tombstones).where(tombstones.c.id > last)).mappings():
                yield row_as_json(tombstones, dict(row))

    def _tell(self, stage: str) -> None:
        counts = self.counts
        self.progress(
            BackupProgress(stage, counts["rows"], counts["blobs"], self.of_blobs, counts["bytes"], self.of_bytes)
        )


def _window(table: Table) -> int:
    return WINDOWS.get(table.name, WINDOW)


def _parts(cut: Cut | None, window: int) -> dict[int, Part]:
    return {part.start: part for part in cut.parts} if cut is not None and cut.window == window else {}


def _windows(connection: Connection, table: Table, window: int) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """Each window in which there are rows: where it begins, and the ids in it."""
    rest: npt.NDArray[np.int64] = np.empty(0, np.int64)
    query = select(table.c.id).order_by(table.c.id)
    last = -1
    while True:
        ids = connection.execute(query.where(table.c.id > last).limit(FETCHED)).scalars().all()
        found = np.concatenate([rest, np.asarray(ids, np.int64)])
        done = len(ids) < FETCHED
        # The last window may go on in what is fetched next.
        whole = len(found) if done else int(np.searchsorted(found, found[-1] - found[-1] % window))
        for some in np.split(found[:whole], np.flatnonzero(np.diff(found[:whole] // window)) + 1):
            if len(some):
                yield int(some[0] - some[0] % window), some
        if done:
            return
        rest, last = found[whole:], int(ids[-1])


def _wanted(connection: Connection) -> list[Wanted]:
    """The recordings that have audio, by id. A sealed blob is named by its key's id as well."""
    columns = (audio_files.c.id, audio_files.c.file_path, audio_files.c.file_hash, audio_files.c.file_size)
    query = select(*columns, data_keys.c.blob_id).outerjoin(data_keys, data_keys.c.file_path == audio_files.c.file_path)
    stored = query.where(audio_files.c.status == STORED).order_by(audio_files.c.id, data_keys.c.id)
    return list({row.id: Wanted(*row) for row in connection.execute(stored)}.values())
