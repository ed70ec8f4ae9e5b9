"""Filters: what a search, a listing or a selection of recordings is limited to, as SQL conditions.

`where` maps a metadata key to a value (equal), a list (any of them), `None` (a null value) or operators:
`{"gte": 3, "lt": 5}` on numbers and dates, `{"in": [...]}`, `{"eq": ...}`, `{"exists": True}`. A few names mean facts
of the recording or its transcript instead of metadata, see `FIELDS`; `metadata.<key>` always means metadata.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from reprlib import repr as brief
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Float, Integer, and_, exists, false, or_, select, true

from audio_storage_system.catalogue import metadata as values
from audio_storage_system.catalogue import transcripts as versions
from audio_storage_system.catalogue.limits import Limit
from audio_storage_system.database import tables
from audio_storage_system.database.queries import one_of
from audio_storage_system.database.tables import audio_files, passages, segments, transcripts
from audio_storage_system.database.types import UtcDateTime
from audio_storage_system.errors import InvalidFilter, InvalidMetadata

FIELDS: dict[str, Column[Any]] = {
    "audio_id": audio_files.c.id,
    "original_name": audio_files.c.original_name,
    "media_type": audio_files.c.media_type,
    "duration": audio_files.c.duration,
    "created_at": audio_files.c.created_at,
    "recorded_at": audio_files.c.recorded_at,
    "engine": transcripts.c.engine,
    "whisper_model": transcripts.c.whisper_model,
    "outcome": transcripts.c.outcome,
    "confidence": transcripts.c.confidence,
}
COMPARISONS = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}
OPERATORS = ("eq", "in", "exists", *COMPARISONS)
METADATA_PREFIX = "metadata."
# Below this, an integer and its float are the same number.
EXACT_NUMBERS = 2**53
# Each is a parameter of its own, of which SQLite takes 32,766 altogether.
MOST_LISTED = 10_000


@dataclass(frozen=True)
class Filter:
    """What to limit to. `since` ≤ recorded_at < `until`; `language` an ISO 639-1 code of the transcript; `speaker` a
    name that speaks in the passage. Naive times are taken as UTC. access: who asks, unless everything is theirs to see.
    """

    where: Mapping[str, Any] = field(default_factory=dict)
    since: datetime | date | str | None = None
    until: datetime | date | str | None = None
    language: str | None = None
    speaker: str | None = None
    access: Limit | None = None

    @property
    def limits(self) -> bool:
        """Whether there is anything to limit to."""
        return bool(self.where or self.since or self.until or self.language or self.speaker or self.access)

    def standing(self, connection: Connection) -> Filter:
        """The same as who asks is entitled to it now: what holds until anything changes, and may be remembered."""
        return self if self.access is None else replace(self, access=self.access.standing(connection))

    @property
    def period(self) -> tuple[datetime | None, datetime | None]:
        """`since` and `until` as instants. Raises `InvalidFilter`."""
        since = None if self.since is None else _instant("since", self.since)
        return since, None if self.until is None else _instant("until", self.until)

    def on_recordings(self, *, probing: bool = False) -> list[ColumnElement[bool]]:
        """Conditions on `audio_files`. `probing`: written for asking whether given recordings pass, rather than which
        ones pass. Raises `InvalidFilter`."""
        conditions = [
            _metadata(key, wanted, probing) if column is None else _field(key, column, wanted)
            for key, column, wanted in self._parts()
            if column is None or column.table is audio_files
        ]
        if self.access is not None:
            held = self.access.holds() if probing else audio_files.c.id.in_(self.access.recordings())
            conditions.append(held)
        if self.since is not None:
            conditions.append(audio_files.c.recorded_at >= _instant("since", self.since))
        if self.until is not None:
            conditions.append(audio_files.c.recorded_at < _instant("until", self.until))
        return conditions

    def on_transcripts(self) -> list[ColumnElement[bool]]:
        """Conditions on `transcripts`. Raises `InvalidFilter`."""
        parts = self._parts()
        conditions = [_field(k, c, w) for k, c, w in parts if c is not None and c.table is transcripts]
        return [*conditions, *([transcripts.c.language == self.language] if self.language else [])]

    def on_passages(self) -> list[ColumnElement[bool]]:
        """Conditions on `passages`."""
        if self.speaker is None:
            return []
        speaks = select(segments.c.id).where(
            segments.c.transcript_id == passages.c.transcript_id,
            segments.c.id.between(passages.c.first_segment_id, passages.c.last_segment_id),
            segments.c.speaker == self.speaker,
        )
        return [speaks.exists()]

    def on_listing(self) -> list[ColumnElement[bool]]:
        """Conditions on `audio_files` alone, for listings: the transcript's and the speaker's become part of them. They
        speak of the version that search follows, or of the latest where it follows none."""
        said = [*self.on_transcripts(), *self.on_passages()]
        if not said:
            return self.on_recordings()
        inside = select(transcripts.c.audio_file_id).where(_shown(), *self.on_transcripts())
        if self.on_passages():
            inside = inside.join(passages, passages.c.transcript_id == transcripts.c.id).where(*self.on_passages())
        return [*self.on_recordings(), audio_files.c.id.in_(inside)]

    def _parts(self) -> list[tuple[str, Column[Any] | None, Any]]:
        if not isinstance(self.where, Mapping):
            raise InvalidFilter(key="where", reason=f"expected a mapping, got {type(self.where).__name__}")
        return [(str(key), FIELDS.get(str(key)), wanted) for key, wanted in self.where.items()]


def _shown() -> ColumnElement[bool]:
    """The condition on `transcripts` for the version that search follows, or the latest where all have failed."""
    other = transcripts.alias()
    better = exists().where(
        other.c.audio_file_id == transcripts.c.audio_file_id,
        or_(other.c.active == true(), other.c.outcome.is_(None), other.c.id > transcripts.c.id),
    )
    return or_(versions.searched(), ~better)


def _metadata(key: str, wanted: Any, probing: bool) -> ColumnElement[bool]:
    key = key.removeprefix(METADATA_PREFIX)
    if isinstance(wanted, Mapping) and "exists" in wanted:
        present = _has_entry(probing, tables.metadata.c.key == key)
        rest = {name: operand for name, operand in wanted.items() if name != "exists"}
        condition = present if wanted["exists"] else ~present
        return and_(condition, _metadata(key, rest, probing)) if rest else condition
    conditions = [_compare_metadata(key, name, operand) for name, operand in _operators(key, wanted)]
    return _has_entry(probing, tables.metadata.c.key == key, *conditions)


def _has_entry(probing: bool, *conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    """Some metadata entry of the recording meets the conditions: looked up by recording, or found by its value."""
    table = tables.metadata
    if probing:
        return exists().where(table.c.audio_file_id == audio_files.c.id, *conditions)
    return audio_files.c.id.in_(select(table.c.audio_file_id).where(*conditions))


def _compare_metadata(key: str, name: str, operand: Any) -> ColumnElement[bool]:
    table = tables.metadata
    if name == "in":
        return _equals_any(key, operand)
    if name == "eq":
        return _equals(key, operand)
    return _range(table.c.value_number, name, _number(key, operand))


def _equals(key: str, wanted: Any) -> ColumnElement[bool]:
    return _equals_any(key, [wanted])


def _equals_any(key: str, wanted: Iterable[Any]) -> ColumnElement[bool]:
    """Equal as text, or as number: 1 finds 1, 1.0 and "1". From 2^53 on, different integers are one float."""
    table, found = tables.metadata, [_encoded(key, item) for item in wanted]
    texts = [item.value for item in found if item.value is not None]
    numbers = [n for item in found if (n := item.value_number) is not None and abs(n) < EXACT_NUMBERS]
    return or_(
        false(),
        *([table.c.value.is_(None)] if len(texts) < len(found) else []),
        *([one_of(table.c.value, texts)] if texts else []),
        *([one_of(table.c.value_number, numbers)] if numbers else []),
    )


def _encoded(key: str, wanted: Any) -> values.Encoded:
    try:
        return values.encode(key, wanted)
    except InvalidMetadata as error:
        raise InvalidFilter(key=key, reason=str(error)) from error


def _field(key: str, column: Column[Any], wanted: Any) -> ColumnElement[bool]:
    return and_(*(_compare_field(key, column, name, operand) for name, operand in _operators(key, wanted)))


def _compare_field(key: str, column: Column[Any], name: str, operand: Any) -> ColumnElement[bool]:
    if name == "exists":
        return column.is_not(None) if operand else column.is_(None)
    if name == "in":
        wanted = [_field_value(key, column, item) for item in operand]
        if len(wanted) > MOST_LISTED:
            raise InvalidFilter(key=key, reason=f"a list of this field has at most {MOST_LISTED:,} values")
        return column.in_(wanted)
    if operand is None:
        return column.is_(None)
    operand = _field_value(key, column, operand)
    return _range(column, name, operand) if name in COMPARISONS else column == operand


def _field_value(key: str, column: Column[Any], operand: Any) -> Any:
    """`operand` as the column keeps its values. Raises `InvalidFilter` for another type."""
    if isinstance(column.type, UtcDateTime):
        return _instant(key, operand)
    if not isinstance(column.type, Float | Integer):
        return _text(key, str(operand))
    if isinstance(operand, int | float) and not isinstance(operand, bool) and operand == operand:
        return operand
    raise InvalidFilter(key=key, reason=f"{brief(operand)} is not a number")


def _text(key: str, operand: str) -> str:
    if "\0" in operand or (not operand.isprintable() and any("\ud800" <= one <= "\udfff" for one in operand)):
        raise InvalidFilter(key=key, reason="it has characters that are not text")
    return operand


def _operators(key: str, wanted: Any) -> list[tuple[str, Any]]:
    if isinstance(wanted, list | tuple | set | frozenset):
        return [("in", list(wanted))]
    if not isinstance(wanted, Mapping):
        return [("eq", wanted)]
    unknown = [str(name) for name in wanted if name not in OPERATORS]
    if unknown or not wanted:
        reason = f"unknown operator {', '.join(unknown) or '(none given)'}; there are: {', '.join(OPERATORS)}"
        raise InvalidFilter(key=key, reason=reason)
    if "in" in wanted and not isinstance(wanted["in"], list | tuple | set | frozenset):
        raise InvalidFilter(key=key, reason='"in" takes a list')
    return list(wanted.items())


def _range(column: ColumnElement[Any], name: str, operand: Any) -> ColumnElement[bool]:
    condition: ColumnElement[bool] = COMPARISONS[name](column, operand)
    return condition


def _number(key: str, operand: Any) -> float:
    """A number, or a time as seconds since 1970."""
    if isinstance(operand, int | float) and not isinstance(operand, bool) and operand == operand:
        try:
            return float(operand)
        except OverflowError as error:
            raise InvalidFilter(key=key, reason="the number is too large to compare with") from error
    return _instant(key, operand).timestamp()


def _instant(key: str, operand: Any) -> datetime:
    try:
        moment = datetime.fromisoformat(operand) if isinstance(operand, str) else operand
    except ValueError as error:
        raise InvalidFilter(key=key, reason=f"{operand[:40]!r} is neither a number nor an ISO 8601 time") from error
    if isinstance(moment, date) and not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day, tzinfo=UTC)
    if not isinstance(moment, datetime):
        raise InvalidFilter(key=key, reason=f"{brief(operand)} is neither a number nor a time")
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError as error:
        raise InvalidFilter(key=key, reason=f"{brief(operand)} is not in the years 1 to 9999 of UTC") from error
