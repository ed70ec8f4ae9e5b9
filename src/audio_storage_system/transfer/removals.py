"""Deletions: what was deleted at the source is deleted at the destination before anything else, never the other way."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from sqlalchemy import Connection, func, insert, select

from audio_storage_system import deletion
from audio_storage_system.archive.sidecars import derived_keys, keys_of
from audio_storage_system.catalogue import locks
from audio_storage_system.database.queries import within
from audio_storage_system.database.sequences import advance
from audio_storage_system.database.tables import audio_files, removals, tombstones
from audio_storage_system.errors import NotFound, UnderLegalHold
from audio_storage_system.records import Stage
from audio_storage_system.transfer.pair import Pair, buried_among
from audio_storage_system.transfer.report import CopyProblem
from audio_storage_system.transfer.rows import Row

WINDOW = 5_000


def apply_deletions(pair: Pair) -> None:
    """Delete what the source has deleted, and bury what the destination never had, so that it never will."""
    after = 0
    while graves := _graves(pair, after):
        after = graves[-1]["id"]
        with pair.destination.database.read() as connection:
            known = buried_among(connection, [grave["audio_id"] for grave in graves])
            there = _existing(connection, [grave["audio_id"] for grave in graves])
        for grave in graves:
            pair.problems.pop(grave["audio_id"], None)
            if grave["audio_id"] in there:
                _delete(pair, grave["audio_id"])
            _bury(pair, [grave for grave in graves if grave["audio_id"] not in known | there])
    _apply_stages(pair)


def _apply_stages(pair: Pair) -> None:
    """Remove what the source has removed of recordings: what it has of them again comes with the copy."""
    after = 0
    while parts := _parts(pair, after):
        after = parts[-1]["id"]
        with pair.destination.database.read() as connection:
            there = _existing(connection, [part["audio_id"] for part in parts])
            mine = select(removals).where(within(removals.c.audio_id, there))
            known = {(row.audio_id, row.stage, row.removed_at) for row in connection.execute(mine)}
        for part in parts:
            if part["audio_id"] in there and (part["audio_id"], part["stage"], part["removed_at"]) not in known:
                _delete_stage(pair, part)


def _parts(pair: Pair, after: int) -> list[Row]:
    whole = removals.c.stage == Stage.RECORDING.value
    with pair.source.database.read() as connection:
        query = select(removals).where(removals.c.id > after, ~whole).order_by(removals.c.id).limit(WINDOW)
        return [dict(row) for row in connection.execute(query).mappings()]


def _delete_stage(pair: Pair, part: Row) -> None:
    archive, audio_id, stage = pair.destination, part["audio_id"], Stage(part["stage"])
    places, told = (archive.database, archive.blobs), {"rule": part["rule"], "at": part["removed_at"]}
    try:
        deletion.delete_stage(*places, audio_id, stage, partial(keys_of, stage), archive.audit, **told)
    except NotFound:  # another copy was faster
        return
    except UnderLegalHold as error:  # of this archive: it stays here until that is released
        pair.problems[audio_id] = CopyProblem(
            audio_id, "", f"its {stage} was deleted at the source, and stays: {error}"
        )


def kept_deleted(pair: Pair) -> set[int]:
    """The recordings of the source that were deleted at the destination."""
    with pair.destination.database.read() as connection:
        buried = list(connection.execute(select(tombstones.c.audio_id)).scalars())
    with pair.source.database.read() as connection:
        return _existing(connection, buried)


def _graves(pair: Pair, after: int) -> list[Row]:
    with pair.source.database.read() as connection:
        query = select(tombstones).where(tombstones.c.id > after).order_by(tombstones.c.id).limit(WINDOW)
        return [dict(row) for row in connection.execute(query).mappings()]


def _existing(connection: Connection, audio_ids: Sequence[int]) -> set[int]:
    return set(connection.execute(select(audio_files.c.id).where(within(audio_files.c.id, audio_ids))).scalars())


def _delete(pair: Pair, audio_id: int) -> None:
    try:
        deletion.delete_recording(
            pair.destination.database, pair.destination.blobs, audio_id, derived_keys, pair.destination.audit
        )
    except NotFound:  # another copy was faster
        return
    except UnderLegalHold as error:  # of this archive: it stays here until that is released
        pair.problems[audio_id] = CopyProblem(audio_id, "", f"it was deleted at the source, and stays: {error}")
        return
    pair.deleted += 1
    pair.copied[tombstones.name] += 1


def _bury(pair: Pair, graves: Sequence[Row]) -> None:
    """Note deletions of recordings that are not here. Of bytes that a copy cut short has brought, nothing stays."""
    if not graves:
        return
    blobs = pair.destination.blobs
    rows = [{**_translated(pair, grave), "completed": not blobs.has(grave["file_path"])} for grave in graves]
    with pair.destination.database.write(locks.COPYING) as connection:
        known = buried_among(connection, [row["audio_id"] for row in rows])
        if new := [row for row in rows if row["audio_id"] not in known]:
            connection.execute(insert(tombstones), new)
            advance(connection, tombstones)
            pair.copied[tombstones.name] += len(new)
    deletion.complete_deletions(pair.destination.database, blobs)


def _translated(pair: Pair, grave: Row) -> Row:
    """The row for the destination, with the hash that its catalogue would have; one of an encrypted archive stays."""
    row = {name: value for name, value in grave.items() if name != "id"}
    if not pair.source.sealed:
        row["file_hash"] = pair.destination.blobs.fingerprint(grave["file_hash"])
        row["receipt"] = {**grave["receipt"], "file_hash": row["file_hash"]}
    return row


def count(connection: Connection) -> int:
    """How many deletions are known."""
    return int(connection.execute(select(func.count()).select_from(tombstones)).scalar_one())
