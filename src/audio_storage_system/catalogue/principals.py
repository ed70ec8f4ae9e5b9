"""Principals: who there is, and which groups they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, insert, select

from audio_storage_system.catalogue import metadata
from audio_storage_system.clock import utc_now
from audio_storage_system.database.tables import principals
from audio_storage_system.errors import InvalidInput, NotFound
from audio_storage_system.records import Metadata, jsonable

MAX_NAME_CHARACTERS = 255
# The key of the metadata that names the owner of a recording that is stored by nobody in particular.
OWNER_KEY = "user_id"


class Kind(StrEnum):
    """What a principal is. Only a group has members."""

    USER = "user"
    GROUP = "group"
    SERVICE = "service"


@dataclass(frozen=True, slots=True)
class Principal:
    """One row of `principals`. groups: the names of those that it is in itself."""

    id: int
    name: str
    kind: Kind
    created_at: datetime
    groups: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; the id under the name `principal_id`."""
        data: dict[str, Any] = jsonable({"principal_id": self.id, **asdict(self)})
        del data["id"]
        return data


def find(connection: Connection, name: str) -> Principal | None:
    """The principal of this name, if there is one."""
    return _first(connection, principals.c.name == name)


def find_id(connection: Connection, principal_id: int) -> Principal | None:
    """The principal with this id, if there is one."""
    return _first(connection, principals.c.id == principal_id)


def _first(connection: Connection, condition: ColumnElement[bool]) -> Principal | None:
    columns = principals.c.id, principals.c.name, principals.c.kind, principals.c.created_at
    row = connection.execute(select(*columns).where(condition)).first()
    return None if row is None else Principal(row.id, row.name, Kind(row.kind), row.created_at)


def get(connection: Connection, name: str) -> Principal:
    """The principal of this name. Raises `NotFound`."""
    found = find(connection, name)
    if found is None:
        raise NotFound(kind="principal", id=name)
    return found


def ensure(connection: Connection, name: str, kind: Kind = Kind.USER) -> Principal:
    """The principal of this name, made when it is new. Under `locks.PRINCIPALS`."""
    if find(connection, name) is None:
        row = {"name": name, "kind": kind.value, "created_at": utc_now()}
        connection.execute(insert(principals), row)
    return get(connection, name)


def check_name(name: object) -> str:
    """A name that a principal can have. Raises `InvalidInput`."""
    if not isinstance(name, str) or not _is_name(name):
        reason = f"A name is text of 1 to {MAX_NAME_CHARACTERS} characters, without blanks at its ends"
        raise InvalidInput(reason=reason)
    return name


def name_in(values: Metadata) -> str | None:
    """Whose a recording with this metadata is: its `user_id`, if that is text or a number that can be a name."""
    value = values.get(OWNER_KEY) if isinstance(values, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    name = name_of(value)
    return name if _is_name(name) else None


def name_of(user_id: str | int | float) -> str:
    """The name that a `user_id` stands for: a whole number is one, however it is written."""
    if isinstance(user_id, float) and user_id.is_integer():
        user_id = int(user_id)
    return metadata.encode(OWNER_KEY, user_id).value or ""


def _is_name(name: str) -> bool:
    return 0 < len(name) <= MAX_NAME_CHARACTERS and name == name.strip() and "\0" not in name
