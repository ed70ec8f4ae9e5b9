"""Who asks, and what they may: the rule is one query, joined into every listing and search.

A principal sees a recording that it owns, or that it was granted: the recording itself, a selection by metadata that
holds for it, or the whole archive. What a group owns or was granted, its members own and were granted, through groups
in groups. The rule reads nothing but the catalogue as it is, so it holds from the moment that anything changes.

It comes in two forms, because planners of databases take the wrong side otherwise: `Access.recordings` lists what is
seen, from the few grants of one principal; `Access.holds` asks of each given recording. Tests: `test_access_rule.py`.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from sqlalchemy import (
    CTE,
    ColumnElement,
    CompoundSelect,
    Connection,
    Select,
    and_,
    func,
    literal,
    or_,
    select,
    true,
    union,
)

from audio_storage_system.clock import utc_now
from audio_storage_system.database import Database
from audio_storage_system.database.remembering import remembered
from audio_storage_system.database.tables import (
    audio_files,
    grant_conditions,
    grants,
    jobs,
    memberships,
    metadata,
    principals,
    transcripts,
)
from audio_storage_system.errors import Forbidden, NotFound
from audio_storage_system.records import OWNER_ID


class Role(StrEnum):
    """What somebody may: each may what those before it may."""

    READER = "reader"
    EDITOR = "editor"
    OWNER = "owner"
    ADMIN = "admin"

    @property
    def sufficient(self) -> tuple[Role, ...]:
        """This one, and those that may more."""
        roles = tuple(Role)
        return roles[roles.index(self) :]


class Reach(StrEnum):
    """What a grant is on: the values of `grants.reach`."""

    RECORDING = "recording"
    SELECTION = "selection"
    ARCHIVE = "archive"


@dataclass(frozen=True, slots=True)
class Access:
    """Who asks. `restricted`: only what they own or were granted exists for them.

    most: what they may at most, whatever they were granted: less than `admin` with a token of few scopes. epoch: how
    many of their grants have expired, see `standing`.
    """

    principal_id: int = OWNER_ID
    name: str = "owner"
    restricted: bool = False
    most: Role = Role.ADMIN
    epoch: int = 0
    database: Database | None = field(default=None, repr=False, compare=False)

    # The rule

    def recordings(self, role: Role = Role.READER) -> CompoundSelect[int]:
        """The ids of the recordings on which they have this role or a higher one, each once."""
        mine = _mine(self.principal_id)
        good = _good(mine, role)
        owned = select(audio_files.c.id).where(audio_files.c.owner_id.in_(select(mine.c.id)))
        given = select(grants.c.audio_file_id).where(good, grants.c.reach == Reach.RECORDING)
        return union(owned, given, _selected(good), _everything(good))

    def holds(self, role: Role = Role.READER) -> ColumnElement[bool]:
        """The condition on `audio_files`, asked of each, for the same."""
        mine = _mine(self.principal_id)
        equal = or_(
            metadata.c.value == grant_conditions.c.value, metadata.c.value_number == grant_conditions.c.value_number
        )
        here = and_(metadata.c.audio_file_id == audio_files.c.id, metadata.c.key == grant_conditions.c.key, equal)
        met = select(metadata.c.id).where(here).correlate(audio_files, grant_conditions).exists()
        conditions = select(grant_conditions.c.id).where(grant_conditions.c.grant_id == grants.c.id)
        unmet = conditions.where(~met).correlate(grants, audio_files).exists()
        selected = and_(conditions.correlate(grants).exists(), ~unmet)
        reached = or_(
            grants.c.audio_file_id == audio_files.c.id,
            grants.c.reach == Reach.ARCHIVE,
            and_(grants.c.reach == Reach.SELECTION, selected),
        )
        granted = select(grants.c.id).where(_good(mine, role), reached).correlate(audio_files).exists()
        return or_(audio_files.c.owner_id.in_(select(mine.c.id)), granted)

    def only(self, audio_id: ColumnElement[int | None], role: Role = Role.READER) -> list[ColumnElement[bool]]:
        """The condition that a column names one of these recordings; none where nothing is held back."""
        return [audio_id.in_(self.recordings(role))] if self.restricted else []

    @property
    def limit(self) -> Access | None:
        """This, where it holds anything back: what a filter takes."""
        return self if self.restricted else None

    def standing(self, connection: Connection) -> Access | None:
        """The same as of now: what is remembered of it must be asked anew as soon as a grant expires, though nothing in
        the database changes then. `None` where they see everything."""
        known = remembered(connection, ("grants", self.principal_id), lambda: self._grants(connection))
        now = utc_now()
        if any(reach == Reach.ARCHIVE and (until is None or until > now) for reach, until in known):
            return None
        return replace(self, epoch=bisect_right(sorted(until for _, until in known if until), now))

    def _grants(self, connection: Connection) -> list[tuple[str, datetime | None]]:
        mine = _mine(self.principal_id)
        query = select(grants.c.reach, grants.c.expires_at).where(grants.c.principal_id.in_(select(mine.c.id)))
        return [(row.reach, row.expires_at) for row in connection.execute(query)]

    # Asking for permission

    def may(self, connection: Connection, audio_id: int, role: Role = Role.READER) -> bool:
        """Whether they have this role on a recording."""
        if not self.restricted:
            return True
        query = select(audio_files.c.id).where(audio_files.c.id == audio_id, self.holds(role))
        return connection.execute(query).first() is not None

    def require(
        self, connection: Connection, audio_id: int, role: Role = Role.READER, action: str = "read", **hidden: object
    ) -> None:
        """Raise `NotFound` for a recording that they may not see, as if it did not exist, and `Forbidden` where they
        lack this role on it; `action` completes "may not … recording 7". Whoever is not restricted is asked nothing.
        hidden: what to call it in `NotFound` (`kind`, `id`), when it is something made from the recording."""
        if not self.restricted or (role in self._within and self.may(connection, audio_id, role)):
            return
        if role is Role.READER or not self.may(connection, audio_id, Role.READER):
            raise NotFound(**(hidden or {"kind": "recording", "id": audio_id}))
        raise Forbidden(principal=self.name, action=f"{action} recording {audio_id}")

    def require_version(
        self, connection: Connection, transcript_id: int, role: Role = Role.READER, action: str = "read"
    ) -> None:
        """`require` for the recording of a transcript; where they may not see that, there is no such transcript."""
        if self.restricted:
            of = select(transcripts.c.audio_file_id).where(transcripts.c.id == transcript_id)
            self._require_behind(connection, of, role, action, kind="transcript", id=transcript_id)

    def require_job(
        self, connection: Connection, job_id: int, role: Role = Role.READER, action: str = "see the jobs of"
    ) -> None:
        """`require` for the recording of a job; one of the whole archive is there for admins only."""
        if self.restricted:
            of = select(jobs.c.audio_file_id).where(jobs.c.id == job_id)
            self._require_behind(connection, of, role, action, kind="job", id=job_id)

    def _require_behind(
        self, connection: Connection, of: Select[int], role: Role, action: str, **hidden: object
    ) -> None:
        found = connection.execute(of).first()
        if found is None or (found[0] is None and not self.is_admin_in(connection)):
            raise NotFound(**hidden)
        if found[0] is not None:
            self.require(connection, found[0], role, action, **hidden)

    def require_scope(self, role: Role, action: str) -> None:
        """Raise `Forbidden` where they come with a token that is not for this: storing needs no role but this."""
        if role not in self._within:
            raise Forbidden(principal=self.name, action=f"{action} with this token")

    @property
    def may_write(self) -> bool:
        """Whether they may store and change anything at all: not with a token that only reads."""
        return not self.restricted or Role.EDITOR in self._within

    def require_admin(self, action: str) -> None:
        """Raise `Forbidden` unless they may do what concerns the whole archive; `action` completes "may not …"."""
        if not self.is_admin:
            raise Forbidden(principal=self.name, action=action)

    @property
    def is_admin(self) -> bool:
        """Whether they may do what concerns the whole archive."""
        if not self.restricted or self.database is None:
            return not self.restricted
        with self.database.read() as connection:
            return self.is_admin_in(connection)

    def is_admin_in(self, connection: Connection) -> bool:
        """The same, asked in a transaction that is open."""
        if not self.restricted or Role.ADMIN not in self._within:
            return not self.restricted
        good = _good(_mine(self.principal_id), Role.ADMIN)
        return connection.execute(select(grants.c.id).where(good, grants.c.reach == Reach.ARCHIVE)).first() is not None

    @property
    def _within(self) -> tuple[Role, ...]:
        """The roles that this is not too little for."""
        return tuple(role for role in Role if self.most in role.sufficient)


def groups_of(principal_id: int, name: str = "mine") -> Select[int]:
    """The ids of a principal and of all groups that it is in, through groups in groups; none for one that is gone.
    name: another one than the rule's, where that is in the same statement."""
    return select(_mine(principal_id, name).c.id)


