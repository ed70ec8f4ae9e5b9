"""Embedding an archive anew with another embedder: a new space is filled beside the old one, and then takes its place.

Searches use the old space until the switch, which happens in one transaction and only when the new one lacks nothing.
Every step can be repeated: what was cut short, by `kill -9` too, goes on with what is still missing; several processes
may share the work.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from audio_storage_system.archive import processing, sidecars
from audio_storage_system.archive.opening import Archive
from audio_storage_system.catalogue import embeddings, locks, recordings, reembedding
from audio_storage_system.catalogue.embeddings import NewEmbedding
from audio_storage_system.catalogue.reembedding import ALL, Share
from audio_storage_system.errors import Conflict, InvalidInput, NotAudio, NotFound
from audio_storage_system.pipeline.batches import batches as in_batches
from audio_storage_system.records import EmbeddingKind, Space, Span
from audio_storage_system.spaces import Building

logger = logging.getLogger(__name__)

KINDS = (EmbeddingKind.TRANSCRIPT, EmbeddingKind.AUDIO)
# What one transaction keeps at most, and what a kill makes the next run do again; a batch of a server may be larger.
MOST_AT_ONCE = 512
JOINED_AT_ONCE = 1_000
FREED_AT_ONCE = 2_000
RECORDINGS_AT_ONCE = 100
# New vectors after which the index of the old space reads on: a search on it looks at all changes it has not read.
FOLLOW_AFTER = 20_000
MOST_NAMED = 5

Stage = str
Progress = Callable[[Stage, int, int], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What reembedding would do: `lacking` vectors of passages are to be made, of `seconds` of sound.

    before: the model in use. in_use: it is the same one, so that only gaps are filled. frees: the models of the spaces
    that are not used (any more), with the number of their vectors.
    """

    kind: str
    model: str
    before: str
    in_use: bool
    lacking: int
    seconds: float
    frees: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Reembedded:
    """What was done: `made` vectors; `switched`: searches use `model` now and used `before` until then; `freed` vectors
    by the model of their space."""

    kind: str
    model: str
    before: str
    made: int
    switched: bool
    freed: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def plan(archive: Archive, spec: str | None, kind: str) -> Plan:
    """What `run` would do. Raises as `begin` does; makes nothing, and loads no model."""
    kind = _kind(kind)
    embedder, _ = archive.spaces.named(kind, spec)
    with archive.database.read() as connection:
        known = embeddings.spaces(connection)
        before = embeddings.active_space(connection, kind)
        space = next((s for s in known if s.kind is kind and s.model == embedder.model), None)
        lacking, seconds = reembedding.span_lacking(connection, space)
        others = [s for s in known if s.kind is kind and s.model != embedder.model]
        frees = {s.model: embeddings.count(connection, s) for s in others}
    in_use = space is not None and space.id == before.id
    return Plan(kind.value, embedder.model, before.model, in_use, lacking, seconds, frees)


def run(archive: Archive, spec: str | None, kind: str, progress: Progress, *, drop_old: bool = False) -> Reembedded:
    """All of it: build, switch, and free what is not used any more if that is wanted."""
    with archive.database.read() as connection:
        before = embeddings.active_space(connection, _kind(kind)).model
    building = begin(archive, spec, kind)
    made = complete(archive, building, progress, settle=spec is not None)
    freed = {space.model: _freed(archive, space, progress) for space in (unused(archive, kind) if drop_old else ())}
    return Reembedded(building.space.kind.value, building.space.model, before, made, not building.in_use, freed)


def _freed(archive: Archive, space: Space, progress: Progress) -> int:
    done = 0
    for done, total in drop(archive, space):
        progress(f"freeing {space.model}", done, total)
    return done


def begin(archive: Archive, spec: str | None, kind: str) -> Building:
    """The space to build for the embedder that `spec` names (`None`: the one in use), made when it is new.

    Raises `InvalidInput` for another kind than transcript and audio, `UnknownSpec`, `MissingExtra`,
    `EngineUnavailable`, `EmbedderMissing`.
    """
    return archive.spaces.build(_kind(kind), spec)


def complete(archive: Archive, building: Building, progress: Progress, *, settle: bool = True) -> int:
    """Fill the space and put it in use; how many vectors were made. Raises `Conflict` where a recording cannot be read
    that has vectors in the old space, which then stays in use."""
    made = 0
    while True:
        now = _one_pass(archive, building, progress)
        made += now
        progress("indexing", made, made)
        index(archive, building)
        owing = switch(archive, building, settle=settle)
        if not owing or (building.in_use and not now):
            return made
        if not now:
            raise Conflict(reason=_told(building, owing))


