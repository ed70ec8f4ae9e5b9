"""Embedding: vectors for a transcript's passages, for how they sound, for both together, and for what is not speech."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from audio_storage_system.catalogue import embeddings, locks, recordings, transcripts
from audio_storage_system.catalogue.embeddings import NewEmbedding
from audio_storage_system.database import Database
from audio_storage_system.embedders import AudioEmbedder, TextEmbedder
from audio_storage_system.pipeline.batches import batches
from audio_storage_system.pipeline.sources import Source
from audio_storage_system.records import Passage, Space, Span
from audio_storage_system.spaces import CombinedEmbedder, Embedders, WeightedEmbedder

NON_SPEECH_SECONDS = 10.0
SHORTEST_NON_SPEECH_SECONDS = 1.0
PAIRS_AT_ONCE = 8  # their sound is in memory


def embed(
    database: Database,
    source: Source,
    embedders: Embedders,
    audio_id: int,
    transcript_id: int,
    made_some: Callable[[], None] = lambda: None,
) -> int:
    """Make every embedding of this version that does not exist yet; how many were made.

    `made_some` is called after each batch that is kept, and may raise to leave the rest for another time. Raises
    `InvalidVector`, `NotFound`, `EngineUnavailable`; what was made before stays.
    """
    work = _Work(database, audio_id, transcript_id, made_some)
    made = work.words(*embedders.text) if embedders.text else 0
    if embedders.audio:
        made += work.sound(source, *embedders.audio)
    if embedders.combined:
        space, combined = embedders.combined
        if isinstance(combined, WeightedEmbedder):
            made += work.joined(space, combined, embedders)
        else:
            made += work.both(source, space, combined)
    return made


@dataclass(frozen=True, slots=True)
class _Work:
    database: Database
    audio_id: int
    transcript_id: int
    made_some: Callable[[], None]

    def words(self, space: Space, embedder: TextEmbedder) -> int:
        made = 0
        for batch in batches(iter(self._pending(space)), embedder.max_batch):
            vectors = embedder.embed_batch([passage.text for passage in batch])
            made += self._keep(space, [_of_passage(p, v) for p, v in zip(batch, vectors, strict=True)])
        return made

    def sound(self, source: Source, space: Space, embedder: AudioEmbedder) -> int:
        places: list[tuple[Span, int | None]] = [(span, None) for span in self._non_speech(space)]
        places += [(Span(passage.start, passage.end), passage.id) for passage in self._pending(space)]
        places.sort(key=lambda place: place[0].start)
        made = 0
        for batch in batches(source.pieces([span for span, _ in places]), embedder.max_batch):
            vectors = embedder.embed_batch([samples for _, samples in batch])
            rows = [NewEmbedding(*places[number], v) for (number, _), v in zip(batch, vectors, strict=True)]
            made += self._keep(space, rows)
        return made

    def joined(self, space: Space, embedder: WeightedEmbedder, embedders: Embedders) -> int:
        """Combined vectors of the passages that have both of their parts."""
        if not (embedders.text and embedders.audio):
            return 0
        pending = self._pending(space)
        ids = [passage.id for passage in pending if passage.id is not None]
        with self.database.read() as connection:
            words = embeddings.passage_vectors(connection, embedders.text[0], ids)
            sounds = embeddings.passage_vectors(connection, embedders.audio[0], ids)
        whole = [(p, words[p.id], sounds[p.id]) for p in pending if p.id in words and p.id in sounds]
        if not whole:
            return 0
        passages, said, heard = zip(*whole, strict=True)
        vectors = embedder.join(np.stack(said), np.stack(heard))
        return self._keep(space, [_of_passage(p, v) for p, v in zip(passages, vectors, strict=True)])

    def both(self, source: Source, space: Space, embedder: CombinedEmbedder) -> int:
        pending = self._pending(space)
        made = 0
        for batch in batches(source.pieces([Span(p.start, p.end) for p in pending]), PAIRS_AT_ONCE):
            texts = [pending[number].text for number, _ in batch]
            vectors = embedder.embed_batch(texts, [samples for _, samples in batch])
            rows = [_of_passage(pending[number], v) for (number, _), v in zip(batch, vectors, strict=True)]
            made += self._keep(space, rows)
        return made

    def _pending(self, space: Space) -> list[Passage]:
        with self.database.read() as connection:
            return embeddings.pending_passages(connection, self.transcript_id, space)

    def _non_speech(self, space: Space) -> list[Span]:
        """The windows between the speech that have no vector yet."""
        with self.database.read() as connection:
            duration = recordings.duration_of(connection, self.audio_id)
            outcome = transcripts.outcome_of(connection, self.transcript_id)
            speech = transcripts.speech_spans(connection, self.transcript_id)
            known = embeddings.window_starts(connection, self.audio_id, space)
        if outcome is None or not outcome.succeeded:
            return []  # where nothing has been heard yet may still be speech
        return [span for span in non_speech_windows(speech, duration) if span.start not in known]

    def _keep(self, space: Space, rows: Sequence[NewEmbedding]) -> int:
        with self.database.write(locks.of_recording(self.audio_id)) as connection:
            recordings.must_exist(connection, self.audio_id)
            ids = embeddings.add(connection, space, rows, audio_id=self.audio_id, transcript_id=self.transcript_id)
        self.made_some()
        return len(ids)


def non_speech_windows(speech: Sequence[Span], duration: float) -> list[Span]:
    """Fixed windows of at most 10 s that cover what lies between the speech (ordered spans); shorter gaps than 1 s are
    left out."""
    edges = [0.0, *(edge for span in speech for edge in (span.start, span.end)), duration]
    gaps = [Span(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    return [window for gap in gaps for window in _split(gap)]


def _split(gap: Span) -> Iterator[Span]:
    start = gap.start
    while gap.end - start >= SHORTEST_NON_SPEECH_SECONDS:
        yield Span(round(start, 3), round(min(start + NON_SPEECH_SECONDS, gap.end), 3))
        start += NON_SPEECH_SECONDS


def _of_passage(passage: Passage, vector: npt.NDArray[np.float32]) -> NewEmbedding:
    return NewEmbedding(Span(passage.start, passage.end), passage.id, vector)
