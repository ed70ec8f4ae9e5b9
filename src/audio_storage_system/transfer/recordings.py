"""Recordings: the bytes first, then the row with its metadata."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select, update

from audio_storage_system.blobs import BlobStore, StagedBlob
from audio_storage_system.catalogue import changes, locks
from audio_storage_system.database.queries import within
from audio_storage_system.database.sequences import advance
from audio_storage_system.database.tables import audio_files, metadata
from audio_storage_system.errors import ArchiveMismatch, InvalidInput, NotFound
from audio_storage_system.transfer.pair import Pair, buried_among
from audio_storage_system.transfer.report import CopyProblem
from audio_storage_system.transfer.rows import Row, absent, present, put, read_rows

# Recordings per transaction, and compared at a time.
BATCH, WINDOW = 32, 5_000


@dataclass(frozen=True, slots=True)
class _Difference:
    """Recordings that the destination lacks, with the bytes of their audio, and those that changed since."""

    missing: dict[int, int]
    changed: list[int]


def measure(pair: Pair) -> None:
    """Find out how much there is to copy. Raises `ArchiveMismatch` where one id means two recordings."""
    sizes = [size for found in _compare(pair) for size in found.missing.values()]
    pair.of_recordings, pair.of_bytes = len(sizes), sum(sizes)


def copy_recordings(pair: Pair) -> None:
    """Copy the recordings that the destination lacks, and what changed of the others."""
    for found in _compare(pair):
        ids = sorted([*found.missing, *found.changed])
        for start in range(0, len(ids), BATCH):
            _copy_batch(pair, ids[start : start + BATCH])
            pair.tell("recordings")


def read_back(pair: Pair) -> None:
    """Compare all audio at the destination with its hashes."""
    after = 0
    while True:
        with pair.destination.database.read() as connection:
            rows = _outlines(connection, after, pair.upto[audio_files.name], WINDOW)
        if not rows:
            return
        after = max(rows)
        for row in rows.values():
            if (reason := _damage(pair, row)) is not None:
                pair.problems[row["id"]] = CopyProblem(row["id"], row["file_path"], reason)
            pair.tell("verifying")


def _damage(pair: Pair, row: Row) -> str | None:
    try:
        found = pair.destination.blobs.describe(row["file_path"])
    except NotFound:
        return "its file is missing at the destination"
    pair.verified += 1
    return None if found.sha256 == row["file_hash"] else "its file at the destination is damaged"


def _compare(pair: Pair) -> Iterator[_Difference]:
    after, last = 0, pair.upto[audio_files.name]
    while after < last:
        with pair.source.database.read() as connection:
            there = _outlines(connection, after, last, WINDOW)
        end = max(there) if len(there) == WINDOW else last
        with pair.destination.database.read() as connection:
            here, buried = _outlines(connection, after, end, None), buried_among(connection, there)
        yield _difference(pair, there, here, buried)
        after = end


def _outlines(connection: Connection, after: int, upto: int, limit: int | None) -> dict[int, Row]:
    table = audio_files.c
    columns = (table.id, table.owner_id, table.file_hash, table.file_path, table.file_size, table.updated_at)
    query = select(*columns).where(table.id > after, table.id <= upto).order_by(table.id).limit(limit)
    return {row["id"]: dict(row) for row in connection.execute(query).mappings()}


def _difference(pair: Pair, there: dict[int, Row], here: dict[int, Row], buried: set[int]) -> _Difference:
    both = there.keys() & here.keys()
    for audio_id in both:
        if any(there[audio_id][name] != here[audio_id][name] for name in ("owner_id", "file_hash", "file_path")):
            reason = f"its recording {audio_id} is another than that of the source: both were written to since the copy"
            raise ArchiveMismatch(place=pair.destination.database.place, reason=reason)
    missing = {id_: there[id_]["file_size"] or 0 for id_ in there if id_ not in here and id_ not in buried}
    return _Difference(missing, [id_ for id_ in both if there[id_]["updated_at"] != here[id_]["updated_at"]])


def _copy_batch(pair: Pair, ids: Sequence[int]) -> None:
    with pair.source.database.read() as connection:
        rows, values = read_rows(connection, audio_files, ids), _values_of(connection, ids)
    with pair.destination.database.read() as connection:
        new = absent(connection, audio_files, rows)
    lacking = {row["id"] for row in new if not _bring(pair, row)}
    rows = [row for row in rows if row["id"] not in lacking]
    keys = [row["file_path"] for row in new if row["id"] not in lacking]
    with pair.destination.database.write(locks.COPYING, *map(locks.of_blob, keys)) as connection:
        kept = _still_wanted(connection, pair.destination.blobs, rows, set(keys))
        added = _write(connection, kept, [value for value in values if value["audio_file_id"] in kept])
    pair.copied[audio_files.name] += added
    pair.copied[metadata.name] += sum(value["audio_file_id"] in kept for value in values)


def _values_of(connection: Connection, audio_ids: Sequence[int]) -> list[Row]:
    query = select(metadata).where(within(metadata.c.audio_file_id, audio_ids)).order_by(metadata.c.id)
    return [dict(row) for row in connection.execute(query).mappings()]


def _still_wanted(connection: Connection, blobs: BlobStore, rows: list[Row], new: set[str]) -> dict[int, Row]:
    """Those not deleted here meanwhile, and whose new blobs are there: the locks make this look final."""
    buried = buried_among(connection, (row["id"] for row in rows))
    kept = [row for row in rows if row["id"] not in buried]
    return {row["id"]: row for row in kept if row["file_path"] not in new or blobs.has(row["file_path"])}


def _write(connection: Connection, rows: dict[int, Row], values: list[Row]) -> int:
    """Enter the rows that are new, bring the others up to date, and replace the metadata of all; how many were new."""
    there = present(connection, audio_files, rows)
    put(connection, audio_files, [row for id_, row in rows.items() if id_ not in there])
    for audio_id in there:
        connection.execute(update(audio_files).where(audio_files.c.id == audio_id).values(rows[audio_id]))
    connection.execute(delete(metadata).where(within(metadata.c.audio_file_id, rows)))
    if values:
        connection.execute(insert(metadata), values)
        advance(connection, metadata)
    changes.log(connection, audio_files, sorted(rows.keys() - there), "insert")
    changes.log(connection, audio_files, sorted(there), "update")
    return len(rows.keys() - there)


def _bring(pair: Pair, row: Row) -> bool:
    """Have the recording's bytes at the destination, under the same key; whether they are there."""
    try:
        reason = _transfer(pair, row)
    except NotFound:
        reason = None if _is_gone(pair, row["id"]) else "its file is missing at the source"
        if reason is None:
            return False
    if reason is None:
        pair.problems.pop(row["id"], None)
        return True
    pair.problems[row["id"]] = CopyProblem(row["id"], row["file_path"], reason)
    return False