def _one_pass(archive: Archive, building: Building, progress: Progress) -> int:
    counts: list[int] = []
    for done, total in batches(archive, building):
        progress("embedding", done, total)
        counts = [*counts[:1], done]
    return counts[-1] - counts[0]


def batches(archive: Archive, building: Building, share: Share = ALL) -> Iterator[tuple[int, int]]:
    """Make what the space lacks, batch by batch, and yield (done, total) before the first and after each; it may be
    left after any of them. With `share` only this worker's part of it.

    A recording that cannot be read is left out, and said in the log.
    """
    done, total = _measure(archive, building)
    yield done, total
    unseen = 0
    for made in _fill(archive, building, share):
        done, unseen = done + made, unseen + made
        if unseen >= FOLLOW_AFTER:
            unseen = 0
            _keep_up(archive, building)
        yield done, max(done, total)


def index(archive: Archive, building: Building) -> None:
    """Bring the vector index of the space up to date, so that searches are fast from the switch on."""
    for space in building.spaces:
        archive.index.catch_up(space)


def switch(archive: Archive, building: Building, *, settle: bool = True) -> list[int]:
    """Have searches and new recordings use the space, unless it still owes vectors: to these recordings.

    Checked and done in one transaction, while no passage can come or go. settle: a function that was assigned in this
    process is no longer used.
    """
    with archive.database.write(locks.SPACES) as connection:
        locks.hold_passages(connection)
        owing = reembedding.owed(connection, building.space)
        if building.combined and building.words and building.sound and not owing:
            parts = building.words, building.sound
            owing = reembedding.owed_joined(connection, building.combined[0], parts)
        if owing:
            return owing
        for space in building.spaces:
            embeddings.must_exist(connection, space)
            embeddings.activate(connection, space)
        space = building.space
        archive.audit.note(connection, "archive.reembedded", kind=space.kind.value, model=space.model)
    if settle:
        archive.spaces.settle(building.space.kind)
    archive.mark()
    archive.follow()
    _refresh_sidecars(archive)
    return []


def unused(archive: Archive, kind: str) -> list[Space]:
    """The spaces of this kind, and of combined vectors, that searches do not use."""
    of = (_kind(kind), EmbeddingKind.COMBINED)
    with archive.database.read() as connection:
        return [space for space in embeddings.spaces(connection) if space.kind in of and not space.active]


def drop(archive: Archive, space: Space) -> Iterator[tuple[int, int]]:
    """Free a space that is not in use, with its vectors and its index: batch by batch, (done, total) after each. What
    was cut short is taken up by calling it again. Raises `Conflict` for a space that is in use."""
    with archive.database.read() as connection:
        total = embeddings.count(connection, space)
    done, empty = 0, False
    archive.index.forget(space)
    while not empty:
        while count := _delete_some(archive, space):
            done += count
            yield done, max(done, total)
        archive.index.forget(space)  # another process may have followed it meanwhile
        with archive.database.write(locks.SPACES) as connection:
            if empty := reembedding.remove_space(connection, space):
                archive.audit.note(connection, "space.freed", kind=space.kind.value, model=space.model)
    archive.mark()
    archive.follow()


def _kind(kind: str) -> EmbeddingKind:
    if kind not in KINDS:
        raise InvalidInput(reason=f'There is no reembedding of "{kind}"; there are: {", ".join(KINDS)}')
    return EmbeddingKind(kind)


def _measure(archive: Archive, building: Building) -> tuple[int, int]:
    """How many vectors there are, and how many there will be."""
    with archive.database.read() as connection:
        there = sum(embeddings.count(connection, space) for space in building.spaces)
        lacking = reembedding.count_lacking(connection, building.space)
        both = lacking if building.combined else 0  # each vector of words or sound brings a combined one
    return there, there + lacking + both


def _fill(archive: Archive, building: Building, share: Share) -> Iterator[int]:
    if building.space.kind is EmbeddingKind.TRANSCRIPT:
        yield from _words(archive, building, share)
    else:
        yield from _sounds(archive, building, share)
    if building.combined:
        yield from _joined(archive, building, share)


def _words(archive: Archive, building: Building, share: Share) -> Iterator[int]:
    size, after = min(building.embedder.max_batch, MOST_AT_ONCE), 0
    while True:
        with archive.database.read() as connection:
            found = reembedding.lacking(connection, building.space, after, size, share)
        if not found:
            return
        vectors = building.embedder.embed_batch([passage.text for passage in found])
        after = found[-1].id
        pairs = {passage.id: vector for passage, vector in zip(found, vectors, strict=True)}
        yield _keep(archive, building.space, {passage.audio_id for passage in found}, pairs)


