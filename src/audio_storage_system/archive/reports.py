"""Numbers about an archive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, FromClause, func, select, true

from audio_storage_system.access import Access
from audio_storage_system.archive.opening import Archive
from audio_storage_system.catalogue import embeddings, fulltext, locks, trash
from audio_storage_system.catalogue.recordings import RECORDING
from audio_storage_system.database import tables
from audio_storage_system.database.tables import audio_files, passages, segments, tombstones, transcripts
from audio_storage_system.records import Space
from audio_storage_system.vectors import IndexState


def stats(archive: Archive) -> dict[str, Any]:
    """How much there is, of what whoever asks may see: recordings, hours, bytes, transcripts by outcome and language,
    vectors by space. What is in the trash is not counted, save as `trashed`."""
    with archive.database.read() as connection:
        standing = archive.access.standing(connection) if archive.access.restricted else None
        thrown = connection.execute(trash.ids().limit(1)).first() is not None
        return _Counted(connection, standing or Access(), thrown).stats(archive)


def known_hashes(archive: Archive) -> set[str]:
    """The hash of every file that is stored or was deleted; for who does not see everything, of those they stored."""
    stored = select(audio_files.c.file_hash).where(audio_files.c.status != RECORDING)
    if archive.access.restricted:
        stored = stored.where(audio_files.c.owner_id == archive.owner_id)
    with archive.database.read() as connection:
        known = set(connection.execute(stored).scalars())
        buried = () if archive.access.restricted else connection.execute(select(tombstones.c.file_hash)).scalars()
        return {*known, *buried}


def reindex(archive: Archive) -> dict[str, IndexState]:
    """Make full text and vector indexes anew from the catalogue; the state of each space by `kind:model`."""
    archive.access.require_admin("make the indexes anew")
    with archive.database.write(locks.FULL_TEXT) as connection:
        fulltext.rebuild(connection, archive.settings.partition)
        archive.audit.note(connection, "archive.reindexed")
    with archive.database.read() as connection:
        spaces = embeddings.spaces(connection)
    return {f"{space.kind}:{space.model}": archive.index.rebuild(space) for space in spaces}


@dataclass(frozen=True, slots=True)
class _Counted:
    """Counts rows of the recordings that `access` may see and that are not in the trash. `thrown`: whether any is."""

    connection: Connection
    access: Access
    thrown: bool

    def stats(self, archive: Archive) -> dict[str, Any]:
        size, seconds = self.connection.execute(
            select(
                func.coalesce(func.sum(audio_files.c.file_size), 0), func.coalesce(func.sum(audio_files.c.duration), 0)
            ).where(*self._seen(audio_files.c.id))
        ).one()
        return {
            "archive_id": archive.marker.archive_id,
            "home": str(archive.home),
            "recordings": self._count(audio_files, audio_files.c.id),
            "trashed": self._trashed(),
            "hours": seconds / 3600,
            "bytes": int(size),
            "transcripts": self._count(transcripts, transcripts.c.audio_file_id),
            "segments": self._count(segments.join(transcripts), transcripts.c.audio_file_id)
            if self.access.restricted or self.thrown
            else self._count(segments),
            "passages": self._count(passages, passages.c.audio_file_id),
            "outcomes": self._outcomes(),
            "languages": self._by(transcripts.c.language),
            "engines": self._by(transcripts.c.engine),
            "spaces": [self._space(space) for space in embeddings.spaces(self.connection)],
        }

    def _seen(self, audio_id: Column[Any]) -> list[ColumnElement[bool]]:
        return [*self.access.only(audio_id), *([trash.outside(audio_id)] if self.thrown else [])]

    def _trashed(self) -> int:
        mine = self.access.only(tables.trash.c.audio_file_id)
        query = select(func.count()).select_from(tables.trash).where(*mine)
        return int(self.connection.execute(query).scalar_one())

    def _space(self, space: Space) -> dict[str, Any]:
        seen = self._seen(tables.embeddings.c.audio_file_id)
        return {
            "kind": space.kind.value,
            "model": space.model,
            "dimension": space.dimension,
            "active": space.active,
            "embeddings": embeddings.count(self.connection, space, *seen),
        }

    def _count(self, rows: FromClause, audio_id: Column[Any] | None = None) -> int:
        seen = [] if audio_id is None else self._seen(audio_id)
        return int(self.connection.execute(select(func.count()).select_from(rows).where(*seen)).scalar_one())

    def _by(self, column: Column[Any]) -> dict[str, int]:
        """How many of the active versions there are of each value."""
        active = transcripts.c.active == true(), *self._seen(transcripts.c.audio_file_id)
        query = select(column, func.count()).where(*active).group_by(column)
        return {str(value or "unknown"): count for value, count in self.connection.execute(query)}

    def _outcomes(self) -> dict[str, int]:
        """How many versions ended in each way; unfinished ones count as `running`."""
        column = func.coalesce(transcripts.c.outcome, "running")
        seen = self._seen(transcripts.c.audio_file_id)
        rows = self.connection.execute(select(column, func.count()).where(*seen).group_by(column))
        return {row[0]: row[1] for row in rows}
