"""The board of grants: who may what, with which recordings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, insert, or_, select

from audio_storage_system.access import Reach, Role, groups_of
from audio_storage_system.archive import Archive
from audio_storage_system.catalogue import locks, metadata, principals, recordings
from audio_storage_system.catalogue.filters import EXACT_NUMBERS, FIELDS, METADATA_PREFIX
from audio_storage_system.clock import utc_now
from audio_storage_system.database.queries import within
from audio_storage_system.database.tables import grant_conditions, grants
from audio_storage_system.database.tables import principals as principal_table
from audio_storage_system.errors import Forbidden, InvalidFilter, InvalidInput, InvalidMetadata, NotFound
from audio_storage_system.permissions.moments import future
from audio_storage_system.records import Metadata, jsonable

# What can be given on each: who may everything with the archive is its admin.
ROLES: Mapping[Reach, tuple[Role, ...]] = {
    Reach.RECORDING: (Role.READER, Role.EDITOR, Role.OWNER),
    Reach.SELECTION: (Role.READER, Role.EDITOR, Role.OWNER),
    Reach.ARCHIVE: (Role.READER, Role.EDITOR, Role.ADMIN),
}
MOST_CONDITIONS = 20


@dataclass(frozen=True, slots=True)
class Grant:
    """What a principal was given: a role on a recording (`audio_id`), on those whose metadata meets every condition of
    `where` (a selection), or on the archive, as `reach` says."""

    id: int
    principal: str
    role: Role
    reach: Reach
    audio_id: int | None
    where: Mapping[str, str]
    created_at: datetime
    expires_at: datetime | None

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; the id under the name `grant_id`."""
        data: dict[str, Any] = jsonable({"grant_id": self.id, **asdict(self)})
        del data["id"]
        return data


