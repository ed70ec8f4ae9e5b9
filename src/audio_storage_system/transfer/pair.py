"""The two archives of a copy, and what of their tables is where: by ids, in windows of bounded size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from sqlalchemy import Connection, Table, func, select

from audio_storage_system.archive import Archive, Original
from audio_storage_system.database import Database, tables
from audio_storage_system.database.queries import within
from audio_storage_system.database.sequences import last_given
from audio_storage_system.errors import ArchiveMismatch
from audio_storage_system.transfer.report import CopyProblem, CopyProgress, Progress

# In the order of their foreign keys.
GROWING = (
    tables.transcripts,
    tables.transcription_windows,
    tables.segments,
    tables.passages,
    tables.embeddings,
    tables.annotations,
)
# What is written anew with each change of a recording.
DESCRIBING = (tables.metadata, tables.metadata_history)
COPIED = (tables.principals, tables.embedding_spaces, tables.audio_files, *DESCRIBING, *GROWING)
DATED = (*COPIED, tables.audit_log, tables.backup_sets)
# Small, and edited in place: the destination has them as the source has them.
MIRRORED = (
    tables.memberships,
    tables.api_tokens,
    tables.metadata_schemas,
    tables.grants,
    tables.grant_conditions,
    tables.trash,
    tables.retention_rules,
    tables.legal_holds,
    tables.retention_runs,
)
# Ids compared at a time.
WINDOW = 50_000


@dataclass
class Pair:
    """A copy under way. `upto`: of each table the newest id at its beginning; later rows come with the next copy."""

    source: Original
    destination: Archive
    progress: Progress
    upto: dict[str, int] = field(default_factory=dict)
    copied: Counter[str] = field(default_factory=Counter)
    problems: dict[int, CopyProblem] = field(default_factory=dict)
    blobs: int = 0
    verified: int = 0
    bytes: int = 0
    of_recordings: int = 0
    of_bytes: int = 0
    deleted: int = 0

    def tell(self, stage: str) -> None:
        """Say how far it is."""
        rows, of = sum(self.copied.values()), (self.of_recordings, self.of_bytes)
        done = self.copied[tables.audio_files.name]
        self.progress(CopyProgress(stage, min(done, of[0]), of[0], min(self.bytes, of[1]), of[1], rows))


@dataclass(frozen=True, slots=True)
class Window:
    """Ids of one table: those that only the source has, and those that only the destination has."""

    missing: list[int]
    extra: list[int]


def newest(connection: Connection, table: Table) -> int:
    """The highest id; 0 in an empty table."""
    return int(connection.execute(select(func.coalesce(func.max(table.c.id), 0))).scalar_one())


def compare(pair: Pair, table: Table, upto: int) -> Iterator[Window]:
    """Where the ids up to `upto` differ, ascending; nothing where they are the same."""
    if same_ids(pair, table, upto):
        return
    after = 0
    while after < upto:
        there = _ids(pair.source.database, table, after, upto, WINDOW)
        last = there[-1] if len(there) == WINDOW else upto
        here = set(_ids(pair.destination.database, table, after, last, None))
        yield Window([id_ for id_ in there if id_ not in here], sorted(here.difference(there)))
        after = last


def refuse_own_rows(pair: Pair) -> None:
    """Raise `ArchiveMismatch` where the destination has recordings or transcripts that the source has never had."""
    for table in (tables.audio_files, tables.transcripts):
        with pair.destination.database.read() as connection:
            upto = newest(connection, table)
        for window in compare(pair, table, upto):
            refuse(pair, table, window.extra)


def refuse(pair: Pair, table: Table, extra: list[int]) -> None:
    """Raise `ArchiveMismatch` for rows that only the destination has, unless the source has them after all or has
    deleted their recordings by now."""
    if extra and (own := _never_there(pair, table, extra)):
        reason = (
            f"it was written to since it was copied: row {own[0]} of {table.name} is not of archive "
            f"{pair.source.marker.archive_id} at the source. Copy into an empty place instead"
        )
        raise ArchiveMismatch(place=pair.destination.database.place, reason=reason)


def freed_spaces(pair: Pair) -> set[int]:
    """The spaces of the destination that the source has freed: ids it has given once are of nothing else."""
    with pair.source.database.read() as connection:
        last = last_given(connection, tables.embedding_spaces)
        there = set(connection.execute(select(tables.embedding_spaces.c.id)).scalars())
    with pair.destination.database.read() as connection:
        here = set(connection.execute(select(tables.embedding_spaces.c.id)).scalars())
    return {id_ for id_ in here - there if id_ <= last}


def _in_use(pair: Pair, embedding_ids: list[int]) -> list[int]:
    """Those that are not of a space which the source has freed, or may be freeing."""
    space = tables.embedding_spaces.c
    with pair.source.database.read() as connection:
        idle = set(connection.execute(select(space.id).where(space.active.is_(False))).scalars())
    query = select(tables.embeddings.c.id).where(
        within(tables.embeddings.c.id, embedding_ids),
        ~within(tables.embeddings.c.space_id, idle | freed_spaces(pair)),
    )
    with pair.destination.database.read() as connection:
        return list(connection.execute(query).scalars())


def _never_there(pair: Pair, table: Table, extra: list[int]) -> list[int]:
    if table is tables.embeddings:
        extra = _in_use(pair, extra)
    audio_id = table.c.get("audio_file_id", table.c.id)
    if table.name in (tables.segments.name, tables.transcription_windows.name):
        owner = select(table.c.id, tables.transcripts.c.audio_file_id.label("audio_id")).join(tables.transcripts)
    else:
        owner = select(table.c.id, audio_id.label("audio_id"))
    with pair.destination.database.read() as connection:
        owners = {row.id: row.audio_id for row in connection.execute(owner.where(within(table.c.id, extra)))}
    with pair.source.database.read() as connection:
        there = set(connection.execute(select(table.c.id).where(within(table.c.id, extra))).scalars())
        buried = buried_among(connection, owners.values())
    stays = {*buried, *pair.problems}  # what a legal hold keeps here is not there any more
    return [id_ for id_, audio in owners.items() if id_ not in there and audio not in stays]


def buried_among(connection: Connection, audio_ids: object) -> set[int]:
    """Those of these recordings that were deleted."""
    known = tables.tombstones.c.audio_id
    ids: list[int] = list(audio_ids)  # type: ignore[call-overload]
    return set(connection.execute(select(known).where(within(known, ids))).scalars())


def same_ids(pair: Pair, table: Table, upto: int | None = None) -> bool:
    """Whether both sides have the same ids, as far as count, sum and maximum tell: one side only ever has ids that the
    other had before."""
    return _outline(pair.source.database, table, upto) == _outline(pair.destination.database, table, upto)


def _outline(database: Database, table: Table, upto: int | None) -> tuple[int, ...]:
    ids = table.c.id
    query = select(func.count(), func.coalesce(func.sum(ids), 0), func.coalesce(func.max(ids), 0))
    with database.read() as connection:
        return tuple(
            int(number) for number in connection.execute(query if upto is None else query.where(ids <= upto)).one()
        )


def _ids(database: Database, table: Table, after: int, upto: int, limit: int | None) -> list[int]:
    query = select(table.c.id).where(table.c.id > after, table.c.id <= upto).order_by(table.c.id).limit(limit)
    with database.read() as connection:
        return list(connection.execute(query).scalars())
