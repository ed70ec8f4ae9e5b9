"""What a space lacks, over the whole archive; and taking a space away. For making vectors anew with another embedder.

Passages are walked through by their ids, so that work which was cut short goes on, and several workers share it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sqlalchemy import ColumnElement, Connection, Row, Select, and_, delete, exists, func, select, union

from audio_storage_system.catalogue import changes
from audio_storage_system.catalogue.embeddings import NewEmbedding, add, count, from_blob, must_exist
from audio_storage_system.catalogue.recordings import STORED
from audio_storage_system.database.queries import within
from audio_storage_system.database.tables import audio_files, embedding_spaces, embeddings, index_cursors, passages
from audio_storage_system.errors import Conflict
from audio_storage_system.records import EmbeddingKind, Space, Span

SOME = 100

Vector = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Share:
    """Which part of the work one of several workers does: number `number` of `of`."""

    number: int = 0
    of: int = 1


ALL = Share()


class Lacking(NamedTuple):
    """A passage without a vector in some space."""

    id: int
    audio_id: int
    text: str


class Parts(NamedTuple):
    """A passage without a combined vector, and the two that it is made of."""

    id: int
    audio_id: int
    words: Vector
    sound: Vector


def lacking(connection: Connection, space: Space, after: int, limit: int, share: Share = ALL) -> list[Lacking]:
    """The next passages, by id, that have no vector in `space`."""
    query = select(passages.c.id, passages.c.audio_file_id, passages.c.text).where(
        passages.c.id > after, passages.c.id % share.of == share.number, ~_has(space)
    )
    return [Lacking(*row) for row in connection.execute(query.order_by(passages.c.id).limit(limit))]


def lacking_joined(
    connection: Connection, space: Space, parts: tuple[Space, Space], after: int, limit: int, share: Share = ALL
) -> list[Parts]:
    """The next passages that have a vector of each of the two parts, words and sound, and none in `space`."""
    words, sound = embeddings.alias(), embeddings.alias()
    query = (
        select(passages.c.id, passages.c.audio_file_id, words.c.embedding_data, sound.c.embedding_data)
        .join(words, and_(words.c.passage_id == passages.c.id, words.c.space_id == parts[0].id))
        .join(sound, and_(sound.c.passage_id == passages.c.id, sound.c.space_id == parts[1].id))
        .where(passages.c.id > after, passages.c.id % share.of == share.number, ~_has(space))
    )
    rows = connection.execute(query.order_by(passages.c.id).limit(limit)).all()
    return [Parts(row[0], row[1], from_blob(row[2]), from_blob(row[3])) for row in rows]


def recordings_lacking(connection: Connection, space: Space, after: int, limit: int, share: Share = ALL) -> list[int]:
    """The next recordings, by id, with a passage or a window of non-speech that `space` has no vector of."""
    said = select(passages.c.audio_file_id.label("id")).where(passages.c.audio_file_id > after, ~_has(space))
    heard = select(embeddings.c.audio_file_id.label("id")).where(
        embeddings.c.audio_file_id > after, *_window_elsewhere(space)
    )
    found = union(said, heard).subquery()
    mine = (found.c.id % share.of == share.number, _can_be_heard(found.c.id))
    query = select(found.c.id).where(*mine).order_by(found.c.id).limit(limit)
    return list(connection.execute(query).scalars())


def places_lacking(connection: Connection, space: Space, audio_id: int) -> list[tuple[Span, int | None]]:
    """The passages (with their id) and windows of a recording that `space` has no vector of, in order of time."""
    said = select(passages.c.start_seconds, passages.c.end_seconds, passages.c.id).where(
        passages.c.audio_file_id == audio_id, ~_has(space)
    )
    heard = select(embeddings.c.start_seconds, func.max(embeddings.c.end_seconds)).where(
        embeddings.c.audio_file_id == audio_id, *_window_elsewhere(space)
    )
    windows = connection.execute(heard.group_by(embeddings.c.start_seconds))
    places: list[tuple[Span, int | None]] = [(Span(start, end), None) for start, end in windows]
    places += [(Span(start, end), id_) for start, end, id_ in connection.execute(said)]
    return sorted(places, key=lambda place: (place[0].start, place[1] or 0))


def count_lacking(connection: Connection, space: Space, parts: tuple[Space, Space] | None = None) -> int:
    """How many vectors could still be made for `space`; `parts` as for `lacking_joined`."""
    if parts:
        return _count(connection, select(passages.c.id).where(~_has(space), *(_has(part) for part in parts)))
    missing = _count(connection, select(passages.c.id).where(~_has(space)))
    if space.kind is EmbeddingKind.AUDIO:
        windows = select(embeddings.c.audio_file_id, embeddings.c.start_seconds).where(*_window_elsewhere(space))
        missing += _count(connection, windows.distinct())
    return missing


def owed(connection: Connection, space: Space) -> list[int]:
    """The recordings that `space` owes vectors: of words for every passage, of sound for what has one in another space
    of the kind (a passage may have none where the file ends before it)."""
    if space.kind is not EmbeddingKind.AUDIO:
        if count(connection, space) == _count(connection, select(passages.c.id)):  # usually, and found out at once
            return []
        query = select(passages.c.audio_file_id).where(~_has(space)).distinct()
        return sorted(connection.execute(query).scalars())
    missing = (_elsewhere(space), ~_there(space), _can_be_heard(embeddings.c.audio_file_id))
    elsewhere = select(embeddings.c.audio_file_id).where(*missing).distinct()
    return sorted(connection.execute(elsewhere).scalars())


def owed_joined(connection: Connection, space: Space, parts: tuple[Space, Space]) -> list[int]:
    """Recordings with passages that have a vector of each of the two parts and none in `space`, a few of them."""
    heard = select(embeddings.c.id).where(embeddings.c.space_id == parts[1].id, embeddings.c.passage_id.is_not(None))
    if count(connection, space) == _count(connection, heard):  # each joined one has both: so none is missing
        return []
    return sorted({one.audio_id for one in lacking_joined(connection, space, parts, 0, SOME)})


def span_lacking(connection: Connection, space: Space | None) -> tuple[int, float]:
    """How many passages have no vector in `space` (`None`: it is not there yet), and how many seconds they last."""
    query = select(func.count(), func.coalesce(func.sum(passages.c.end_seconds - passages.c.start_seconds), 0.0))
    number, seconds = connection.execute(query.where(~_has(space)) if space else query).one()
    return int(number), float(seconds)


def keep(connection: Connection, space: Space, vectors: Mapping[int, Vector]) -> int:
    """Keep the vectors of passages, by passage id, of those that still exist and have none yet; how many. The caller
    holds the locks of their recordings."""
    must_exist(connection, space)
    made = 0
    for (audio_id, transcript_id), rows in _grouped(connection, vectors).items():
        new = [NewEmbedding(Span(row.start_seconds, row.end_seconds), row.id, vectors[row.id]) for row in rows]
        made += len(add(connection, space, new, audio_id=audio_id, transcript_id=transcript_id))
    return made


def delete_some(connection: Connection, space: Space, limit: int) -> int:
    """Delete up to `limit` vectors of `space`; how many. Raises `Conflict` for a space that is in use."""
    _refuse_in_use(connection, space)
    some = select(embeddings.c.id).where(embeddings.c.space_id == space.id).limit(limit)
    some = some.with_for_update(skip_locked=True)  # those of a recording that is being deleted go with it
    ids = list(connection.execute(some).scalars())
    connection.execute(delete(embeddings).where(within(embeddings.c.id, ids)))
    changes.log(connection, embeddings, ids, "delete")
    return len(ids)


def remove_space(connection: Connection, space: Space) -> bool:
    """Forget an empty space; false while it has vectors. Raises `Conflict` for one that is in use."""
    _refuse_in_use(connection, space)
    if connection.execute(select(embeddings.c.id).where(embeddings.c.space_id == space.id).limit(1)).first():
        return False
    connection.execute(delete(index_cursors).where(index_cursors.c.space_id == space.id))
    connection.execute(delete(embedding_spaces).where(embedding_spaces.c.id == space.id))
    return True


def recording_ids(connection: Connection, after: int, limit: int) -> list[int]:
    """The next recordings, by id."""
    query = select(audio_files.c.id).where(audio_files.c.id > after).order_by(audio_files.c.id).limit(limit)
    return list(connection.execute(query).scalars())


def _can_be_heard(audio_id: ColumnElement[int]) -> ColumnElement[bool]:
    """The sound of the recording is there: it was not removed, and is not still coming in."""
    return ~exists().where(audio_files.c.id == audio_id, audio_files.c.status != STORED)


def _has(space: Space) -> ColumnElement[bool]:
    """The passage has a vector in `space`."""
    found = embeddings.alias()
    return exists().where(found.c.passage_id == passages.c.id, found.c.space_id == space.id).correlate(passages)


def _elsewhere(space: Space) -> ColumnElement[bool]:
    return and_(embeddings.c.embedding_type == space.kind.value, embeddings.c.space_id != space.id)


def _there(space: Space) -> ColumnElement[bool]:
    """What an embedding of another space is of has a vector in `space` too."""
    found = embeddings.alias()
    passage = exists().where(found.c.passage_id == embeddings.c.passage_id, found.c.space_id == space.id)
    return (embeddings.c.passage_id.is_not(None) & passage.correlate(embeddings)) | _window_there(space)


def _window_there(space: Space) -> ColumnElement[bool]:
    found = embeddings.alias()
    window = exists().where(
        found.c.audio_file_id == embeddings.c.audio_file_id,
        found.c.start_seconds == embeddings.c.start_seconds,
        found.c.space_id == space.id,
        found.c.passage_id.is_(None),
    )
    return embeddings.c.passage_id.is_(None) & window.correlate(embeddings)


def _window_elsewhere(space: Space) -> tuple[ColumnElement[bool], ...]:
    """A window of non-speech of another space of the kind that `space` has no vector of."""
    return embeddings.c.passage_id.is_(None), _elsewhere(space), ~_window_there(space)


def _grouped(connection: Connection, wanted: Mapping[int, Vector]) -> dict[tuple[int, int], Sequence[Row[Any]]]:
    """The rows of those passages that exist, by recording and version."""
    found: dict[tuple[int, int], list[Row[Any]]] = {}
    for row in connection.execute(select(passages).where(within(passages.c.id, wanted))):
        found.setdefault((row.audio_file_id, row.transcript_id), []).append(row)
    return dict(found)


def _refuse_in_use(connection: Connection, space: Space) -> None:
    active = select(embedding_spaces.c.active).where(embedding_spaces.c.id == space.id).with_for_update()
    if connection.execute(active).scalar():
        raise Conflict(reason=f"The space of {space.model} is in use and cannot be freed")


def _count(connection: Connection, query: Select[Any]) -> int:
    return int(connection.execute(select(func.count()).select_from(query.subquery())).scalar_one())
