"""Recordings as the rules see them, in the order of their ids, however many there are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, exists, select

from audio_storage_system.catalogue.holds import Hold
from audio_storage_system.catalogue.recordings import RECORDING, STORED
from audio_storage_system.database import Database
from audio_storage_system.database.tables import audio_files, embeddings, transcripts
from audio_storage_system.records import Stage
from audio_storage_system.retention.planning import Candidate, RetentionRule

AT_ONCE = 1_000

# On `audio_files`: the stage is still there.
_THERE: dict[Stage, ColumnElement[bool]] = {
    Stage.AUDIO: audio_files.c.status == STORED,
    Stage.TRANSCRIPT: exists().where(transcripts.c.audio_file_id == audio_files.c.id),
    Stage.EMBEDDINGS: exists().where(embeddings.c.audio_file_id == audio_files.c.id),
}


def candidates(
    database: Database, rules: Sequence[RetentionRule], holds: Sequence[Hold], before: datetime | None = None
) -> Iterator[list[Candidate]]:
    """Every recording, those in the trash too, some at a time; stored `before` a moment if one is given. What is still
    being recorded is none yet."""
    after = 0
    while True:
        with database.read() as connection:
            found = _window(connection, after, before)
            if not found:
                return
            upto = found[-1][0]
            window = [audio_files.c.id > after, audio_files.c.id <= upto]
            window += [audio_files.c.created_at < before] if before is not None else []
            yield _candidates(connection, found, rules, holds, window)
        after = upto


def _window(connection: Connection, after: int, before: datetime | None) -> list[tuple[int, datetime]]:
    there = (audio_files.c.id > after, audio_files.c.status != RECORDING)
    query = select(audio_files.c.id, audio_files.c.created_at).where(*there)
    query = query if before is None else query.where(audio_files.c.created_at < before)
    return [(row.id, row.created_at) for row in connection.execute(query.order_by(audio_files.c.id).limit(AT_ONCE))]


def _candidates(
    connection: Connection,
    found: Sequence[tuple[int, datetime]],
    rules: Sequence[RetentionRule],
    holds: Sequence[Hold],
    window: Sequence[ColumnElement[bool]],
) -> list[Candidate]:
    def passing(conditions: Sequence[ColumnElement[bool]]) -> set[int]:
        return set(connection.execute(select(audio_files.c.id).where(*window, *conditions)).scalars())

    ruled = {rule.id: passing(rule.selection.conditions()) for rule in rules}
    held = {hold.id: passing(hold.selection.conditions()) for hold in holds}
    wanted = {rule.stage for rule in rules} - {Stage.RECORDING}
    there = {stage: passing([_THERE[stage]]) for stage in wanted}
    return [
        Candidate(
            audio_id,
            created_at,
            frozenset([Stage.RECORDING, *(stage for stage, ids in there.items() if audio_id in ids)]),
            frozenset(id_ for id_, ids in ruled.items() if audio_id in ids),
            frozenset(id_ for id_, ids in held.items() if audio_id in ids),
        )
        for audio_id, created_at in found
    ]
