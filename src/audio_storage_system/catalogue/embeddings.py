"""Embeddings and the spaces they live in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sqlalchemy import ColumnElement, Connection, RowMapping, and_, bindparam, func, insert, select, true, update

from audio_storage_system.catalogue import changes, trash
from audio_storage_system.catalogue.limits import Limit
from audio_storage_system.catalogue.passages import from_row
from audio_storage_system.catalogue.transcripts import searched
from audio_storage_system.database.bulk import insert_all
from audio_storage_system.database.queries import among, given
from audio_storage_system.database.tables import embedding_spaces, embeddings, passages, transcripts
from audio_storage_system.errors import InvalidVector, NotFound
from audio_storage_system.records import EmbeddingKind, Passage, Space, Span

LITTLE_ENDIAN_FLOAT32 = np.dtype("<f4")

_PASSAGE_VECTORS = select(embeddings.c.passage_id, embeddings.c.embedding_data).where(
    embeddings.c.space_id == bindparam("space"), among(embeddings.c.passage_id)
)
_KNOWN = select(embeddings.c.passage_id).where(
    embeddings.c.space_id == bindparam("space"), among(embeddings.c.passage_id)
)
_PENDING = (
    select(passages)
    .select_from(
        passages.outerjoin(
            embeddings, and_(embeddings.c.passage_id == passages.c.id, embeddings.c.space_id == bindparam("space"))
        )
    )
    .where(passages.c.transcript_id == bindparam("transcript"), embeddings.c.id.is_(None))
    .order_by(passages.c.sequence)
)
_PASSAGES_OF = select(embeddings.c.id, embeddings.c.passage_id).where(
    among(embeddings.c.id), embeddings.c.passage_id.is_not(None)
)


@dataclass(frozen=True, slots=True)
class NewEmbedding:
    """A unit vector of a passage, or of a window of the recording where `passage_id` is `None`."""

    span: Span
    passage_id: int | None
    vector: npt.NDArray[np.float32]


def to_blob(vector: npt.NDArray[np.float32]) -> bytes:
    """A vector as it is stored: little-endian float32."""
    return np.ascontiguousarray(vector, dtype=LITTLE_ENDIAN_FLOAT32).tobytes()


def from_blob(data: bytes) -> npt.NDArray[np.float32]:
    """A stored vector."""
    return np.frombuffer(data, dtype=LITTLE_ENDIAN_FLOAT32).astype(np.float32, copy=False)


def open_space(
    connection: Connection, kind: EmbeddingKind, *, model: str, dimension: int, spec: str, activate: bool
) -> Space:
    """The space of this kind, model and dimension, made when new; with `activate` it becomes the kind's active one."""
    table = embedding_spaces
    same = and_(table.c.kind == kind.value, table.c.model == model, table.c.dimension == dimension)
    if connection.execute(select(table.c.id).where(same)).scalar() is None:
        row = {"kind": kind.value, "model": model, "dimension": dimension, "spec": spec, "active": False}
        connection.execute(insert(table), row)
    if activate:
        others = and_(table.c.kind == kind.value, table.c.active == true())
        connection.execute(update(table).where(others).values(active=False))
        connection.execute(update(table).where(same).values(active=True))
    return _space(connection.execute(select(table).where(same)).mappings().one())


def activate(connection: Connection, space: Space) -> None:
    """Make this the active space of its kind."""
    table = embedding_spaces.c
    others = and_(table.kind == space.kind.value, table.active == true(), table.id != space.id)
    connection.execute(update(embedding_spaces).where(others).values(active=False))
    connection.execute(update(embedding_spaces).where(table.id == space.id).values(active=True))


def must_exist(connection: Connection, space: Space) -> None:
    """Raise `NotFound` for a space that was freed; until the transaction ends nobody frees it."""
    one = select(embedding_spaces.c.id).where(embedding_spaces.c.id == space.id)
    if connection.execute(one.with_for_update(read=True, key_share=True)).scalar() is None:
        raise NotFound(kind="embedding space", id=space.model)


def spaces(connection: Connection) -> list[Space]:
    """Every space, the oldest first."""
    query = select(embedding_spaces).order_by(embedding_spaces.c.id)
    return [_space(row) for row in connection.execute(query).mappings()]


def active_space(connection: Connection, kind: EmbeddingKind) -> Space:
    """The space that new embeddings of this kind go to and searches use. Raises `NotFound`."""
    for space in spaces(connection):
        if space.kind is kind and space.active:
            return space
    raise NotFound(kind="active embedding space", id=kind.value)


def pending_passages(connection: Connection, transcript_id: int, space: Space) -> list[Passage]:
    """The passages of a version that have no vector in `space` yet, in order."""
    pending = connection.execute(_PENDING, {"space": space.id, "transcript": transcript_id})
    return [from_row(row) for row in pending.mappings()]