def _joined(archive: Archive, building: Building, share: Share) -> Iterator[int]:
    if not (building.combined and building.words and building.sound):
        return
    space, weighted = building.combined
    parts, after = (building.words, building.sound), 0
    while True:
        with archive.database.read() as connection:
            found = reembedding.lacking_joined(connection, space, parts, after, JOINED_AT_ONCE, share)
        if not found:
            return
        vectors = weighted.join(np.stack([one.words for one in found]), np.stack([one.sound for one in found]))
        after = found[-1].id
        pairs = {one.id: vector for one, vector in zip(found, vectors, strict=True)}
        yield _keep(archive, space, {one.audio_id for one in found}, pairs)


def _keep(archive: Archive, space: Space, audio_ids: set[int], vectors: dict[int, Any]) -> int:
    with archive.database.write(*map(locks.of_recording, audio_ids)) as connection:
        return reembedding.keep(connection, space, vectors)


def _sounds(archive: Archive, building: Building, share: Share) -> Iterator[int]:
    after = 0
    while True:
        with archive.database.read() as connection:
            found = reembedding.recordings_lacking(connection, building.space, after, RECORDINGS_AT_ONCE, share)
        if not found:
            return
        after = found[-1]
        for audio_id in found:
            try:
                yield from _sound(archive, building, audio_id)
            except (NotAudio, NotFound) as error:
                _check_still_there(archive, building.space, audio_id, error)


def _check_still_there(archive: Archive, space: Space, audio_id: int, error: Exception) -> None:
    """Say what is wrong with a recording, unless it was deleted meanwhile. Raises `NotFound` for a space that was."""
    with archive.database.read() as connection:
        known = {one.id for one in embeddings.spaces(connection)}
        there = recordings.exists(connection, audio_id)
    if space.id not in known:
        raise NotFound(kind="embedding space", id=space.model)
    if there:
        logger.warning("Recording %d cannot be read and gets no new vectors: %s", audio_id, error)


def _sound(archive: Archive, building: Building, audio_id: int) -> Iterator[int]:
    source = processing.source_of(archive, audio_id)
    with archive.database.read() as connection:
        places = reembedding.places_lacking(connection, building.space, audio_id)
    for batch in in_batches(source.pieces([span for span, _ in places]), building.embedder.max_batch):
        vectors = building.embedder.embed_batch([samples for _, samples in batch])
        rows = [(*places[number], vector) for (number, _), vector in zip(batch, vectors, strict=True)]
        yield _keep_sounds(archive, building.space, audio_id, rows)


def _keep_sounds(archive: Archive, space: Space, audio_id: int, rows: list[tuple[Span, int | None, Any]]) -> int:
    said = {passage_id: vector for _, passage_id, vector in rows if passage_id is not None}
    heard = [NewEmbedding(span, None, vector) for span, passage_id, vector in rows if passage_id is None]
    with archive.database.write(locks.of_recording(audio_id)) as connection:
        recordings.must_exist(connection, audio_id)
        made = reembedding.keep(connection, space, said) if said else 0
        return made + len(embeddings.add(connection, space, heard, audio_id=audio_id, transcript_id=None))


def _keep_up(archive: Archive, building: Building) -> None:
    """Let the other spaces' indexes read on; the new one is indexed at once in the end, which is much quicker."""
    with archive.database.read() as connection:
        others = [space for space in embeddings.spaces(connection) if space not in building.spaces]
    for space in others:
        archive.index.catch_up(space)


def _delete_some(archive: Archive, space: Space) -> int:
    with archive.database.write(locks.SPACES) as connection:
        return reembedding.delete_some(connection, space, FREED_AT_ONCE)


def _refresh_sidecars(archive: Archive) -> None:
    """Write the vectors beside the recordings anew, where there are any."""
    after, found = 0, [0]
    while archive.settings.sidecars and found:
        with archive.database.read() as connection:
            found = reembedding.recording_ids(connection, after, RECORDINGS_AT_ONCE)
        for after in found:
            try:
                sidecars.refresh(archive, after)
            except NotFound:
                continue  # deleted meanwhile


def _told(building: Building, owing: list[int]) -> str:
    named = ", ".join(map(str, owing[:MOST_NAMED])) + (" …" if len(owing) > MOST_NAMED else "")
    return (
        f"The old space stays in use: recording {named} cannot be read, so that {building.space.model} would lack"
        " vectors that it has. Mend or delete what cannot be read, then run the same again"
    )
