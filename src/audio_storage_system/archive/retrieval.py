"""From what a caller asks to an answer: embeds the query, says what could not be searched, packs the hits."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO, Literal, get_args
from urllib.parse import quote

import numpy as np

from audio_storage_system.archive.opening import Archive
from audio_storage_system.audio import Waveform, resample, stream
from audio_storage_system.catalogue import embeddings
from audio_storage_system.catalogue.recordings import AUDIO_REMOVED, RECORDING
from audio_storage_system.clock import Deadline
from audio_storage_system.database import Database
from audio_storage_system.database.remembering import remembered
from audio_storage_system.embedders import TextEmbedder, Vector
from audio_storage_system.errors import (
    AudioRemoved,
    InvalidInput,
    InvalidVector,
    StillRecording,
    TooLarge,
    Unavailable,
)
from audio_storage_system.pipeline import Task, transcribe_sample
from audio_storage_system.pipeline.sources import MODEL_RATE
from audio_storage_system.records import EmbeddingKind, Recording
from audio_storage_system.search import ContextPack, Query, SearchResults, build_context_pack, run
from audio_storage_system.search.context import CountTokens
from audio_storage_system.search.query import MAX_QUERY_CHARACTERS, one_state, standing
from audio_storage_system.vectors import VectorIndex

logger = logging.getLogger(__name__)

By = Literal["transcript", "audio", "combined"]
BYS: tuple[By, ...] = get_args(By)
# A context pack asks for more hits than it can hold: it stops when its budget is used up.
PACK_DEPTH = 100
# What is longer is a recording, and no example: all of it is held in memory, and transcribed while somebody waits.
LONGEST_EXAMPLE_SECONDS = 600


def search_text(archive: Archive, query: Query, deadline: Deadline, space: str | None = None) -> SearchResults:
    """Search by words and meaning, in the active space or the one named.

    Without an embedder (the archive's own function was not given, a model or service is not there), the mode `semantic`
    raises the `Unavailable` that says why, `hybrid` searches by words and warns, and `keyword` gives no similarities.
    Raises `NotFound` for a space that the archive does not have.
    """
    warnings: tuple[str, ...] = ()
    try:
        found, embedder = archive.spaces.text(space, deadline)
        who = archive.access.principal_id, archive.access.restricted
        vector = archive.query_vectors.get(who, embedder, query.text, lambda: _embed(embedder, query.text))
        query = replace(query, space=found, vector=vector)
    except Unavailable as error:
        if query.mode == "semantic":
            raise
        if query.mode == "hybrid":
            warnings = (f"{error} Searched by words only.",)
    if len(query.text) > MAX_QUERY_CHARACTERS:
        warnings = (*warnings, f"Only the first {MAX_QUERY_CHARACTERS:,} characters of the query were used.")
    return _answer(archive, query, deadline, warnings)


def search_example(
    archive: Archive,
    example: Waveform | Path | BinaryIO,
    by: By,
    query: Query,
    deadline: Deadline,
    task: Task,
    space: str | None = None,
) -> SearchResults:
    """Search for what sounds like an example (`audio`), says the like (`transcript`), or both (`combined`), in the
    active space of that kind or the one named."""
    waveform = resample(example, MODEL_RATE) if isinstance(example, Waveform) else _load(example, deadline)
    if not len(waveform):
        raise InvalidInput(reason="There is no sound in the example")
    if by == "audio":
        found, embedder = archive.spaces.audio(space, deadline)
        return _answer(archive, replace(query, space=found, vector=embedder.embed(waveform)), deadline)
    if by == "transcript":
        said = transcribe_sample(archive.engines, waveform, task, deadline.check)
        return search_text(archive, replace(query, text=said), deadline, space)
    found, combined = archive.spaces.combined(space, deadline)
    said = transcribe_sample(archive.engines, waveform, task, deadline.check)
    vector = combined.embed_batch([said], [waveform])[0]
    return _answer(archive, replace(query, text=said, space=found, vector=vector), deadline)


def _load(example: Path | BinaryIO, deadline: Deadline) -> Waveform:
    name = example if isinstance(example, Path) else "The example"
    try:
        with stream(example, MODEL_RATE) as blocks:
            return Waveform(np.concatenate([*_bounded(blocks, deadline)]), MODEL_RATE)
    except FileNotFoundError as error:
        raise InvalidInput(reason=f"There is no file {name}") from error
    except OSError as error:
        raise InvalidInput(reason=f"{name} cannot be read: {error.strerror or error}") from error


def _bounded(blocks: Iterable[Vector], deadline: Deadline) -> Iterator[Vector]:
    """The same, as long as it is an example and is waited for."""
    samples = 0
    for block in blocks:
        deadline.check()
        samples += len(block)
        if samples > LONGEST_EXAMPLE_SECONDS * MODEL_RATE:
            raise TooLarge(what="The example", limit=f"{LONGEST_EXAMPLE_SECONDS} s of sound")
        yield block


def context_pack(
    archive: Archive, query: Query, deadline: Deadline, max_tokens: int, count_tokens: CountTokens
) -> ContextPack:
    """The best passages for a question, within a token budget."""
    if max_tokens < 1:
        raise InvalidInput(reason="max_tokens is at least 1")
    results = search_text(archive, replace(query, limit=PACK_DEPTH), deadline)
    return build_context_pack(query.text, results.hits, max_tokens=max_tokens, count_tokens=count_tokens)


def _answer(archive: Archive, query: Query, deadline: Deadline, warnings: tuple[str, ...] = ()) -> SearchResults:
    results = archive.searched(lambda database, index: _ask(database, index, query, deadline))
    for warning in (*results.warnings, *warnings):
        logger.warning(warning)
    return replace(results, warnings=(*results.warnings, *warnings))


def _ask(database: Database, index: VectorIndex, query: Query, deadline: Deadline) -> SearchResults:
    """The answer with what was missing for it, all of one state of the database where the index is part of it."""
    with one_state(database, index, query, deadline):
        query = standing(database, query, deadline)
        results = run(database, index, query, deadline)
        missing = _missing_vectors(database, query, deadline)
        # How much there is of everything is no business of who does not see everything.
        told = query.vector is not None and query.filter.access is None
        lag = index.lag(query.space) if query.space and told else None
    return replace(results, warnings=(*results.warnings, *missing), index=lag)


def _embed(embedder: TextEmbedder, text: str) -> Vector | None:
    """The query's vector; none for a text without anything to embed."""
    text = text[:MAX_QUERY_CHARACTERS].strip()
    try:
        return embedder.embed_query(text) if text else None
    except InvalidVector:
        if embedder.model.startswith("user:"):
            raise  # the user's function is wrong, and only its author can mend that
        return None


def _missing_vectors(database: Database, query: Query, deadline: Deadline) -> tuple[str, ...]:
    """A warning when part of what is said in the archive has no vectors in the space searched."""
    space, access = query.space, query.filter.access
    if space is None or space.kind is not EmbeddingKind.TRANSCRIPT or query.mode == "keyword":
        return ()
    with database.read(deadline) as connection:
        key = "missing", space, repr(access)
        missing = remembered(connection, key, lambda: embeddings.missing_in(connection, space, access))
    if not missing:
        return ()
    found = "not found" if query.mode == "semantic" else "found by their words only"
    return (f"{missing} passage(s) have no vector in {space.model} and are {found}; reembed adds them",)


def audio_key(recording: Recording) -> str:
    """The key of a recording's blob. Raises `AudioRemoved` where a rule removed it, `StillRecording` where it comes."""
    if recording.status == RECORDING:
        raise StillRecording(audio_id=recording.id)
    if recording.status == AUDIO_REMOVED:
        raise AudioRemoved(kind="audio", id=recording.id, audio_id=recording.id)
    return recording.file_path


def audio_url(archive: Archive, key: str, expires: timedelta) -> str:
    """Where others can read a blob: from the content delivery network in the settings, else by a signed URL. What is
    sealed nobody can read from anywhere: raises `Unavailable`."""
    if archive.settings.cdn_url and archive.key_for("blobs") is None:
        return f"{archive.settings.cdn_url.rstrip('/')}/{quote(key)}"
    return archive.blobs.url_for(key, expires)
