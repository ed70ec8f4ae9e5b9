"""Reading what a set holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from sqlalchemy import Table, select

from audio_storage_system.archive import Archive
from audio_storage_system.backup.envelope import Envelope, Rotten
from audio_storage_system.backup.format import (
    BLOB_COLUMNS,
    BLOB_TABLE,
    TABLES,
    UNREADABLE,
    Manifest,
    Part,
    ids_hash,
    pack_key,
)
from audio_storage_system.backup.packs import Row, read_plain, read_rows, row_of_json
from audio_storage_system.backup.places import BackupPlace
from audio_storage_system.backup.sources import Blob
from audio_storage_system.database.migrations import HEAD
from audio_storage_system.database.tables import backup_sets, tombstones
from audio_storage_system.errors import BackupDamaged, KeyMissing, KeyRefused, NewerFormat, NotFound

KNOWN = {table.name: table for table in TABLES}


def previous_set(archive: Archive, place: BackupPlace, envelope: Envelope) -> Manifest | None:
    """The newest set that can be built on: readable with this key, and one that the archive's own catalogue knows. What
    another one with the same identity has made, as one restored from here does, may have other rows with the same ids.
    """
    with archive.database.read() as connection:
        ours = set(connection.execute(select(backup_sets.c.set_id)).scalars())
    for set_id in reversed(place.set_ids()):
        if set_id not in ours:
            continue
        try:
            return place.manifest(set_id, envelope)
        except (BackupDamaged, KeyMissing, KeyRefused, NotFound):
            continue
    return None


def check_revision(manifest: Manifest, place: BackupPlace) -> None:
    """Raise `NewerFormat` for a set of a schema that this version does not know."""
    unknown = set(manifest.tables) - set(KNOWN)
    if manifest.revision > HEAD or unknown:
        raise NewerFormat(place=place.shown, found=manifest.revision, known=HEAD)


def rows_of(place: BackupPlace, envelope: Envelope, table: Table, part: Part) -> list[Row]:
    """The rows of a part. Raises `BackupDamaged`, naming the pack, the table and the ids."""
    try:
        rows = read_rows(place.pack(part, envelope), table)
        _check(part, [row["id"] for row in rows])
        return rows
    except (Rotten, *UNREADABLE) as error:
        raise _lost(place, table.name, part, error) from error


def blobs_of(place: BackupPlace, envelope: Envelope, part: Part) -> list[Blob]:
    """The audio that a part names. Raises `BackupDamaged`."""
    try:
        rows = read_plain(place.pack(part, envelope), BLOB_TABLE, BLOB_COLUMNS)
        blobs = [Blob(*(row[name] for name in BLOB_COLUMNS)) for row in rows]
        _check(part, [blob.audio_id for blob in blobs])
        return blobs
    except (Rotten, *UNREADABLE) as error:
        raise _lost(place, BLOB_TABLE, part, error) from error


def read_blobs(place: BackupPlace, manifest: Manifest, envelope: Envelope) -> dict[int, Blob]:
    """The audio in a set by recording, as far as it can be read."""
    found: dict[int, Blob] = {}
    for part in manifest.blobs.parts:
        try:
            found.update((blob.audio_id, blob) for blob in blobs_of(place, envelope, part))
        except BackupDamaged:  # it is made anew
            continue
    return found


def unseen_rows(
    place: BackupPlace, envelope: Envelope, manifest: Manifest, table: Table, seen: set[str]
) -> Iterator[Row]:
    """The rows of a table in a set, without those in packs that were `seen`. Raises `BackupDamaged`."""
    cut = manifest.tables.get(table.name)
    for part in cut.parts if cut else ():
        if part.pack not in seen:
            yield from rows_of(place, envelope, table, part)
            seen.add(part.pack)


def graves_of(place: BackupPlace, envelope: Envelope, manifest: Manifest, seen: set[str]) -> Iterator[Row]:
    """The deletions that a set knows of, without those in packs that were `seen`. Raises `BackupDamaged`."""
    yield from unseen_rows(place, envelope, manifest, tombstones, seen)
    for row in manifest.deleted:
        yield row_of_json(tombstones, dict(row))


def _check(part: Part, ids: list[Any]) -> None:
    if len(ids) != part.rows or ids_hash(np.asarray(ids, "<i8")) != part.ids:
        raise ValueError("it does not have the rows that the set names")


def _lost(place: BackupPlace, table: str, part: Part, error: Exception) -> BackupDamaged:
    what = f"{part.rows} rows of {table} from id {part.start} on are lost"
    return place.damaged(pack_key(part.pack), f"{error}; {what}")
