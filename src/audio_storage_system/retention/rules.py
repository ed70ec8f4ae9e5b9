"""Retention rules, as rows."""

from __future__ import annotations

from sqlalchemy import Connection, RowMapping, delete, insert, select

from audio_storage_system.catalogue.selections import Selection
from audio_storage_system.clock import MOST_DAYS, utc_now
from audio_storage_system.database.tables import retention_rules
from audio_storage_system.errors import Conflict, InvalidInput, NotFound
from audio_storage_system.records import Stage
from audio_storage_system.retention.planning import RetentionRule

MOST_NAME_CHARACTERS = 200


def add(
    connection: Connection, name: str, stage: Stage, keep_days: float, selection: Selection, by: int
) -> RetentionRule:
    """A new rule. Raises `Conflict` for a name that another has."""
    if connection.execute(select(retention_rules.c.id).where(retention_rules.c.name == name)).first():
        raise Conflict(reason=f'There is a retention rule "{name}"; remove it first, or give this one another name')
    row = {
        "name": name,
        "stage": stage.value,
        "keep_days": keep_days,
        "conditions": selection.as_dict(),
        "created_by": by,
        "created_at": utc_now(),
    }
    added = connection.execute(insert(retention_rules).returning(retention_rules), row)
    return _rule(added.mappings().one())


def remove(connection: Connection, name: str) -> None:
    """Forget a rule; what it has deleted stays deleted. Raises `NotFound`."""
    if not connection.execute(delete(retention_rules).where(retention_rules.c.name == name)).rowcount:
        raise NotFound(kind="retention rule", id=f'"{name}"')


def every(connection: Connection) -> list[RetentionRule]:
    """All rules, in the order in which they were made."""
    return [_rule(row) for row in connection.execute(select(retention_rules).order_by(retention_rules.c.id)).mappings()]


def checked_days(keep_days: object) -> float:
    """A number of days, whole or not, as a rule can have it. Raises `InvalidInput`."""
    if not isinstance(keep_days, int | float) or isinstance(keep_days, bool) or not 0 <= keep_days <= MOST_DAYS:
        raise InvalidInput(reason=f"Days to keep are a number from 0 to {MOST_DAYS:,}, not {keep_days!r}")
    return float(keep_days)


def checked_name(name: str) -> str:
    """A name for a rule or a hold. Raises `InvalidInput`."""
    if not isinstance(name, str) or not name.strip() or len(name) > MOST_NAME_CHARACTERS or "\0" in name:
        raise InvalidInput(reason=f"A name is text of 1 to {MOST_NAME_CHARACTERS} characters")
    return name.strip()


def _rule(row: RowMapping) -> RetentionRule:
    values = dict(row)
    selection, stage = Selection.of(values.pop("conditions")), Stage(values.pop("stage"))
    return RetentionRule(selection=selection, stage=stage, **values)
