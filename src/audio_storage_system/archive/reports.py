"""Numbers about an archive."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Table, func, select, true

from audio_storage_system.archive.opening import Archive
from audio_storage_system.catalogue import embeddings, fulltext, locks, trash
from audio_storage_system.database.tables import audio_files, passages, segments, tombstones, transcripts
from audio_storage_system.database.tables import embeddings as embedding_table
from audio_storage_system.database.tables import trash as trash_table
from audio_storage_system.vectors import IndexState


def stats(archive: Archive) -> dict[str, Any]:
    """How much there is: recordings, hours, bytes, transcripts by outcome and language, vectors by space. What is in
    the trash is not counted, save as `trashed`."""
    with archive.database.read() as connection:
        trashed = _count(connection, trash_table)
        outside = trash.outside if trashed else _anywhere
        size, seconds = connection.execute(
            select(
                func.coalesce(func.sum(audio_files.c.file_size), 0), func.coalesce(func.sum(audio_files.c.duration), 0)
            ).where(outside(audio_files.c.id))
        ).one()
        said = outside(transcripts.c.audio_file_id)
        return {
            "archive_id": archive.marker.archive_id,
            "home": str(archive.home),
            "recordings": _count(connection, audio_files, outside(audio_files.c.id)),
            "trashed": trashed,
            "hours": seconds / 3600,
            "bytes": int(size),
            "transcripts": _count(connection, transcripts, said),
            "segments": _count(connection, segments, *([_said_outside()] if trashed else [])),
            "passages": _count(connection, passages, outside(passages.c.audio_file_id)),
            "outcomes": _outcomes(connection, said),
            "languages": _by(connection, transcripts.c.language, said),
            "engines": _by(connection, transcripts.c.engine, said),
            "spaces": [
                {
                    "kind": space.kind.value,
                    "model": space.model,
                    "dimension": space.dimension,
                    "active": space.active,
                    "embeddings": embeddings.count(connection, space, outside(embedding_table.c.audio_file_id)),
                }
                for space in embeddings.spaces(connection)
            ],
        }


def known_hashes(archive: Archive) -> set[str]:
    """The hash of every file that the owner has stored, or had and deleted."""
    mine = select(audio_files.c.file_hash).where(audio_files.c.owner_id == archive.owner_id)
    with archive.database.read() as connection:
        stored, deleted = (
            connection.execute(mine).scalars(),
            connection.execute(select(tombstones.c.file_hash)).scalars(),
        )
        return {*stored, *deleted}


def reindex(archive: Archive) -> dict[str, IndexState]:
    """Make full text and vector indexes anew from the catalogue; the state of each space by `kind:model`."""
    with archive.database.write(locks.FULL_TEXT) as connection:
        fulltext.rebuild(connection, archive.settings.partition)
    with archive.database.read() as connection:
        spaces = embeddings.spaces(connection)
    return {f"{space.kind}:{space.model}": archive.index.rebuild(space) for space in spaces}


def _anywhere(audio_id: Column[int]) -> ColumnElement[bool]:
    return true()


def _said_outside() -> ColumnElement[bool]:
    """The condition on `segments` for those of recordings that are not in the trash."""
    hidden = select(transcripts.c.id).where(transcripts.c.audio_file_id.in_(trash.ids()))
    return segments.c.transcript_id.not_in(hidden)


def _count(connection: Connection, table: Table, *conditions: ColumnElement[bool]) -> int:
    return int(connection.execute(select(func.count()).select_from(table).where(*conditions)).scalar_one())


def _by(connection: Connection, column: Any, said: ColumnElement[bool]) -> dict[str, int]:
    """How many of the active versions there are of each value."""
    query = select(column, func.count()).where(transcripts.c.active == true(), said).group_by(column)
    return {str(value or "unknown"): count for value, count in connection.execute(query)}


def _outcomes(connection: Connection, said: ColumnElement[bool]) -> dict[str, int]:
    """How many versions ended in each way; unfinished ones count as `running`."""
    column = func.coalesce(transcripts.c.outcome, "running")
    rows = connection.execute(select(column, func.count()).where(said).group_by(column))
    return {row[0]: row[1] for row in rows}
