"""Rules that the rows of the catalogue keep, each one query for those that break it. One query sees one state, so
writers at work raise no false alarm."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Float,
    Index,
    Integer,
    LargeBinary,
    Select,
    Table,
    UniqueConstraint,
    and_,
    case,
    exists,
    func,
    or_,
    select,
    true,
)

from audio_storage_system.database import tables
from audio_storage_system.database.sequences import last_given
from audio_storage_system.database.tables import (
    audio_files,
    data_keys,
    embedding_spaces,
    embeddings,
    metadata,
    metadata_of_schema,
    passages,
    segments,
    tombstones,
    transcription_windows,
    transcripts,
)
from audio_storage_system.integrity.findings import Finding, Severity
from audio_storage_system.records import Outcome

RESTORE = "Restore it from a backup."
AGAIN = "Transcribe the recording anew: audio-storage retranscribe."
MADE_AGAIN = "They are removed, and their recordings left to the workers, who embed them again."
ROWS_AT_ONCE = 1_000
SUCCEEDED = [outcome.value for outcome in Outcome if outcome.succeeded]


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule: `query` gives the ids (of `kind`) that break it."""

    check: str
    what: str
    kind: str
    query: Select[Any]
    remedy: str
    severity: Severity = Severity.ERROR
    repairable: bool = False

    def broken(self, connection: Connection) -> Finding | None:
        """The finding, unless all keep the rule."""
        rows = connection.execute(self.query.execution_options(yield_per=ROWS_AT_ONCE)).scalars()
        given = {"severity": self.severity, "what": self.what, "remedy": self.remedy, "kind": self.kind}
        return Finding.of(rows, check=self.check, repairable=self.repairable, **given)


def broken(connection: Connection, rules: tuple[Rule, ...]) -> Iterator[Finding]:
    """What breaks these rules."""
    for rule in rules:
        if (finding := rule.broken(connection)) is not None:
            yield finding


def _gaps(table: Table) -> Select[Any]:
    """Transcripts whose rows of `table` are not numbered 0, 1, 2 …"""
    number, of = table.c.sequence, table.c.transcript_id
    whole = and_(
        func.min(number) == 0, func.max(number) == func.count() - 1, func.count(number.distinct()) == func.count()
    )
    return select(of).group_by(of).having(~whole)


def _references() -> Iterator[Rule]:
    for table in metadata_of_schema.sorted_tables:
        for key in table.foreign_keys:
            column, target = key.parent, key.column.table
            parent = target.alias("parent")
            lost = ~exists().where(parent.c[key.column.name] == column)
            yield Rule(
                "references",
                f"{table.name}.{column.name} names rows of {target.name} that are not there",
                table.name,
                select(table.c.id).where(column.is_not(None), lost),
                RESTORE,
            )


def _uniqueness() -> Iterator[Rule]:
    for table in metadata_of_schema.sorted_tables:
        for columns, where in _unique(table):
            known = [column.is_not(None) for column in columns]
            names = ", ".join(column.name for column in columns)
            yield Rule(
                "uniqueness",
                f"{table.name} has several rows with the same {names}",
                table.name,
                select(func.min(table.c.id)).where(*known, *where).group_by(*columns).having(func.count() > 1),
                RESTORE,
            )


def _unique(table: Table) -> Iterator[tuple[list[Any], list[Any]]]:
    """What may be there once only: the columns, and for which rows."""
    for constraint in table.constraints:
        if isinstance(constraint, UniqueConstraint):
            yield list(constraint.columns), []
    for index in table.indexes:
        if index.unique:
            yield list(index.columns), _condition_of(index)


def _condition_of(index: Index) -> list[Any]:
    where = index.dialect_options["sqlite"]["where"]  # the same on PostgreSQL
    return [] if where is None else [where]


REFERENCES, UNIQUENESS = tuple(_references()), tuple(_uniqueness())

_first, _last = segments.alias("first"), segments.alias("last")
_of_passage = passages.join(_first, _first.c.id == passages.c.first_segment_id).join(
    _last, _last.c.id == passages.c.last_segment_id
)
TRANSCRIPTS = (
    Rule(
        "transcripts",
        "search follows versions that are not finished or have failed",
        "transcript",
        select(transcripts.c.id).where(
            transcripts.c.active == true(),
            or_(transcripts.c.outcome.is_(None), transcripts.c.outcome.not_in(SUCCEEDED)),
        ),
        "Let search follow another version: audio-storage transcripts activate.",
    ),
    Rule("windows", "their windows have gaps or doubles", "transcript", _gaps(transcription_windows), AGAIN),
    Rule("segments", "their segments have gaps or doubles", "transcript", _gaps(segments), AGAIN),
    Rule(
        "segments",
        "they lie in a window of another version",
        "segment",
        select(segments.c.id)
        .join(transcription_windows, transcription_windows.c.id == segments.c.window_id)
        .where(transcription_windows.c.transcript_id != segments.c.transcript_id),
        RESTORE,
    ),
    Rule("passages", "their passages have gaps or doubles", "transcript", _gaps(passages), AGAIN),
    Rule(
        "passages",
        "their first or last segment is of another version, or they end before they begin",
        "passage",
        select(passages.c.id)
        .select_from(_of_passage)
        .where(
            or_(
                _first.c.transcript_id != passages.c.transcript_id,
                _last.c.transcript_id != passages.c.transcript_id,
                _first.c.sequence > _last.c.sequence,
            )
        ),
        AGAIN,
    ),
    Rule(
        "passages",
        "they name another recording or owner than their version has",
        "passage",
        select(passages.c.id)
        .join(transcripts, transcripts.c.id == passages.c.transcript_id)
        .join(audio_files, audio_files.c.id == transcripts.c.audio_file_id)
        .where(
            or_(passages.c.audio_file_id != transcripts.c.audio_file_id, passages.c.owner_id != audio_files.c.owner_id)
        ),
        RESTORE,
    ),
    Rule("passages", "there is nothing in them", "passage", select(passages.c.id).where(passages.c.text == ""), AGAIN),
    Rule(
        "annotations",
        "they name another recording than their version has",
        "annotation",
        select(tables.annotations.c.id)
        .join(transcripts, transcripts.c.id == tables.annotations.c.transcript_id)
        .where(tables.annotations.c.audio_file_id != transcripts.c.audio_file_id),
        RESTORE,
    ),
)

