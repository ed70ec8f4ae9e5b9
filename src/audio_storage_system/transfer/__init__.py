"""Moving: one archive copied into another place, on any backends, with proof.

Deletions first, then recordings (the bytes before the row), then what was said in them, table by table in the order of
the ids, each batch in a transaction of its own; last what changes in place. At any moment the destination is an archive
in order, and a copy that is cut short goes on where it was. Derived things are not copied: full text is made on the
way, vector indexes follow the change log of the destination.
"""

from __future__ import annotations

import logging
import os
import time
from contextlib import ExitStack
from functools import partial
from typing import Literal, get_args

from sqlalchemy import Connection, Table, func, select

from audio_storage_system import marker
from audio_storage_system.archive import Archive, Original, open_copy, open_original
from audio_storage_system.catalogue import embeddings as stored
from audio_storage_system.catalogue import locks
from audio_storage_system.database.queries import within
from audio_storage_system.database.sequences import advance_to, last_given
from audio_storage_system.database.tables import (
    audio_files,
    audit_log,
    embeddings,
    legal_holds,
    tombstones,
    transcripts,
)
from audio_storage_system.errors import InvalidInput, Unavailable
from audio_storage_system.keys import KeySource
from audio_storage_system.settings import Encryption, locate_apart
from audio_storage_system.transfer import recordings, removals, versions
from audio_storage_system.transfer.pair import (
    COPIED,
    DATED,
    DESCRIBING,
    GROWING,
    MIRRORED,
    Pair,
    newest,
    refuse_own_rows,
)
from audio_storage_system.transfer.protection import copy_protection, count_entries, count_own_holds
from audio_storage_system.transfer.report import CopyProblem, CopyProgress, CopyReport, Progress, TableCount
from audio_storage_system.transfer.rows import copy_rows

__all__ = ["CopyProblem", "CopyProgress", "CopyReport", "TableCount", "Verify", "copy_archive"]

logger = logging.getLogger(__name__)

Place = str | os.PathLike[str]
Verify = Literal["copied", "all"]
# How often a copy is repeated where the counts differ because the source is being written to.
ROUNDS = 3


def copy_archive(
    source: Place,
    destination: Place,
    *,
    verify: Verify = "copied",
    progress: Progress | None = None,
    encryption: bool | str | bytes | KeySource | None = None,
    accept_plaintext_catalogue: bool = False,
) -> CopyReport:
    """Copy an archive to another place: its catalogue, audio and embeddings, ids kept, whatever either is kept on.

    Each is a folder, a database's address, or an `audio-storage.toml`. The destination is empty, or an earlier copy,
    which then gets what is new, changed or deleted at the source since; what was deleted at the destination stays so.
    The source may be in use; nothing in it is changed. Cut short, the same call goes on.

    encryption, accept_plaintext_catalogue: make the destination an encrypted archive, see `AudioStorageSystem`.
    verify: `all` also reads back audio that earlier copies brought, besides what this one copies.

    Raises `ArchiveNotFound`, `ArchiveMismatch` where the destination is another archive or was written to, `Conflict`
    where both keep their audio in one place or the source is of an earlier version, `StorageFailed`.
    """
    if verify not in get_args(Verify):
        raise InvalidInput(reason=f'verify is "copied" or "all", not {verify!r}')
    protection = Encryption.of(encryption, audit=False, accept=accept_plaintext_catalogue)
    began = time.monotonic()
    with ExitStack() as opened:
        (source_home, source_named), (home, named) = locate_apart(source), locate_apart(destination)
        original = open_original(source_home, **source_named)
        opened.callback(original.close)
        furnish = partial(versions.furnish, _founding_rows(original))
        archive = open_copy(home, original, furnish, protection, **named)
        opened.callback(archive.close)
        return _copy(Pair(original, archive, progress or (lambda _: None)), verify, began)


def _founding_rows(original: Original) -> dict[str, list[dict[str, object]]]:
    with original.database.read() as connection:
        return versions.read_small(connection)


def _copy(pair: Pair, verify: Verify, began: float) -> CopyReport:
    with pair.source.database.read() as connection:
        pair.upto = {table.name: newest(connection, table) for table in DATED}
    removals.apply_deletions(pair)
    refuse_own_rows(pair)
    _advance(pair)
    recordings.measure(pair)
    if pair.of_recordings:
        marker.begin_filling(pair.destination.blobs)
    for _ in range(ROUNDS):
        _round(pair)
        counts = _counts(pair)
        if pair.problems or all(count.source == count.destination for count in counts.values()):
            break
    if verify == "all":
        recordings.read_back(pair)
    _finish(pair)
    return _report(pair, counts, began)


