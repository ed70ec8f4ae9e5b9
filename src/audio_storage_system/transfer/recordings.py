"""Recordings: the bytes first, then the row with its metadata."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Connection, Table, delete, insert, select

from audio_storage_system.blobs import BlobStore
from audio_storage_system.catalogue import changes, data_keys, locks
from audio_storage_system.catalogue.recordings import AUDIO_REMOVED, RECORDING, STORED
from audio_storage_system.database.queries import within
from audio_storage_system.database.sequences import advance
from audio_storage_system.database.tables import audio_files, metadata, trash
from audio_storage_system.errors import ArchiveMismatch, NotFound, SealBroken
from audio_storage_system.transfer.audio import Brought, bring
from audio_storage_system.transfer.pair import DESCRIBING, Pair, buried_among, same_ids
from audio_storage_system.transfer.report import CopyProblem
from audio_storage_system.transfer.rows import Row, absent, present, put, read_rows, renew

# Recordings per transaction, and compared at a time; files on their way at a time, each with a megabyte in memory.
BATCH, WINDOW, FILES = 32, 5_000, 4


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
    with ThreadPoolExecutor(FILES, "copy") as pool:
        for found in _compare(pair):
            ids = sorted([*found.missing, *found.changed])
            for start in range(0, len(ids), BATCH):
                _copy_batch(pair, pool, ids[start : start + BATCH])
                pair.tell("recordings")
        for audio_ids in _otherwise_described(pair):
            for start in range(0, len(audio_ids), BATCH):
                _copy_batch(pair, pool, audio_ids[start : start + BATCH])


def _otherwise_described(pair: Pair) -> Iterator[list[int]]:
    """The recordings whose metadata was changed past the code that notes when: by SQL of the user's own."""
    last = pair.upto[audio_files.name]
    if same_ids(pair, metadata):
        return
    for after in range(0, last, WINDOW):
        with pair.source.database.read() as connection:
            there = _metadata_ids(connection, after, min(after + WINDOW, last))
        with pair.destination.database.read() as connection:
            here = _metadata_ids(connection, after, min(after + WINDOW, last))
            known = present(connection, audio_files, there.keys() | here.keys())
        yield sorted(audio_id for audio_id in known if there.get(audio_id) != here.get(audio_id))


def _metadata_ids(connection: Connection, after: int, upto: int) -> dict[int, list[int]]:
    owner, found = metadata.c.audio_file_id, dict[int, list[int]]()
    query = select(owner, metadata.c.id).where(owner > after, owner <= upto).order_by(metadata.c.id)
    for audio_id, id_ in connection.execute(query):
        found.setdefault(audio_id, []).append(id_)
    return found


def unfinished(connection: Connection) -> set[int]:
    """The recordings whose sound is still coming in: they are copied when it is there."""
    coming = select(audio_files.c.id).where(audio_files.c.status == RECORDING)
    return set(connection.execute(coming).scalars())


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
            if row["status"] == STORED and (reason := _damage(pair, row)) is not None:
                pair.problems[row["id"]] = CopyProblem(row["id"], row["file_path"], reason)
            pair.tell("verifying")


def _damage(pair: Pair, row: Row) -> str | None:
    try:
        found = pair.destination.blobs.describe(row["file_path"])
    except NotFound:
        return "its file is missing at the destination"
    except SealBroken as error:
        return f"its file at the destination is damaged: {error.message}"
    pair.verified += 1
    same = pair.destination.blobs.fingerprint(found.sha256) == row["file_hash"]
    return None if same else "its file at the destination is damaged"


def _compare(pair: Pair) -> Iterator[_Difference]:
    after, last = 0, pair.upto[audio_files.name]
    while after < last:
        with pair.source.database.read() as connection:
            there = _outlines(connection, after, last, WINDOW)
        end = max(there) if len(there) == WINDOW else last
        there = {id_: row for id_, row in there.items() if row["status"] != RECORDING}  # they are no recordings yet
        with pair.destination.database.read() as connection:
            here, buried = _outlines(connection, after, end, None), buried_among(connection, there)
        yield _difference(pair, there, here, buried)
        after = end


def _outlines(connection: Connection, after: int, upto: int, limit: int | None) -> dict[int, Row]:
    table = audio_files.c
    columns = (
        table.id,
        table.owner_id,
        table.file_hash,
        table.file_path,
        table.file_size,
        table.updated_at,
        table.status,
    )
    query = select(*columns).where(table.id > after, table.id <= upto).order_by(table.id).limit(limit)
    return {row["id"]: dict(row) for row in connection.execute(query).mappings()}


def _difference(pair: Pair, there: dict[int, Row], here: dict[int, Row], buried: set[int]) -> _Difference:
    both = there.keys() & here.keys()
    for audio_id in both:
        if not _is_same(pair, there[audio_id], here[audio_id]):
            reason = f"its recording {audio_id} is another than that of the source: both were written to since the copy"
            raise ArchiveMismatch(place=pair.destination.database.place, reason=reason)
    missing = {id_: there[id_]["file_size"] or 0 for id_ in there if id_ not in here and id_ not in buried}
    return _Difference(missing, [id_ for id_ in both if there[id_]["updated_at"] != here[id_]["updated_at"]])


