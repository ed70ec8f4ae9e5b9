"""Passages: the units that are embedded and searched, kept in step with the full text."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, RowMapping, func, select

from audio_storage_system.catalogue import fulltext
from audio_storage_system.database.bulk import insert_all
from audio_storage_system.database.tables import passages
from audio_storage_system.records import Passage


def add(
    connection: Connection,
    rows: Sequence[Passage],
    *,
    transcript_id: int,
    audio_id: int,
    owner_id: int,
    language: str | None,
) -> list[int]:
    """New passages of a transcript, findable by their words at once; their ids."""
    base = {"transcript_id": transcript_id, "audio_file_id": audio_id, "owner_id": owner_id}
    ids = insert_all(connection, passages, [{**base, **_row(passage)} for passage in rows])
    fulltext.add(connection, [(id_, row.text, language) for id_, row in zip(ids, rows, strict=True)])
    return ids


def _row(passage: Passage) -> dict[str, object]:
    return {
        "sequence": passage.sequence,
        "first_segment_id": passage.first_segment_id,
        "last_segment_id": passage.last_segment_id,
        "start_seconds": passage.start,
        "end_seconds": passage.end,
        "text": passage.text,
    }


def of_transcript(connection: Connection, transcript_id: int) -> list[Passage]:
    """The passages of a version, in order."""
    query = select(passages).where(passages.c.transcript_id == transcript_id).order_by(passages.c.sequence)
    return [from_row(row) for row in connection.execute(query).mappings()]


def from_row(row: RowMapping) -> Passage:
    """A row of the table as a value."""
    return Passage(
        sequence=row["sequence"],
        first_segment_id=row["first_segment_id"],
        last_segment_id=row["last_segment_id"],
        start=row["start_seconds"],
        end=row["end_seconds"],
        text=row["text"],
        id=row["id"],
    )


def last_of(connection: Connection, transcript_id: int) -> tuple[int, int]:
    """How many passages a version has, and the id of the last segment they cover (0 when there are none)."""
    query = select(func.count(), func.coalesce(func.max(passages.c.last_segment_id), 0)).where(
        passages.c.transcript_id == transcript_id
    )
    count, segment_id = connection.execute(query).one()
    return count, segment_id