def _advance(pair: Pair) -> None:
    """Let the destination give no id that the source has ever given, also to what is deleted by now."""
    with pair.source.database.read() as connection:
        wanted = {table: last_given(connection, table) for table in COPIED}
    with pair.destination.database.read() as connection:
        behind = [table for table in COPIED if last_given(connection, table) < wanted[table]]
    if behind:
        with pair.destination.database.write(locks.COPYING) as connection:
            for table in behind:
                advance_to(connection, table, wanted[table])


def _round(pair: Pair) -> None:
    versions.copy_small(pair)
    recordings.copy_recordings(pair)
    for table in GROWING:
        copy_rows(pair, table)
    if versions.settle_spaces(pair):
        pair.destination.mark()
    versions.free_spaces(pair)
    versions.settle_transcripts(pair)
    copy_protection(pair)
    removals.apply_deletions(pair)


def _finish(pair: Pair) -> None:
    """Let blobs without a row be orphans again, and bring the vector index up to date: it would follow by itself, so
    that a vector database which is down makes no copy fail."""
    archive = pair.destination
    if marker.is_filling(archive.blobs):
        marker.end_filling(archive.blobs)
    try:
        if pair.copied[embeddings.name] or pair.deleted or _lags(archive):
            archive.follow()
    except Unavailable as error:
        logger.warning("The vector index could not follow yet: %s", error)


def _lags(archive: Archive) -> bool:
    """Whether an earlier copy was cut short before the index had followed it."""
    with archive.database.read() as connection:
        spaces = [space for space in stored.spaces(connection) if space.active]
    states = [archive.index.state(space) for space in spaces]
    return any(state.indexed < state.total for state in states)


def _counts(pair: Pair) -> dict[str, TableCount]:
    kept, graves = removals.kept_deleted(pair), tombstones.name
    with pair.source.database.read() as connection:
        aside = kept | recordings.unfinished(connection)
        source = {table.name: _count(connection, pair, table, aside) for table in COPIED}
        source |= {table.name: _count_mirrored(connection, table, aside) for table in MIRRORED}
        source[graves] = removals.count(connection)
        source[audit_log.name] = count_entries(pair, connection)
    with pair.destination.database.read() as connection:
        destination = {table.name: _count(connection, pair, table, set()) for table in COPIED}
        destination |= {table.name: _count_mirrored(connection, table, set()) for table in MIRRORED}
        destination[graves] = removals.count(connection) - len(kept)
        destination[audit_log.name] = count_entries(pair, connection)
    destination[legal_holds.name] -= count_own_holds(pair)
    return {name: TableCount(source[name], destination[name], pair.copied[name]) for name in source}


def _count(connection: Connection, pair: Pair, table: Table, without: set[int]) -> int:
    """The rows that were there when the copy began, without those of some recordings. Metadata is replaced by rows with
    new ids: what belongs to those recordings counts, and so does its history."""
    query = select(func.count()).select_from(table)
    if table in DESCRIBING:
        query = query.where(table.c.audio_file_id <= pair.upto[audio_files.name])
    else:
        query = query.where(table.c.id <= pair.upto[table.name])
    if without and table is audio_files:
        query = query.where(~within(table.c.id, without))
    elif without and "audio_file_id" in table.c:
        query = query.where(~within(table.c.audio_file_id, without))
    elif without and "transcript_id" in table.c:
        query = query.join(transcripts, transcripts.c.id == table.c.transcript_id)
        query = query.where(~within(transcripts.c.audio_file_id, without))
    return int(connection.execute(query).scalar_one())


def _count_mirrored(connection: Connection, table: Table, without: set[int]) -> int:
    """The rows, without those of some recordings. A grant on one recording has no conditions."""
    query = select(func.count()).select_from(table)
    if without and "audio_file_id" in table.c:
        owner = table.c.audio_file_id
        query = query.where(owner.is_(None) | ~within(owner, without))
    return int(connection.execute(query).scalar_one())


def _report(pair: Pair, counts: dict[str, TableCount], began: float) -> CopyReport:
    return CopyReport(
        archive_id=pair.source.marker.archive_id,
        source=pair.source.database.place,
        destination=pair.destination.database.place,
        tables=counts,
        blobs_copied=pair.blobs,
        bytes_copied=pair.bytes,
        blobs_verified=pair.verified,
        deleted=pair.deleted,
        kept_deleted=len(removals.kept_deleted(pair)),
        problems=sorted(pair.problems.values(), key=lambda problem: problem.audio_id),
        seconds=time.monotonic() - began,
    )
