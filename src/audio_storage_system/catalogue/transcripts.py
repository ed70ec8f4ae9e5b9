"""Transcripts: versions of what was said, made window by window."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    and_,
    bindparam,
    exists,
    false,
    func,
    insert,
    literal,
    or_,
    select,
    true,
    update,
)

from audio_storage_system.catalogue import changes, trash
from audio_storage_system.catalogue.limits import Limit
from audio_storage_system.clock import utc_now
from audio_storage_system.database import tables
from audio_storage_system.database.bulk import insert_all
from audio_storage_system.database.queries import among, given
from audio_storage_system.database.tables import passages, segments, transcription_windows, transcripts
from audio_storage_system.errors import Conflict, InvalidInput, NotFound
from audio_storage_system.records import Outcome, Segment, Span, Transcript, Word

FALLBACK = "fallback"
LIVE = "live"  # made while it was spoken; the whole model has not heard it yet

_ONE = select(transcripts).where(transcripts.c.id == bindparam("one"))
_STANDING = select(transcripts.c.audio_file_id, transcripts.c.outcome).where(transcripts.c.id == bindparam("one"))
_OUTCOME = select(transcripts.c.outcome).where(transcripts.c.id == bindparam("one"))
_LAST_WINDOW = select(func.max(transcription_windows.c.sequence)).where(
    transcription_windows.c.transcript_id == bindparam("one")
)
_SAID = (
    select(segments.c.text, segments.c.confidence, segments.c.start_seconds, segments.c.end_seconds)
    .where(segments.c.transcript_id == bindparam("one"))
    .order_by(segments.c.sequence)
)
_HEADERS = select(
    *(column for column in transcripts.c if column.name != "transcription"), literal("").label("transcription")
).where(among(transcripts.c.id))
_SEGMENTS_OF_PASSAGES = (
    select(passages.c.id.label("passage_id"), segments)
    .join(segments, segments.c.id.between(passages.c.first_segment_id, passages.c.last_segment_id))
    .where(among(passages.c.id), segments.c.transcript_id == passages.c.transcript_id)
    .order_by(segments.c.id)
)
_FLAGS = select(tables.annotations.c.transcript_id, tables.annotations.c.label).where(
    among(tables.annotations.c.transcript_id),
    tables.annotations.c.kind == "flag",
    tables.annotations.c.segment_id.is_(None),
)


def start(
    connection: Connection,
    audio_id: int,
    *,
    asked: str,
    engine: str,
    parameters: Mapping[str, Any],
    language: str | None,
    flags: Sequence[str] = (),
) -> int:
    """A new version, running and empty; its id. `asked` is what the caller wanted, `engine` what runs."""
    row = {
        "audio_file_id": audio_id,
        "whisper_model": asked,
        "engine": engine,
        "parameters": dict(parameters),
        "language": language,
        "active": False,
        "created_at": utc_now(),
    }
    transcript_id = int(connection.execute(insert(transcripts).returning(transcripts.c.id), row).scalar_one())
    for label in flags:
        flag = {"audio_file_id": audio_id, "transcript_id": transcript_id, "kind": "flag", "label": label}
        connection.execute(insert(tables.annotations), {**flag, "model": engine})
    changes.log(connection, transcripts, [transcript_id], "insert")
    return transcript_id


def find_unfinished(
    connection: Connection, audio_id: int, *, asked: str, engine: str, parameters: Mapping[str, Any]
) -> int | None:
    """The version of the same work to go on with: interrupted, or failed in a way that trying again helps."""
    again = [outcome.value for outcome in Outcome if outcome.retryable]
    undone = or_(transcripts.c.outcome.is_(None), transcripts.c.outcome.in_(again))
    return next(iter(_of_work(connection, undone, audio_id, asked, engine, parameters)), None)


def find_finished(
    connection: Connection, audio_id: int, *, asked: str, engine: str, parameters: Mapping[str, Any]
) -> int | None:
    """The latest version that the same work has made."""
    done = transcripts.c.outcome.in_([outcome.value for outcome in Outcome if outcome.succeeded])
    return max(_of_work(connection, done, audio_id, asked, engine, parameters), default=None)


def _of_work(
    connection: Connection,
    condition: ColumnElement[bool],
    audio_id: int,
    asked: str,
    engine: str,
    parameters: Mapping[str, Any],
) -> list[int]:
    """The versions of a recording that are of this work and meet the condition, the oldest first."""
    query = (
        select(transcripts.c.id, transcripts.c.parameters)
        .where(
            transcripts.c.audio_file_id == audio_id,
            transcripts.c.whisper_model == asked,
            transcripts.c.engine == engine,
            condition,
        )
        .order_by(transcripts.c.id)
    )
    wanted = json.loads(json.dumps(dict(parameters)))
    return [row.id for row in connection.execute(query) if row.parameters == wanted]


def find_live(connection: Connection, audio_id: int) -> int | None:
    """The running version that is made of a recording while it is spoken."""
    flag = tables.annotations
    live = exists().where(flag.c.transcript_id == transcripts.c.id, flag.c.kind == "flag", flag.c.label == LIVE)
    running = (transcripts.c.audio_file_id == audio_id, transcripts.c.outcome.is_(None))
    return connection.execute(select(transcripts.c.id).where(*running, live)).scalar()


def reopen(connection: Connection, transcript_id: int) -> None:
    """Let an unfinished version run again."""
    same = transcripts.c.id == transcript_id
    connection.execute(update(transcripts).where(same).values(outcome=None, reason=None))


def note_progress(connection: Connection, transcript_id: int, language: str | None, seconds: float) -> None:
    """Add to the processing time of a running version, and keep the language found."""
    connection.execute(
        update(transcripts)
        .where(transcripts.c.id == transcript_id)
        .values(language=language, processing_time=func.coalesce(transcripts.c.processing_time, 0.0) + seconds)
    )


def commit_window(
    connection: Connection, transcript_id: int, sequence: int, span: Span, pieces: Sequence[Segment], first: int
) -> list[Segment]:
    """Keep a finished window with its segments, numbered from `first`; the segments with their ids. A window can be
    committed only once."""
    window = {
        "transcript_id": transcript_id,
        "sequence": sequence,
        "start_seconds": span.start,
        "end_seconds": span.end,
        "created_at": utc_now(),
    }
    window_id = connection.execute(
        insert(transcription_windows).returning(transcription_windows.c.id), window
    ).scalar_one()
    base = {"transcript_id": transcript_id, "window_id": window_id}
    rows = [{**base, **_segment_row(piece, first + number)} for number, piece in enumerate(pieces)]
    ids = insert_all(connection, segments, rows)
    return [replace(piece, id=id_) for piece, id_ in zip(pieces, ids, strict=True)]


def _segment_row(piece: Segment, sequence: int) -> dict[str, Any]:
    return {
        "sequence": sequence,
        "start_seconds": piece.start,
        "end_seconds": piece.end,
        "text": piece.text,
        "speaker": piece.speaker,
        "confidence": piece.confidence,
        "avg_logprob": piece.avg_logprob,
        "no_speech_prob": piece.no_speech_prob,
        "compression_ratio": piece.compression_ratio,
        "words": [asdict(word) for word in piece.words],
    }


def windows_done(connection: Connection, transcript_id: int) -> int:
    """How many windows are committed. They are in order, so this is also the sequence number of the next one, and it is
    found without reading the others."""
    last: int | None = connection.execute(_LAST_WINDOW, {"one": transcript_id}).scalar()
    return 0 if last is None else last + 1


def speech_spans(connection: Connection, transcript_id: int) -> list[Span]:
    """Where speech was: the spans of the committed windows, in order."""
    table = transcription_windows
    query = select(table.c.start_seconds, table.c.end_seconds).where(table.c.transcript_id == transcript_id)
    return [Span(start, end) for start, end in connection.execute(query.order_by(table.c.sequence))]


def last_id(connection: Connection) -> int:
    """The id of the newest version in the archive; 0 where there is none."""
    return int(connection.execute(select(func.max(transcripts.c.id))).scalar() or 0)


def heard_until(connection: Connection, audio_id: int) -> float:
    """How far into a recording its running version has come, in seconds."""
    windows = select(func.max(transcription_windows.c.end_seconds)).join(transcripts)
    running = windows.where(transcripts.c.audio_file_id == audio_id, transcripts.c.outcome.is_(None))
    return float(connection.execute(running).scalar() or 0.0)


def cut_short(connection: Connection, before: datetime) -> list[Transcript]:
    """Running versions that have kept nothing since this moment, of recordings that have no other to follow and that no
    job is waiting for. In what is still being recorded nobody may have spoken for so long."""
    windows, jobs, other = transcription_windows, tables.jobs, transcripts.alias()
    table = tables.audio_files
    stored = exists().where(table.c.id == transcripts.c.audio_file_id, table.c.status == "stored")
    lately = exists().where(windows.c.transcript_id == transcripts.c.id, windows.c.created_at >= before)
    waited = exists().where(jobs.c.audio_file_id == transcripts.c.audio_file_id, jobs.c.outcome.is_(None))
    said = exists().where(other.c.audio_file_id == transcripts.c.audio_file_id, other.c.active == true())
    old = (transcripts.c.outcome.is_(None), transcripts.c.created_at < before)
    return select_where(connection, *old, stored, ~lately, ~waited, ~said)


def finish(connection: Connection, transcript_id: int, *, outcome: Outcome, reason: str | None) -> None:
    """End a running version: join its text, average its confidence, note how it went."""
    pieces = connection.execute(_SAID, {"one": transcript_id}).all()  # without the words, which are most of it
    scored = [(p.confidence, max(p.end_seconds - p.start_seconds, 0.01)) for p in pieces if p.confidence is not None]
    weight = sum(span for _, span in scored)
    values = {
        "outcome": outcome.value,
        "reason": reason,
        "transcription": " ".join(piece.text.strip() for piece in pieces),
        "confidence": sum(c * span for c, span in scored) / weight if scored else None,
    }
    connection.execute(update(transcripts).where(transcripts.c.id == transcript_id).values(**values))
    changes.log(connection, transcripts, [transcript_id], "update")


def activate(connection: Connection, transcript_id: int) -> None:
    """Make this the version that search follows. Raises `NotFound`, or `Conflict` for one that failed."""
    found = connection.execute(_STANDING, {"one": transcript_id}).first()
    if found is None:
        raise NotFound(kind="transcript", id=transcript_id)
    if found.outcome is None or not Outcome(found.outcome).succeeded:
        state = "still running" if found.outcome is None else f"a failure ({found.outcome})"
        raise Conflict(reason=f"Transcript {transcript_id} is {state} and cannot be made active")
    before = connection.execute(
        update(transcripts)
        .where(transcripts.c.audio_file_id == found.audio_file_id, transcripts.c.active == true())
        .values(active=False)
        .returning(transcripts.c.id)
    ).scalars()
    changed = [*before, transcript_id]
    connection.execute(update(transcripts).where(transcripts.c.id == transcript_id).values(active=True))
    changes.log(connection, transcripts, changed, "update")


def get(connection: Connection, transcript_id: int) -> Transcript:
    """One version. Raises `NotFound`."""
    found = _selected(connection, _ONE, transcript_id)
    if not found:
        raise NotFound(kind="transcript", id=transcript_id)
    return found[0]


def outcome_of(connection: Connection, transcript_id: int) -> Outcome | None:
    """How a version ended; `None` while it is running, or when there is none with this id."""
    outcome: str | None = connection.execute(_OUTCOME, {"one": transcript_id}).scalar()
    return Outcome(outcome) if outcome else None


def active_of(connection: Connection, audio_id: int) -> Transcript | None:
    """The version that search follows: the active one, or while there is none the latest running one."""
    found = _selected(connection, _SEARCHED, audio_id)
    return found[0] if found else None


def select_where(
    connection: Connection, *conditions: ColumnElement[bool], limit: int | None = None
) -> list[Transcript]:
    """Versions that meet the conditions, the oldest first; at most `limit`."""
    return _selected(connection, select(transcripts).where(*conditions).order_by(transcripts.c.id).limit(limit))


def _selected(connection: Connection, query: Select[Any], one: int | None = None) -> list[Transcript]:
    rows = connection.execute(query, {} if one is None else {"one": one}).mappings().all()
    flags = _flags(connection, [row["id"] for row in rows])
    return [_transcript(row, flags.get(row["id"], ())) for row in rows]


def headers(connection: Connection, transcript_ids: Sequence[int]) -> list[Transcript]:
    """These versions without their text, which can be long."""
    rows = connection.execute(_HEADERS, given(transcript_ids)).mappings().all()
    flags = _flags(connection, transcript_ids)
    return [_transcript(row, flags.get(row["id"], ())) for row in rows]


def segments_of(connection: Connection, transcript_id: int, *conditions: ColumnElement[bool]) -> list[Segment]:
    """The segments of a version, in order."""
    query = select(segments).where(segments.c.transcript_id == transcript_id, *conditions).order_by(segments.c.sequence)
    return [_segment(row) for row in connection.execute(query).mappings()]


def segments_between(
    connection: Connection,
    transcript_id: int,
    start: float | None,
    end: float | None,
    *,
    after: int = 0,
    limit: int | None = None,
) -> list[Segment]:
    """The first segments of a version that are in these seconds, in part or as a whole, in order; `after`: of those
    that follow this one. Raises `InvalidInput`."""
    if limit is not None and limit < 0:
        raise InvalidInput(reason="limit is not negative")
    conditions = [
        segments.c.transcript_id == transcript_id,
        *([] if start is None else [segments.c.end_seconds > start]),
        *([] if end is None else [segments.c.start_seconds < end]),
        *([segments.c.id > after] if after else []),
    ]
    rows = connection.execute(select(segments).where(*conditions).order_by(segments.c.sequence).limit(limit))
    return [_segment(row) for row in rows.mappings()]


def segments_of_passages(connection: Connection, passage_ids: Sequence[int | None]) -> dict[int | None, list[Segment]]:
    """The segments of each of these passages, in order, by passage id."""
    found: dict[int | None, list[Segment]] = {}
    for row in connection.execute(_SEGMENTS_OF_PASSAGES, given(passage_ids)).mappings():
        found.setdefault(row["passage_id"], []).append(_segment(row))
    return found


def segments_after(
    connection: Connection, transcript_id: int, segment_id: int, limit: int | None = None
) -> list[Segment]:
    """The first segments of a version that come after this one, in order."""
    query = select(segments).where(segments.c.transcript_id == transcript_id, segments.c.id > segment_id)
    rows = connection.execute(query.order_by(segments.c.sequence).limit(limit)).mappings()
    return [_segment(row) for row in rows]


def segments_before(connection: Connection, transcript_id: int, segment_id: int, limit: int) -> list[Segment]:
    """The last segments of a version that come before this one, in order."""
    query = select(segments).where(segments.c.transcript_id == transcript_id, segments.c.id < segment_id)
    rows = connection.execute(query.order_by(segments.c.sequence.desc()).limit(limit)).mappings().all()
    return [_segment(row) for row in reversed(rows)]


def segment_count(connection: Connection, transcript_id: int) -> int:
    """How many segments a version has."""
    query = select(func.count()).select_from(segments).where(segments.c.transcript_id == transcript_id)
    return int(connection.execute(query).scalar_one())


def searched() -> ColumnElement[bool]:
    """The condition on `transcripts` for "search follows this one"."""
    other = transcripts.alias()
    rival = exists().where(
        other.c.audio_file_id == transcripts.c.audio_file_id,
        or_(other.c.active == true(), and_(other.c.outcome.is_(None), other.c.id > transcripts.c.id)),
    )
    return or_(transcripts.c.active == true(), and_(transcripts.c.outcome.is_(None), ~rival))


_SEARCHED = (
    select(transcripts).where(transcripts.c.audio_file_id == bindparam("one"), searched()).order_by(transcripts.c.id)
)


def passed_over() -> Select[Any]:
    """The ids of the versions with passages that search does not follow; none while nothing was transcribed twice."""
    said = exists().where(passages.c.transcript_id == transcripts.c.id)
    return select(transcripts.c.id).where(transcripts.c.active == false(), ~searched(), said)


def languages(connection: Connection, access: Limit | None = None) -> set[str | None]:
    """Every language that some version is in, of those `access` may see and not of what is in the trash; `None` among
    them where one is unknown."""
    query = select(transcripts.c.language).distinct().where(*trash.hiding(connection, transcripts.c.audio_file_id))
    if access is not None:
        query = query.where(transcripts.c.audio_file_id.in_(access.recordings()))
    return set(connection.execute(query).scalars())


def _flags(connection: Connection, transcript_ids: Sequence[int]) -> dict[int, tuple[str, ...]]:
    found: dict[int, tuple[str, ...]] = {}
    for transcript_id, label in connection.execute(_FLAGS, given(transcript_ids)):
        found[transcript_id] = (*found.get(transcript_id, ()), label)
    return found


def _transcript(row: RowMapping, flags: tuple[str, ...]) -> Transcript:
    values = dict(row)
    outcome = values.pop("outcome")
    return Transcript(
        audio_id=values.pop("audio_file_id"), outcome=Outcome(outcome) if outcome else None, flags=flags, **values
    )


def _segment(row: RowMapping) -> Segment:
    return Segment(
        start=row["start_seconds"],
        end=row["end_seconds"],
        text=row["text"],
        words=tuple(Word(**word) for word in row["words"]),
        speaker=row["speaker"],
        confidence=row["confidence"],
        avg_logprob=row["avg_logprob"],
        no_speech_prob=row["no_speech_prob"],
        compression_ratio=row["compression_ratio"],
        id=row["id"],
    )
