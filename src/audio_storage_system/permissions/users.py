"""The board of principals: users, groups of them, and services."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import ColumnElement, Connection, Select, Update, delete, func, insert, select, update

from audio_storage_system.access import groups_of
from audio_storage_system.archive import Archive
from audio_storage_system.catalogue import locks, principals
from audio_storage_system.catalogue.principals import Kind, Principal
from audio_storage_system.clock import utc_now
from audio_storage_system.database.tables import (
    api_tokens,
    audio_files,
    grant_conditions,
    grants,
    memberships,
    metadata_schemas,
    webhooks,
)
from audio_storage_system.database.tables import principals as table
from audio_storage_system.errors import Conflict, InvalidInput
from audio_storage_system.records import OWNER_ID


class Users:
    """Who there is. Everything here is for who may do what concerns the whole archive: others get `Forbidden`."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    def add(self, name: str, kind: Kind | str = Kind.USER) -> Principal:
        """A new principal: a `user`, a `group` or a `service`. Raises `Conflict` where the name is taken."""
        self._archive.access.require_admin("add users")
        name, wanted = principals.check_name(name), _kind(kind)
        with self._archive.database.write(locks.PRINCIPALS) as connection:
            if principals.find(connection, name) is not None:
                raise Conflict(reason=f"There is a principal {name} already")
            self._archive.audit.note(connection, "user.added", name=name, kind=wanted.value)
            return principals.ensure(connection, name, wanted)

    def list(self, *, limit: int | None = None, after: int = 0) -> list[Principal]:
        """Everybody, the oldest first, with the groups that they are in. limit, after: at most so many, of those with a
        higher id."""
        self._archive.access.require_admin("list users")
        with self._archive.database.read() as connection:
            groups = _groups(connection)
            page = select(table).where(table.c.id > int(after)).order_by(table.c.id).limit(limit)
            rows = connection.execute(page).all()
        return [
            Principal(row.id, row.name, Kind(row.kind), row.created_at, tuple(groups.get(row.id, ()))) for row in rows
        ]

    def get(self, name: str) -> Principal:
        """One of them. Raises `NotFound`."""
        self._archive.access.require_admin("list users")
        with self._archive.database.read() as connection:
            found = principals.get(connection, name)
            return replace(found, groups=groups_around(connection, found.id))

    def remove(self, name: str) -> None:
        """Take a principal away, with its grants, tokens, webhooks and memberships. Raises `NotFound`, and `Conflict`
        for one that owns recordings: delete these first, or leave it and revoke its tokens."""
        self._archive.access.require_admin("remove users")
        with self._archive.database.write(locks.PRINCIPALS) as connection:
            gone = principals.get(connection, name).id
            _check_free(connection, gone, name)
            given = select(grants.c.id).where(grants.c.principal_id == gone)
            connection.execute(delete(grant_conditions).where(grant_conditions.c.grant_id.in_(given)))
            connection.execute(delete(grants).where(grants.c.principal_id == gone))
            connection.execute(_revoked(gone))
            either = (memberships.c.group_id == gone) | (memberships.c.member_id == gone)
            connection.execute(delete(memberships).where(either))
            connection.execute(delete(webhooks).where(webhooks.c.principal_id == gone))
            connection.execute(delete(metadata_schemas).where(metadata_schemas.c.owner_id == gone))
            connection.execute(delete(table).where(table.c.id == gone))
            self._archive.audit.note(connection, "user.removed", name=name)

    def join(self, group: str, member: str) -> None:
        """Make somebody, or a group, a member of a group: what is granted to it is granted to them. To be one already
        is no error. Raises `NotFound`, `InvalidInput` for what is no group, `Conflict` for a circle."""
        self._archive.access.require_admin("change groups")
        with self._archive.database.write(locks.PRINCIPALS) as connection:
            to, who = _group(connection, group), principals.get(connection, member)
            if who.id in connection.execute(groups_of(to.id)).scalars().all():
                raise Conflict(reason=f"{group} would be a member of itself, through {member}")
            if not connection.execute(_membership(to, who)).first():
                row = {"group_id": to.id, "member_id": who.id, "created_at": utc_now()}
                connection.execute(insert(memberships), row)
                self._archive.audit.note(connection, "group.joined", group=group, member=member)

    def leave(self, group: str, member: str) -> None:
        """Take a member out of a group; one that it does not have is no error. Raises `NotFound`, `InvalidInput`."""
        self._archive.access.require_admin("change groups")
        with self._archive.database.write(locks.PRINCIPALS) as connection:
            found = _membership(_group(connection, group), principals.get(connection, member))
            if connection.execute(delete(memberships).where(memberships.c.id.in_(found))).rowcount:
                self._archive.audit.note(connection, "group.left", group=group, member=member)


def _kind(kind: Kind | str) -> Kind:
    try:
        return Kind(kind)
    except ValueError:
        raise InvalidInput(reason=f'There is no kind "{kind}" of principal; there are: {", ".join(Kind)}') from None


def _group(connection: Connection, name: str) -> Principal:
    found = principals.get(connection, name)
    if found.kind is not Kind.GROUP:
        raise InvalidInput(reason=f"{name} is a {found.kind} and has no members")
    return found


def _membership(group: Principal, member: Principal) -> Select[int]:
    return select(memberships.c.id).where(memberships.c.group_id == group.id, memberships.c.member_id == member.id)


def groups_around(connection: Connection, principal_id: int) -> tuple[str, ...]:
    """The names of the groups that one is in itself."""
    return tuple(_groups(connection, memberships.c.member_id == principal_id).get(principal_id, ()))


def _groups(connection: Connection, *conditions: ColumnElement[bool]) -> dict[int, list[str]]:
    """The names of the groups that each is in."""
    query = select(memberships.c.member_id, table.c.name).join(table, table.c.id == memberships.c.group_id)
    query = query.where(*conditions)
    found: dict[int, list[str]] = {}
    for member_id, name in connection.execute(query.order_by(table.c.name)):
        found.setdefault(member_id, []).append(name)
    return found


def _check_free(connection: Connection, principal_id: int, name: str) -> None:
    if principal_id == OWNER_ID:
        raise Conflict(reason=f"{name} is the archive's own owner and stays")
    owned = select(func.count()).select_from(audio_files).where(audio_files.c.owner_id == principal_id)
    if count := connection.execute(owned).scalar_one():
        raise Conflict(reason=f"{name} owns {count} recording(s), which have to be deleted first")


def _revoked(principal_id: int) -> Update:
    """Their tokens stay, revoked: an archive that ever had one asks everybody for theirs."""
    revoked_at = func.coalesce(api_tokens.c.revoked_at, utc_now())
    of = update(api_tokens).where(api_tokens.c.principal_id == principal_id)
    return of.values(principal_id=OWNER_ID, revoked_at=revoked_at)