class Grants:
    """Who may what. On a recording its owners give and take; on selections and the archive, admins."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    def give(
        self,
        principal: str,
        role: Role | str,
        *,
        audio_id: int | None = None,
        where: Metadata | None = None,
        everything: bool = False,
        expires_at: datetime | None = None,
    ) -> Grant:
        """Let a principal, or the members of a group, be `reader`, `editor` or `owner` of a recording, or of those
        whose metadata meets every condition of `where` (equality, as in searches; also recordings to come); or
        `reader`, `editor` or `admin` of `everything`. It holds at once, and until `expires_at`.

        Raises `NotFound`, `Forbidden`, `InvalidInput`, `InvalidFilter`.
        """
        reach = _reach(audio_id, where, everything)
        given, until = _role(role, reach), future(expires_at)
        conditions = _conditions(where) if where is not None else []
        if reach is not Reach.RECORDING:
            self._archive.access.require_admin("give rights on more than a recording")
        names = () if audio_id is None else (locks.of_recording(int(audio_id)),)
        with self._archive.database.write(locks.PRINCIPALS, *names) as connection:
            if audio_id is not None:
                self._archive.access.require(connection, int(audio_id), Role.OWNER, "give rights on")
                recordings.must_exist(connection, int(audio_id))
            row: dict[str, Any] = {
                "principal_id": principals.get(connection, principal).id,
                "role": given.value,
                "reach": reach.value,
                "audio_file_id": None if audio_id is None else int(audio_id),
                "created_by": self._archive.access.principal_id,
                "created_at": utc_now(),
                "expires_at": until,
            }
            grant_id = connection.execute(insert(grants).returning(grants.c.id), row).scalar_one()
            if conditions:
                connection.execute(insert(grant_conditions), [{"grant_id": grant_id, **one} for one in conditions])
            self._archive.audit.note(
                connection,
                "grant.given",
                row["audio_file_id"],
                principal=principal,
                role=given.value,
                reach=reach.value,
            )
            return self._one(connection, grant_id)

    def list(
        self,
        principal: str | None = None,
        *,
        audio_id: int | None = None,
        limit: int | None = None,
        after: int = 0,
    ) -> list[Grant]:
        """The grants to a principal itself, or on a recording itself; default all, the oldest first. Whoever is no
        admin is told of those that are to them, or on recordings that they own. limit, after: at most so many, of those
        with a higher id."""
        conditions = [] if audio_id is None else [grants.c.audio_file_id == int(audio_id)]
        if principal is not None:
            conditions.append(principal_table.c.name == principal)
        seen = self._seen()
        with self._archive.database.read() as connection:
            return _read(connection, grants.c.id > int(after), *conditions, *seen, limit=limit)

    def revoke(self, grant_id: int) -> Grant:
        """Take a grant back, at once; what it was. Raises `NotFound`, `Forbidden`."""
        seen = self._seen()
        with self._archive.database.write(locks.PRINCIPALS) as connection:
            grant = self._one(connection, grant_id, *seen)
            if grant.audio_id is not None:
                self._archive.access.require(connection, grant.audio_id, Role.OWNER, "take rights back on")
            elif not self._archive.access.is_admin_in(connection):
                raise Forbidden(principal=self._archive.access.name, action="take back rights on more than a recording")
            connection.execute(delete(grant_conditions).where(grant_conditions.c.grant_id == grant.id))
            connection.execute(delete(grants).where(grants.c.id == grant.id))
            self._archive.audit.note(
                connection, "grant.revoked", grant.audio_id, principal=grant.principal, role=grant.role.value
            )
            return grant

    def _seen(self) -> Sequence[ColumnElement[bool]]:
        """The condition for grants that whoever asks may be told of."""
        access = self._archive.access
        if access.is_admin:
            return []
        [owned] = access.only(grants.c.audio_file_id, Role.OWNER)
        return [or_(owned, grants.c.principal_id.in_(groups_of(access.principal_id, "also_mine")))]

    def _one(self, connection: Connection, grant_id: int, *seen: ColumnElement[bool]) -> Grant:
        found = _read(connection, grants.c.id == int(grant_id), *seen)
        if not found:
            raise NotFound(kind="grant", id=grant_id)
        return found[0]


def _read(connection: Connection, *conditions: ColumnElement[bool], limit: int | None = None) -> list[Grant]:
    query = select(grants, principal_table.c.name).join(principal_table, principal_table.c.id == grants.c.principal_id)
    rows = connection.execute(query.where(*conditions).order_by(grants.c.id).limit(limit)).all()
    of_grants = select(grant_conditions).where(within(grant_conditions.c.grant_id, [row.id for row in rows]))
    where: dict[int, dict[str, str]] = {}
    for one in connection.execute(of_grants.order_by(grant_conditions.c.id)):
        where.setdefault(one.grant_id, {})[one.key] = one.value
    return [
        Grant(
            r.id,
            r.name,
            Role(r.role),
            Reach(r.reach),
            r.audio_file_id,
            where.get(r.id, {}),
            r.created_at,
            r.expires_at,
        )
        for r in rows
    ]


def _reach(audio_id: int | None, where: Metadata | None, everything: bool) -> Reach:
    given = {Reach.RECORDING: audio_id is not None, Reach.SELECTION: where is not None, Reach.ARCHIVE: everything}
    if sum(given.values()) != 1:
        raise InvalidInput(
            reason="A grant is on one of: a recording (audio_id, --recording), a selection (--where), --everything"
        )
    return next(reach for reach, wanted in given.items() if wanted)


def _role(role: Role | str, reach: Reach) -> Role:
    allowed = ROLES[reach]
    if role not in [one.value for one in allowed]:
        raise InvalidInput(reason=f'On a {reach} there is no role "{role}"; there are: {", ".join(allowed)}')
    return Role(role)


def _conditions(where: Metadata) -> list[dict[str, Any]]:
    """The rows of a selection's conditions. An empty selection would be everything: that is said differently."""
    if not isinstance(where, Mapping) or not 0 < len(where) <= MOST_CONDITIONS:
        raise InvalidFilter(key="where", reason=f"a selection is a mapping of 1 to {MOST_CONDITIONS} keys")
    return [_condition(str(key), wanted) for key, wanted in where.items()]


def _condition(key: str, wanted: Any) -> dict[str, Any]:
    if key in FIELDS:
        raise InvalidFilter(key=key, reason=f"rights go by metadata only: say {METADATA_PREFIX}{key} if you mean that")
    if wanted is None or isinstance(wanted, Mapping | list | tuple | set | frozenset):
        raise InvalidFilter(key=key, reason="rights go by one value of a key, text, number, date, true or false")
    try:
        encoded = metadata.encode(key.removeprefix(METADATA_PREFIX), wanted)
    except InvalidMetadata as error:
        raise InvalidFilter(key=key, reason=str(error)) from error
    number = encoded.value_number
    exact = number if number is not None and abs(number) < EXACT_NUMBERS else None
    return {"key": key.removeprefix(METADATA_PREFIX), "value": encoded.value, "value_number": exact}
