"""The board of API tokens: what programs prove themselves with.

A token is `ast_` and 32 random bytes (`secrets.token_urlsafe`). Only its SHA-256 is kept: a random key of this length
cannot be guessed from it, so there is nothing for a slow hash to protect. A token is looked up by that digest, and then
compared with `hmac.compare_digest`; one that is unknown is compared with a digest of nothing, so that it takes the same
steps.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Connection, Row, insert, select, update

from audio_storage_system.access import Access, Role
from audio_storage_system.archive import Archive
from audio_storage_system.catalogue import locks, principals
from audio_storage_system.clock import utc_now
from audio_storage_system.database.tables import api_tokens
from audio_storage_system.database.tables import principals as principal_table
from audio_storage_system.errors import InvalidInput, NotFound, Unauthorized
from audio_storage_system.permissions.moments import future
from audio_storage_system.records import jsonable

PREFIX, RANDOM_BYTES = "ast_", 32
LONGEST_TOKEN = 200
# How often it is noted at most that a token was used: not to write for every request.
NOTED_EVERY = timedelta(minutes=1)
NOBODY = hashlib.sha256(b"").hexdigest()

V = TypeVar("V")


class Scope(StrEnum):
    """What a token is for; each includes those before it."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


_MOST = {Scope.READ: Role.READER, Scope.WRITE: Role.OWNER, Scope.ADMIN: Role.ADMIN}


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a token, which is not the token itself."""

    id: int
    principal: str
    name: str
    scopes: tuple[Scope, ...]
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; the id under the name `token_id`."""
        data: dict[str, Any] = jsonable({"token_id": self.id, **asdict(self)})
        del data["id"]
        return data


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token that was just made. `secret` is the token: it is nowhere else, and is not shown again."""

    token: Token
    secret: str = field(repr=False)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, with the secret."""
        return {**self.token.as_dict(), "secret": self.secret}


class Tokens(Generic[V]):
    """Tokens of everybody for admins, of themselves for others. `view` makes what `authenticate` answers."""

    def __init__(self, archive: Archive, view: Callable[[Access], V]) -> None:
        self._archive = archive
        self._view = view

    def create(
        self,
        principal: str | None = None,
        *,
        name: str = "",
        scopes: Iterable[Scope | str] = (Scope.READ,),
        expires_at: datetime | None = None,
    ) -> NewToken:
        """A new token for a principal (default: who asks), for reading, writing, or what concerns the whole archive: of
        what the principal may, it allows no more than `scopes`. Raises `NotFound`, `Forbidden`, `InvalidInput`."""
        access, wanted, until = self._archive.access, _scopes(scopes), future(expires_at)
        whose = access.name if principal is None else principal
        if whose != access.name:
            access.require_admin("make tokens for others")
        access.require_scope(Role.EDITOR, "make tokens")  # else one that reads, and ends, could make one that does not
        access.require_scope(most_of(wanted), f"make a token to {wanted[-1]}")
        secret = PREFIX + secrets.token_urlsafe(RANDOM_BYTES)
        with self._archive.database.write(locks.PRINCIPALS) as connection:
            row = {
                "principal_id": principals.get(connection, whose).id,
                "name": _checked_name(name),
                "digest": digest_of(secret),
                "scopes": [scope.value for scope in wanted],
                "created_by": access.principal_id,
                "created_at": utc_now(),
                "expires_at": until,
            }
            token_id = connection.execute(insert(api_tokens).returning(api_tokens.c.id), row).scalar_one()
            self._archive.audit.note(connection, "token.created", token_id=token_id, principal=whose)
            return NewToken(_one(connection, token_id), secret)

    def list(self, principal: str | None = None, *, limit: int | None = None, after: int = 0) -> list[Token]:
        """The tokens of a principal; default all that whoever asks may be told of, the oldest first. Revoked and
        expired ones too. limit, after: at most so many, of those with a higher id."""
        conditions = [] if principal is None else [principal_table.c.name == principal]
        conditions += [api_tokens.c.id > int(after), *self._seen()]
        with self._archive.database.read() as connection:
            return [_token(row) for row in _rows(connection, *conditions, limit=limit)]

    def any(self) -> bool:
        """Whether there is or ever was one: a server then asks everybody for theirs."""
        with self._archive.database.read() as connection:
            return connection.execute(select(api_tokens.c.id).limit(1)).first() is not None

    def revoke(self, token_id: int) -> Token:
        """Let a token be accepted no longer, from now on. Raises `NotFound`."""
        self._archive.access.require_scope(Role.EDITOR, "revoke tokens")
        seen = self._seen()
        with self._archive.database.write() as connection:
            token = _one(connection, token_id, *seen)
            if token.revoked_at is None:
                revoked = update(api_tokens).where(api_tokens.c.id == token.id).values(revoked_at=utc_now())
                connection.execute(revoked)
                self._archive.audit.note(connection, "token.revoked", token_id=token.id, principal=token.principal)
            return _one(connection, token_id)

    def authenticate(self, token: str) -> V:
        """The view of whose token this is, with no more rights than its scopes. Raises `Unauthorized`, in the same
        words for one that never was and one that was revoked."""
        given = digest_of(token if isinstance(token, str) and len(token) <= LONGEST_TOKEN else "")
        with self._archive.database.read() as connection:
            found = next(iter(_rows(connection, api_tokens.c.digest == given)), None)
        same = hmac.compare_digest(found.digest if found else NOBODY, given)
        if found is None or not same or found.revoked_at is not None:
            raise Unauthorized(reason="it is unknown or was revoked")
        if found.expires_at is not None and found.expires_at <= utc_now():
            raise Unauthorized(reason="it has expired")
        self._note_use(found)
        return self._view(
            Access(found.principal_id, found.principal, restricted=True, most=most_of(_token(found).scopes))
        )

    def _note_use(self, found: Row[Any]) -> None:
        now = utc_now()
        if found.last_used_at is None or found.last_used_at <= now - NOTED_EVERY:
            with self._archive.database.write() as connection:
                used = update(api_tokens).where(api_tokens.c.id == found.id).values(last_used_at=now)
                connection.execute(used)

    def _seen(self) -> Sequence[ColumnElement[bool]]:
        access = self._archive.access
        return [] if access.is_admin else [api_tokens.c.principal_id == access.principal_id]


