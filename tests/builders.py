"""Archives filled without audio or models: rows as the pipeline writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np

from audio_storage_system.archive import Archive
from audio_storage_system.catalogue import embeddings, passages, recordings, transcripts
from audio_storage_system.catalogue.embeddings import NewEmbedding
from audio_storage_system.passages import Grouper
from audio_storage_system.records import AudioInfo, EmbeddingKind, Outcome, Passage, Segment, Space, Span

WAV = AudioInfo(60.0, 16_000, 1, "pcm_s16le", "audio/wav")


@dataclass(frozen=True)
class Talk:
    """One recording to be: what is said in it, one passage per text."""

    texts: Sequence[str]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    recorded_at: datetime = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
    language: str = "en"
    speakers: Sequence[str | None] = ()
    vectors: Sequence[np.ndarray[Any, Any]] = ()


def fill(archive: Archive, talks: Sequence[Talk], space: Space | None = None) -> list[int]:
    """Enter recordings with an active transcript each, in one transaction; their ids. Vectors go into `space`."""
    with archive.database.write() as connection:
        present = len(recordings.paths(connection))
        return [_enter(connection, talk, present, number, space) for number, talk in enumerate(talks)]


def _enter(connection: Any, talk: Talk, present: int, number: int, space: Space | None) -> int:
    audio_id = recordings.add(
        connection,
        owner_id=1,
        file_hash=f"hash-{present}-{number}",
        file_path=f"nowhere/{present}-{number}.wav",
        file_size=1,
        original_name=f"talk{present + number}.wav",
        info=WAV,
        recorded_at=talk.recorded_at,
        offset_minutes=None,
        values=talk.metadata,
    )
    transcript_id = say(connection, audio_id, talk, space)
    transcripts.activate(connection, transcript_id)
    return audio_id


def say(connection: Any, audio_id: int, talk: Talk, space: Space | None = None) -> int:
    """A finished version for a recording; its id."""
    transcript_id = transcripts.start(
        connection, audio_id, asked="base", engine="scripted", parameters={}, language=talk.language
    )
    speakers = [*talk.speakers, *[None] * len(talk.texts)]
    pieces = [
        Segment(10.0 * i, 10.0 * i + 9, text, speaker=speakers[i], confidence=0.9) for i, text in enumerate(talk.texts)
    ]
    kept = transcripts.commit_window(connection, transcript_id, 0, Span(0, 10.0 * len(pieces)), pieces, 0)
    transcripts.finish(connection, transcript_id, outcome=Outcome.OK, reason=None)
    closed = [_passage(segment, number) for number, segment in enumerate(kept)]
    ids = passages.add(
        connection, closed, transcript_id=transcript_id, audio_id=audio_id, owner_id=1, language=talk.language
    )
    if space is not None:
        rows = [
            NewEmbedding(Span(p.start, p.end), id_, vector)
            for p, id_, vector in zip(closed, ids, talk.vectors, strict=True)
        ]
        embeddings.add(connection, space, rows, audio_id=audio_id, transcript_id=transcript_id)
    return transcript_id


def _passage(segment: Segment, number: int) -> Passage:
    grouper = Grouper(sequence=number)
    [passage] = [*grouper.push([segment]), *grouper.finish()]
    return passage


def text_space(archive: Archive, dimension: int, model: str = "test") -> Space:
    """A text space with a dimension of the test's choosing, which becomes the active one."""
    with archive.database.write() as connection:
        return embeddings.open_space(
            connection, EmbeddingKind.TRANSCRIPT, model=model, dimension=dimension, spec="user:test", activate=True
        )


def unit(rng: np.random.Generator, dimension: int) -> np.ndarray[Any, Any]:
    """A random unit vector."""
    vector = rng.standard_normal(dimension)
    return (vector / np.linalg.norm(vector)).astype(np.float32)