def _mine(principal_id: int, name: str = "mine") -> CTE:
    # UNION, not UNION ALL: a circle of groups ends where it comes back to what is known.
    first = select(principals.c.id).where(principals.c.id == principal_id).cte(name, recursive=True)
    return first.union(select(memberships.c.group_id).join(first, first.c.id == memberships.c.member_id))


def _good(mine: CTE, role: Role) -> ColumnElement[bool]:
    """The condition on `grants` for those that give `mine` this role now."""
    return and_(
        grants.c.principal_id.in_(select(mine.c.id)),
        grants.c.role.in_([enough.value for enough in role.sufficient]),
        or_(grants.c.expires_at.is_(None), grants.c.expires_at > utc_now()),
    )


def _selected(good: ColumnElement[bool]) -> Select[int]:
    """The recordings that meet every condition of a selection: of each condition those that meet it, by index, as text
    or as number; then those that were found as often as the grant has conditions."""
    columns = grants.c.id.label("grant_id"), grant_conditions.c.id.label("condition_id"), metadata.c.audio_file_id
    conditions = grants.join(grant_conditions, grant_conditions.c.grant_id == grants.c.id)

    def meeting(equal: ColumnElement[bool]) -> Select[int, int, int]:
        joined = conditions.join(metadata, and_(metadata.c.key == grant_conditions.c.key, equal))
        return select(*columns).select_from(joined).where(good, grants.c.reach == Reach.SELECTION)

    met = union(
        meeting(metadata.c.value == grant_conditions.c.value),
        meeting(metadata.c.value_number == grant_conditions.c.value_number),
    ).subquery("met")
    wanted = select(func.count()).where(grant_conditions.c.grant_id == met.c.grant_id).scalar_subquery()
    return select(met.c.audio_file_id).group_by(met.c.grant_id, met.c.audio_file_id).having(func.count() == wanted)


def _everything(good: ColumnElement[bool]) -> Select[int]:
    """All recordings, where a grant is on the archive."""
    wide = select(literal(1).label("one")).where(good, grants.c.reach == Reach.ARCHIVE).limit(1).subquery("wide")
    return select(audio_files.c.id).select_from(wide.join(audio_files, true()))