def _is_same(pair: Pair, there: Row, here: Row) -> bool:
    """Whether both are one recording, as far as rows tell: an encrypted archive's hashes are like no other's, and only
    what is readable can be told in its terms."""
    if any(there[name] != here[name] for name in ("owner_id", "file_path", "file_size")):
        return False
    return pair.source.sealed or pair.destination.blobs.fingerprint(there["file_hash"]) == here["file_hash"]


def _copy_batch(pair: Pair, pool: ThreadPoolExecutor, ids: Sequence[int]) -> None:
    with pair.source.database.read() as connection:
        rows, values = read_rows(connection, audio_files, ids), {t: _values_of(connection, t, ids) for t in DESCRIBING}
        thrown = _values_of(connection, trash, ids)
    with pair.destination.database.read() as connection:
        new, hashes = absent(connection, audio_files, rows), _hashes(connection, ids)
    sounding = [row for row in new if row["status"] != AUDIO_REMOVED]
    all_brought = list(pool.map(partial(bring, pair), sounding))
    lacking = {brought.audio_id for brought in all_brought if not _note(pair, brought)}
    hashes |= {brought.audio_id: brought.file_hash for brought in all_brought}
    hashes = {row["id"]: row["file_hash"] for row in rows if row["status"] == AUDIO_REMOVED} | hashes
    rows = [{**row, "file_hash": hashes[row["id"]]} for row in rows if row["id"] not in lacking]
    keys = {row["file_path"] for row in sounding if row["id"] not in lacking}
    with pair.destination.database.write(locks.COPYING, *map(locks.of_blob, keys)) as connection:
        kept = _still_wanted(connection, pair.destination.blobs, rows, keys)
        pair.copied[audio_files.name] += _write(connection, kept)
        for table, found in values.items():
            pair.copied[table.name] += _describe(connection, table, kept, found)
        _describe(connection, trash, kept, thrown)  # from the beginning: nobody may find them meanwhile
        for brought in all_brought:
            if brought.audio_id in kept:
                data_keys.bind(connection, brought.blob_id, brought.key)
        for audio_id in kept:
            pair.destination.audit.note(connection, "recording.copied", audio_id)


def _hashes(connection: Connection, audio_ids: Sequence[int]) -> dict[int, str]:
    query = select(audio_files.c.id, audio_files.c.file_hash).where(within(audio_files.c.id, audio_ids))
    return {row[0]: row[1] for row in connection.execute(query)}


def _note(pair: Pair, brought: Brought) -> bool:
    """Count what became of a recording's bytes; whether they are there."""
    pair.problems.pop(brought.audio_id, None)
    if brought.problem is not None:
        pair.problems[brought.audio_id] = CopyProblem(brought.audio_id, brought.key, brought.problem)
    if brought.sent is not None:
        pair.blobs += 1
        pair.bytes += brought.sent
    pair.verified += brought.there
    pair.tell("recordings")
    return brought.there


def _values_of(connection: Connection, table: Table, audio_ids: Sequence[int]) -> list[Row]:
    query = select(table).where(within(table.c.audio_file_id, audio_ids)).order_by(table.c.id)
    return [dict(row) for row in connection.execute(query).mappings()]


def _still_wanted(connection: Connection, blobs: BlobStore, rows: list[Row], new: set[str]) -> dict[int, Row]:
    """Those not deleted here meanwhile, and whose new blobs are there: the locks make this look final."""
    buried = buried_among(connection, (row["id"] for row in rows))
    kept = [row for row in rows if row["id"] not in buried]
    return {row["id"]: row for row in kept if row["file_path"] not in new or blobs.has(row["file_path"])}


def _write(connection: Connection, rows: dict[int, Row]) -> int:
    """Enter the rows that are new, and bring the others up to date; how many were new. Sound that is here goes with its
    deletion alone, which a legal hold may forbid."""
    there = present(connection, audio_files, rows)
    put(connection, audio_files, [row for id_, row in rows.items() if id_ not in there])
    kept = ({name: value for name, value in rows[audio_id].items() if name != "status"} for audio_id in there)
    renew(connection, audio_files, list(kept))
    changes.log(connection, audio_files, sorted(rows.keys() - there), "insert")
    changes.log(connection, audio_files, sorted(there), "update")
    return len(rows.keys() - there)


def _describe(connection: Connection, table: Table, rows: dict[int, Row], found: list[Row]) -> int:
    """Have these recordings described by those of the values found that are theirs, and nothing else; how many."""
    values = [value for value in found if value["audio_file_id"] in rows]
    connection.execute(delete(table).where(within(table.c.audio_file_id, rows)))
    if values:
        connection.execute(insert(table), values)
        advance(connection, table)
    return len(values)