def add(
    connection: Connection, space: Space, rows: Sequence[NewEmbedding], *, audio_id: int, transcript_id: int | None
) -> list[int]:
    """Keep these vectors; what another process embedded in the meantime is left as it is. The new ids.

    Raises `InvalidVector` for a vector of another dimension, and `NotFound` for a space that was freed meanwhile.
    """
    must_exist(connection, space)
    passages_known = _passages_known(connection, space, rows)
    windows_known = window_starts(connection, audio_id, space) if any(row.passage_id is None for row in rows) else set()
    kept = [
        _row(space, row, audio_id, transcript_id)
        for row in rows
        if (row.span.start not in windows_known if row.passage_id is None else row.passage_id not in passages_known)
    ]
    ids = insert_all(connection, embeddings, kept)
    changes.log(connection, embeddings, ids, "insert")
    return ids


def _passages_known(connection: Connection, space: Space, rows: Sequence[NewEmbedding]) -> set[int | None]:
    """Those of their passages that have a vector in `space`."""
    ids = [row.passage_id for row in rows if row.passage_id is not None]
    return set(connection.execute(_KNOWN, {"space": space.id, **given(ids)}).scalars()) if ids else set()


def _row(space: Space, row: NewEmbedding, audio_id: int, transcript_id: int | None) -> dict[str, object]:
    if len(row.vector) != space.dimension:
        reason = f"it has {len(row.vector)} dimensions, the space has {space.dimension}"
        raise InvalidVector(model=space.model, reason=reason)
    return {
        "audio_file_id": audio_id,
        "transcript_id": transcript_id if row.passage_id is not None else None,
        "embedding_type": space.kind.value,
        "space_id": space.id,
        "passage_id": row.passage_id,
        "start_seconds": row.span.start,
        "end_seconds": row.span.end,
        "embedding_dimension": space.dimension,
        "model_name": space.model,
        "embedding_data": to_blob(row.vector),
    }


def passage_vectors(
    connection: Connection, space: Space, passage_ids: Sequence[int]
) -> dict[int, npt.NDArray[np.float32]]:
    """The vectors that these passages have in `space`, by passage id."""
    rows = connection.execute(_PASSAGE_VECTORS, {"space": space.id, **given(passage_ids)})
    return {passage_id: from_blob(data) for passage_id, data in rows}


def passages_of(connection: Connection, embedding_ids: Sequence[int]) -> dict[int, int]:
    """Which passage each of these embeddings belongs to; windows of non-speech are left out."""
    return {row.id: row.passage_id for row in connection.execute(_PASSAGES_OF, given(embedding_ids))}


def window_starts(connection: Connection, audio_id: int, space: Space) -> set[float]:
    """Where the windows of a recording begin that have a vector of their own in `space`."""
    query = select(embeddings.c.start_seconds).where(
        embeddings.c.audio_file_id == audio_id, embeddings.c.space_id == space.id, embeddings.c.passage_id.is_(None)
    )
    return set(connection.execute(query).scalars())


def missing_in(connection: Connection, space: Space, access: Limit | None = None) -> int:
    """How many passages of the versions that search follows have no vector in `space`, of those `access` may see and
    not of what is in the trash."""
    if access is None:
        total = int(connection.execute(select(func.count()).select_from(passages)).scalar_one())
        if count(connection, space) == total:  # the usual case, found out without looking at each
            return 0
    of_version = and_(
        embeddings.c.space_id == space.id,
        embeddings.c.audio_file_id == transcripts.c.audio_file_id,
        embeddings.c.transcript_id == transcripts.c.id,
    )
    said = select(func.count()).where(passages.c.transcript_id == transcripts.c.id).scalar_subquery()
    there = select(func.count()).where(of_version).scalar_subquery()
    missing = select(func.coalesce(func.sum(said - there), 0)).select_from(transcripts).where(searched())
    missing = missing.where(*trash.hiding(connection, transcripts.c.audio_file_id))
    if access is not None:
        missing = missing.where(transcripts.c.audio_file_id.in_(access.recordings()))
    return int(connection.execute(missing).scalar_one())


def of_transcript(connection: Connection, transcript_id: int) -> list[npt.NDArray[np.float32]]:
    """The vectors of a version's passages in the active text space, in order."""
    query = (
        select(embeddings.c.embedding_data)
        .join(embedding_spaces, embedding_spaces.c.id == embeddings.c.space_id)
        .join(passages, passages.c.id == embeddings.c.passage_id)
        .where(
            embeddings.c.transcript_id == transcript_id,
            embeddings.c.embedding_type == EmbeddingKind.TRANSCRIPT.value,
            embedding_spaces.c.active == true(),
        )
        .order_by(passages.c.sequence)
    )
    return [from_blob(data) for data in connection.execute(query).scalars()]


def count(connection: Connection, space: Space, *conditions: ColumnElement[bool]) -> int:
    """How many vectors `space` has, of those that meet the conditions."""
    query = select(func.count()).select_from(embeddings).where(embeddings.c.space_id == space.id, *conditions)
    return int(connection.execute(query).scalar_one())


def _space(row: RowMapping) -> Space:
    return Space(row["id"], EmbeddingKind(row["kind"]), row["model"], row["dimension"], row["active"], row["spec"])