_of_space = embeddings.join(embedding_spaces, embedding_spaces.c.id == embeddings.c.space_id)
EMBEDDINGS = (
    Rule(
        "embeddings",
        "they are called another kind, model or dimension than their space is of",
        "embedding",
        select(embeddings.c.id)
        .select_from(_of_space)
        .where(
            or_(
                embeddings.c.embedding_type != embedding_spaces.c.kind,
                embeddings.c.model_name != embedding_spaces.c.model,
                embeddings.c.embedding_dimension != embedding_spaces.c.dimension,
            )
        ),
        RESTORE,
    ),
    Rule(
        "embeddings",
        "they name another recording or version than their passage has",
        "embedding",
        select(embeddings.c.id)
        .join(passages, passages.c.id == embeddings.c.passage_id)
        .where(
            or_(
                embeddings.c.audio_file_id != passages.c.audio_file_id,
                embeddings.c.transcript_id != passages.c.transcript_id,
                embeddings.c.transcript_id.is_(None),
            )
        ),
        RESTORE,
    ),
    Rule(
        "vectors",
        "they are not as long as their space wants",
        "embedding",
        select(embeddings.c.id)
        .select_from(_of_space)
        .where(func.length(embeddings.c.embedding_data) != 4 * embedding_spaces.c.dimension),
        MADE_AGAIN,
        Severity.WARNING,
        repairable=True,
    ),
)
SPACES = (
    Rule(
        "spaces",
        "of their kind there is none in use",
        "space",
        select(func.min(embedding_spaces.c.id))
        .group_by(embedding_spaces.c.kind)
        .having(func.sum(case((embedding_spaces.c.active == true(), 1), else_=0)) == 0),
        "Put one in use: audio-storage reembed.",
    ),
)

TEXTS, NUMBERS = ("text", "boolean", "json"), ("real", "datetime", "date")
_typed = metadata.c.value_type
_plain = or_(
    and_(_typed == "null", metadata.c.value.is_(None), metadata.c.value_number.is_(None)),
    and_(_typed.in_(TEXTS), metadata.c.value.is_not(None), metadata.c.value_number.is_(None)),
    and_(_typed.in_(NUMBERS), metadata.c.value.is_not(None), metadata.c.value_number.is_not(None)),
    and_(_typed == "integer", metadata.c.value.is_not(None)),
)
METADATA = (
    Rule(
        "metadata",
        "their value, type and number do not fit",
        "metadata value",
        select(metadata.c.id).where(~_plain),
        "The number is made anew from the value where it can be read; else set the key again.",
        repairable=True,
    ),
)

_alive = exists().where(audio_files.c.id == tombstones.c.audio_id)
DELETED = (
    Rule(
        "deletions",
        "they were deleted, and are there all the same",
        "recording",
        select(tombstones.c.audio_id).where(_alive),
        "Delete them again: audio-storage rm.",
    ),
)
UNFINISHED_DELETIONS = (
    Rule(
        "unfinished deletions",
        "their rows are deleted, their files not yet",
        "recording",
        select(tombstones.c.audio_id).where(tombstones.c.completed.is_(False)),
        "The deletion is finished.",
        Severity.WARNING,
        repairable=True,
    ),
)
KEYS = (
    Rule(
        "keys",
        "their data keys are gone: nobody can read their audio",
        "recording",
        select(audio_files.c.id).where(
            ~exists().where(data_keys.c.file_path == audio_files.c.file_path),
            ~exists().where(data_keys.c.file_path.is_(None)),  # it may be one of these, whose recording came late
        ),
        "Restore the catalogue from a backup that still has the keys.",
    ),
)


def mistyped(connection: Connection) -> Iterator[Finding]:
    """SQLite keeps a text where a number belongs, if it is told to: nothing that reads it expects that."""
    if connection.dialect.name != "sqlite":
        return
    for table in metadata_of_schema.sorted_tables:
        wrong = [func.typeof(column).not_in(["null", *_kept_as(column)]) for column in table.columns]
        what = f"{table.name} has values of another type than their columns"
        rule = Rule("types", what, table.name, select(table.c.id).where(or_(*wrong)), RESTORE)
        yield from filter(None, [rule.broken(connection)])


def _kept_as(column: Column[Any]) -> list[str]:
    """The kinds of value that SQLite keeps in such a column."""
    if isinstance(column.type, Float):
        return ["real", "integer"]
    if isinstance(column.type, Integer | BigInteger | Boolean) or column.name == "xid":
        return ["integer"]
    return ["blob"] if isinstance(column.type, LargeBinary) else ["text"]


def reused_ids(connection: Connection) -> Iterator[Finding]:
    """Tables whose next ids were given before."""
    for table in metadata_of_schema.sorted_tables:
        highest = connection.execute(select(func.max(table.c.id))).scalar() or 0
        if table is not tables.archive and highest > last_given(connection, table):
            what, remedy = f"{table.name} would give ids a second time", "Its counter is moved beyond the highest id."
            warning: dict[str, Any] = {"severity": Severity.WARNING, "what": what, "remedy": remedy, "repairable": True}
            yield Finding("ids", kind="table", ids=(table.name,), count=1, **warning)