def _is_gone(pair: Pair, audio_id: int) -> bool:
    """Whether the recording was deleted at the source meanwhile."""
    with pair.source.database.read() as connection:
        return not present(connection, audio_files, [audio_id])


def _transfer(pair: Pair, row: Row) -> str | None:
    """Why the bytes cannot be copied; `None` when they are there. Raises `NotFound` where the source lacks them."""
    key, blobs = row["file_path"], pair.destination.blobs
    try:
        if not blobs.has(key):
            problem = _send(pair, row)
            if problem is not None:
                return problem
    except InvalidInput as error:  # a key that leads out of the archive: somebody else wrote this row
        return error.message
    found = blobs.describe(key)
    pair.verified += 1
    if found.sha256 != row["file_hash"]:
        return "the destination holds other bytes under this key"
    return None


def _send(pair: Pair, row: Row) -> str | None:
    """Copy the bytes, unless they are not what their hash says; why not, else `None`."""
    key = row["file_path"]
    with pair.source.blobs.open(key) as file:
        staged = pair.destination.blobs.stage(file)
    if staged.sha256 != row["file_hash"]:
        pair.destination.blobs.discard(staged)
        return f"its file at the source is damaged: the hash of its {staged.size:,} bytes is not the one stored"
    if _publish(pair, staged, key):
        pair.blobs += 1
        pair.bytes += staged.size
        pair.tell("recordings")
    return None


def _publish(pair: Pair, staged: StagedBlob, key: str) -> bool:
    """Give staged bytes this very key, unless it was taken meanwhile; whether they have it now."""
    blobs = pair.destination.blobs
    with pair.destination.database.write(locks.of_blob(key)):
        taken = blobs.has(key)
    if taken:
        blobs.discard(staged)
        return False
    try:
        published = blobs.publish(staged, key)  # takes as long as the upload does, so not in the transaction
    except BaseException:
        blobs.discard(staged)
        raise
    if published != key:
        blobs.delete(published)
    return published == key
