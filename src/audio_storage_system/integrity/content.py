"""Whether versions, passages and vectors hold what they follow from, and whether something was left half-made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from itertools import groupby
from typing import Any

import numpy as np
from sqlalchemy import Connection, exists, func, select

from audio_storage_system.archive import Archive
from audio_storage_system.catalogue.embeddings import spaces
from audio_storage_system.catalogue.transcripts import searched
from audio_storage_system.clock import utc_now
from audio_storage_system.database.tables import embeddings, jobs, passages, segments, transcripts
from audio_storage_system.integrity import rules
from audio_storage_system.integrity.catalogue import leave_to_workers, remove_vectors
from audio_storage_system.integrity.findings import Finding, Severity
from audio_storage_system.integrity.looking import Check, Look
from audio_storage_system.integrity.rules import AGAIN, MADE_AGAIN, RESTORE, SUCCEEDED
from audio_storage_system.records import Space

VERSIONS_AT_ONCE, VECTORS_AT_ONCE = 50, 4_096
# How far from 1 the length of a vector may be.
UNIT = 1e-3
# What was begun and has not gone on for so long is not being made.
IDLE = timedelta(hours=1)


def _texts(look: Look) -> Iterator[Finding]:
    """Every finished version says what its segments say, and its passages the same."""
    faults: dict[str, list[int]] = {TEXT: [], PASSAGES: []}
    with look.archive.database.read() as connection:
        query = select(transcripts.c.id, transcripts.c.transcription, transcripts.c.outcome).order_by(transcripts.c.id)
        for row in connection.execute(query.execution_options(yield_per=VERSIONS_AT_ONCE)):
            for fault in _faults(connection, row):
                faults[fault].append(row.id)
    for what, ids in faults.items():
        given: dict[str, Any] = {"severity": Severity.ERROR, "what": what, "kind": "transcript"}
        if finding := Finding.of(ids, check="texts", remedy=RESTORE if what == TEXT else AGAIN, **given):
            yield finding


TEXT = "their text is not that of their segments"
PASSAGES = "their passages do not say what their segments say"


def _faults(connection: Connection, version: Any) -> Iterator[str]:
    said = select(segments.c.id, segments.c.text).where(segments.c.transcript_id == version.id)
    pieces = connection.execute(said.order_by(segments.c.sequence)).all()
    finished = version.outcome in SUCCEEDED
    if finished and version.transcription != " ".join(piece.text.strip() for piece in pieces):
        yield TEXT
    grouped = select(passages.c.first_segment_id, passages.c.last_segment_id, passages.c.text)
    rows = connection.execute(grouped.where(passages.c.transcript_id == version.id).order_by(passages.c.sequence)).all()
    if not passages_fit([(p.id, p.text.strip()) for p in pieces], [tuple(row) for row in rows], whole=finished):
        yield PASSAGES


def passages_fit(pieces: Sequence[tuple[int, str]], grouped: Sequence[tuple[Any, ...]], *, whole: bool) -> bool:
    """Whether passages (first segment, last segment, text) say what these segments (id, text) say, in order and none
    twice; with `whole`, all of them. A very long segment may be several passages, cut between words."""
    place, upto = {id_: number for number, (id_, _) in enumerate(pieces)}, 0
    for (first, last), parts in groupby(grouped, key=lambda passage: passage[:2]):
        if first not in place or last not in place or place[first] < upto or place[last] < place[first]:
            return False
        if any(text for _, text in pieces[upto : place[first]]):
            return False
        texts, upto = [text for _, _, text in parts], place[last] + 1
        said = " ".join(text for _, text in pieces[place[first] : upto] if text)
        if texts != [said] and (len(texts) < 2 or _bare(texts) != _bare([said])):
            return False
    return not (whole and any(text for _, text in pieces[upto:]))


def _bare(texts: Sequence[str]) -> str:
    return "".join("".join(text.split()) for text in texts)


def _vectors(look: Look) -> Iterator[Finding]:
    """Every vector is as long as its space wants, and when contents are read: finite, and of length one."""
    with look.archive.database.read() as connection:
        yield from rules.broken(connection, rules.EMBEDDINGS[2:])
        if not look.deep:
            return
        finding = Finding.of(
            (id_ for space in spaces(connection) for id_ in _no_units(connection, space)),
            check="vectors",
            severity=Severity.WARNING,
            what="they are not finite, or not of length one",
            remedy=MADE_AGAIN,
            kind="embedding",
            repairable=True,
        )
    if finding:
        yield finding


def _no_units(connection: Connection, space: Space) -> Iterator[int]:
    fits = func.length(embeddings.c.embedding_data) == 4 * space.dimension
    query = select(embeddings.c.id, embeddings.c.embedding_data).where(embeddings.c.space_id == space.id, fits)
    for rows in connection.execute(query.execution_options(yield_per=VECTORS_AT_ONCE)).partitions():
        data = np.frombuffer(b"".join(row.embedding_data for row in rows), "<f4").reshape(len(rows), -1)
        with np.errstate(all="ignore"):
            lengths = np.linalg.norm(data.astype(np.float64), axis=1)
        yield from (row.id for row, length in zip(rows, lengths, strict=True) if not abs(length - 1) <= UNIT)


def _remove_vectors(archive: Archive, findings: Sequence[Finding]) -> None:
    """All of them, not only those that the findings name."""
    with archive.database.read() as connection:
        wrong = [*connection.execute(rules.EMBEDDINGS[2].query).scalars()]
        if any(finding.what != rules.EMBEDDINGS[2].what for finding in findings):
            wrong += [id_ for space in spaces(connection) for id_ in _no_units(connection, space)]
    remove_vectors(archive, wrong)


def _unembedded(look: Look) -> Iterator[Finding]:
    """Of the versions that search follows, every passage has a vector in each space in use, or waits for it."""
    with look.archive.database.read() as connection:
        for space in spaces(connection):
            if space.active:
                yield from _lacking(connection, space)


def _lacking(connection: Connection, space: Space) -> Iterator[Finding]:
    given: dict[str, Any] = {"check": "embedded", "kind": "recording"}
    name = f"in {space.kind.value}:{space.model}"
    part = Finding.of(
        connection.execute(_without_vectors(space, begun=True)).scalars(),
        severity=Severity.WARNING,
        what=f"some of their passages have no vector {name}, and nobody is making it",
        remedy="They are left to the workers, who embed them.",
        repairable=True,
        **given,
    )
    none = Finding.of(
        connection.execute(_without_vectors(space, begun=False)).scalars(),
        severity=Severity.NOTE,
        what=f"they are not embedded {name}: found by their words only",
        remedy="Add them again, or call generate_embeddings, where that is not intended.",
        **given,
    )
    yield from (finding for finding in (part, none) if finding)


def _without_vectors(space: Space, *, begun: bool) -> Any:
    """The recordings whose followed version lacks vectors here: some of them, for long and with no job waiting; or all
    of them."""
    mine = (embeddings.c.space_id == space.id, embeddings.c.transcript_id == transcripts.c.id)
    of_passages = embeddings.c.passage_id.is_not(None)
    said = select(func.count()).where(passages.c.transcript_id == transcripts.c.id).scalar_subquery()
    there = select(func.count()).where(*mine, of_passages).scalar_subquery()
    query = select(transcripts.c.audio_file_id).where(searched(), transcripts.c.outcome.is_not(None), said > there)
    if not begun:
        return query.where(there == 0)
    lately = exists().where(*mine, embeddings.c.created_at > utc_now() - IDLE)
    waiting = exists().where(jobs.c.audio_file_id == transcripts.c.audio_file_id, jobs.c.outcome.is_(None))
    return query.where(there > 0, ~lately, ~waiting)


def _embed(archive: Archive, findings: Sequence[Finding]) -> None:
    with archive.database.read() as connection:
        active = [space for space in spaces(connection) if space.active]
        wanting = {id_ for space in active for id_ in connection.execute(_without_vectors(space, begun=True)).scalars()}
    leave_to_workers(archive, sorted(wanting))


CHECKS = (
    Check("texts", _texts, deep=True),
    Check("vectors", _vectors, _remove_vectors),
    Check("embedded", _unembedded, _embed),
)