def digest_of(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def most_of(scopes: Iterable[Scope]) -> Role:
    """The highest role that these scopes allow."""
    return _MOST[max(scopes, key=list(Scope).index)]


def allowed(most: Role) -> tuple[Scope, ...]:
    """The scopes that this role, the most that somebody may have, leaves room for."""
    return tuple(scope for scope, role in _MOST.items() if most in role.sufficient)


def _scopes(scopes: Iterable[Scope | str]) -> tuple[Scope, ...]:
    wanted = [scopes] if isinstance(scopes, str) else list(scopes)
    known = [scope.value for scope in Scope]
    if not wanted or any(scope not in known for scope in wanted):
        raise InvalidInput(reason=f"The scopes of a token are one or more of: {', '.join(known)}")
    return tuple(scope for scope in Scope if scope in wanted)


def _checked_name(name: object) -> str:
    if not isinstance(name, str) or len(name) > principals.MAX_NAME_CHARACTERS or "\0" in name:
        raise InvalidInput(reason=f"The name of a token is text of at most {principals.MAX_NAME_CHARACTERS} characters")
    return name


def _rows(connection: Connection, *conditions: ColumnElement[bool], limit: int | None = None) -> list[Row[Any]]:
    query = select(api_tokens, principal_table.c.name.label("principal"))
    query = query.join(principal_table, principal_table.c.id == api_tokens.c.principal_id)
    return list(connection.execute(query.where(*conditions).order_by(api_tokens.c.id).limit(limit)).all())


def _one(connection: Connection, token_id: int, *seen: ColumnElement[bool]) -> Token:
    found = _rows(connection, api_tokens.c.id == int(token_id), *seen)
    if not found:
        raise NotFound(kind="token", id=token_id)
    return _token(found[0])


def _token(row: Row[Any]) -> Token:
    scopes = tuple(Scope(scope) for scope in row.scopes)
    return Token(
        row.id, row.principal, row.name, scopes, row.created_at, row.expires_at, row.revoked_at, row.last_used_at
    )
