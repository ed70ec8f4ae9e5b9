"""Tokens, principals, audit log, backups and trash, as the catalogue tells; and the database itself."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Select, and_, exists, func, or_, select, text

from audio_storage_system.clock import utc_now
from audio_storage_system.database.tables import (
    api_tokens,
    audio_files,
    audit_log,
    backup_sets,
    grants,
    memberships,
    principals,
    trash,
)
from audio_storage_system.records import OWNER_ID
from audio_storage_system.security.weakness import Audited, Gravity, Weakness

NAMED = 10
BACKUP_DAYS, VERIFIED_DAYS, OVERDUE = 7, 30, timedelta(days=1)
# When support ends: https://devguide.python.org/versions, https://www.postgresql.org/support/versioning
PYTHON_ENDS = {(3, 11): date(2027, 10, 31), (3, 12): date(2028, 10, 31), (3, 13): date(2029, 10, 31)}
PYTHON_ENDS |= {(3, 14): date(2030, 10, 31)}
POSTGRESQL_ENDS = {14: date(2026, 11, 12), 15: date(2027, 11, 11), 16: date(2028, 11, 9), 17: date(2029, 11, 8)}
POSTGRESQL_ENDS |= {18: date(2030, 11, 14)}
# The first release without CVE-2025-6965; distributions may have mended earlier ones.
SQLITE_MENDED = (3, 50, 2)

_ROLE = text("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")


def check(audited: Audited) -> Iterator[Weakness]:
    """All of it."""
    with audited.archive.database.read() as connection:
        yield from _plaintext(audited)
        yield from _tokens(connection, audited.stale_days)
        yield from _principals(connection, audited.stale_days)
        yield from _audit(connection)
        yield from _backups(connection)
        yield from _trash(connection)
        if connection.dialect.name == "postgresql":
            yield from _server(connection)
    yield from _versions()


def _plaintext(audited: Audited) -> Iterator[Weakness]:
    keys, settings = audited.archive.keys, audited.archive.settings
    if keys is None or not keys.encrypted:
        evidence = "recordings and what was said in them lie in the clear: who has the disk can read them"
        fix = "audio-storage init --encrypt a new archive and audio-storage copy into it; or use an encrypted disk."
        yield Weakness("not encrypted", Gravity.MODERATE, evidence, fix)
        if settings.sidecars:
            evidence = "what was said also lies in files of its own (sidecars)"
            yield Weakness("sidecars in the clear", Gravity.NOTE, evidence, "sidecars = false, and remove the files.")
        return
    if settings.database_url:
        evidence = "on PostgreSQL what was said and its vectors lie in the clear, in the database and its backups"
        yield Weakness("plain catalogue", Gravity.MODERATE, evidence, "Encrypt the server's disk and its backups.")
    if settings.vectors_url:
        evidence = "the vectors in the outside database are in the clear, and tell much of what was said"
        yield Weakness(
            "plain vectors", Gravity.MODERATE, evidence, "Encrypt that server's disk, or leave vectors_url empty."
        )


def _tokens(connection: Connection, stale_days: float) -> Iterator[Weakness]:
    now, table = utc_now(), api_tokens.c
    valid = and_(table.revoked_at.is_(None), or_(table.expires_at.is_(None), table.expires_at > now))
    used = func.coalesce(table.last_used_at, table.created_at)
    revoke = "audio-storage tokens revoke ID, and give a new one with --expires."
    found = (
        ("tokens without expiry", Gravity.MODERATE, and_(valid, table.expires_at.is_(None)), "never expire", revoke),
        (
            "unused tokens",
            Gravity.MODERATE,
            and_(valid, used < now - timedelta(days=stale_days)),
            f"were not used in {stale_days:g} days",
            "audio-storage tokens revoke ID",
        ),
        (
            "expired tokens",
            Gravity.NOTE,
            and_(table.revoked_at.is_(None), table.expires_at <= now),
            "have expired and were never revoked",
            "audio-storage tokens revoke ID",
        ),
    )
    for name, gravity, condition, what, fix in found:
        yield from _named(connection, select(table.id, table.name).where(condition), name, gravity, what, fix)


def _named(
    connection: Connection, query: Select[Any], name: str, gravity: Gravity, what: str, fix: str
) -> Iterator[Weakness]:
    """The weakness of these rows (id, name), of which a few are named."""
    rows = connection.execute(query.order_by(query.selected_columns[0])).all()
    if rows:
        few = ", ".join(f"{row[0]} ({row[1]})" for row in rows[:NAMED]) + (" …" if len(rows) > NAMED else "")
        yield Weakness(name, gravity, f"{few} {what}", fix)


def _principals(connection: Connection, stale_days: float) -> Iterator[Weakness]:
    since = utc_now() - timedelta(days=stale_days)
    mine = principals.c.id
    active = or_(
        exists().where(api_tokens.c.principal_id == mine, api_tokens.c.last_used_at > since),
        exists().where(audit_log.c.principal_id == mine, audit_log.c.at > since),
        exists().where(audio_files.c.owner_id == mine, audio_files.c.created_at > since),
    )
    able = or_(
        exists().where(grants.c.principal_id == mine),
        exists().where(memberships.c.member_id == mine),
        exists().where(api_tokens.c.principal_id == mine, api_tokens.c.revoked_at.is_(None)),
    )
    pair = select(mine, principals.c.name)
    person = pair.where(principals.c.kind != "group", mine != OWNER_ID, principals.c.created_at < since, able, ~active)
    what = f"may do something here, and did nothing in {stale_days:g} days"
    yield from _named(connection, person, "stale principals", Gravity.MODERATE, what, "audio-storage grants revoke")
    empty = pair.where(principals.c.kind == "group", ~exists().where(memberships.c.group_id == mine))
    yield from _named(connection, empty, "empty groups", Gravity.NOTE, "have no members", "audio-storage users remove")


def _audit(connection: Connection) -> Iterator[Weakness]:
    if connection.execute(select(audit_log.c.id).limit(1)).first() is None:
        evidence = "nothing is written in it: nobody could tell who read or changed what"
        yield Weakness("no audit log", Gravity.MODERATE, evidence, "audio-storage init --audit")


def _backups(connection: Connection) -> Iterator[Weakness]:
    there = backup_sets.c.removed_at.is_(None)
    newest = select(func.max(backup_sets.c.taken_at), func.max(backup_sets.c.verified_at)).where(there)
    taken, verified = (_moment(value) for value in connection.execute(newest).one())
    now = utc_now()
    if taken is None:
        yield Weakness("no backup", Gravity.MODERATE, "the archive knows of none", "audio-storage backup create DEST")
        return
    if taken < now - timedelta(days=BACKUP_DAYS):
        evidence = f"the newest was taken {taken:%Y-%m-%d}"
        yield Weakness("old backup", Gravity.MODERATE, evidence, "audio-storage backup create DEST")
    if verified is None or verified < now - timedelta(days=VERIFIED_DAYS):
        evidence = f"none was verified{f' since {verified:%Y-%m-%d}' if verified else ''}"
        yield Weakness("unverified backup", Gravity.MODERATE, evidence, "audio-storage backup verify DEST")


def _moment(value: datetime | str | None) -> datetime | None:
    """What `max` gives for a time: SQLite's is a text."""
    if isinstance(value, str):
        return datetime.fromisoformat(value).replace(tzinfo=UTC)
    return value


def _trash(connection: Connection) -> Iterator[Weakness]:
    overdue = select(func.count()).select_from(trash).where(trash.c.purge_after < utc_now() - OVERDUE)
    if number := connection.execute(overdue).scalar_one():
        evidence = f"{number} recordings in the trash ought to be gone by now"
        yield Weakness("trash not emptied", Gravity.MODERATE, evidence, "audio-storage retention run")


def _server(connection: Connection) -> Iterator[Weakness]:
    if connection.execute(_ROLE).scalar():
        evidence = "the program works as a superuser of the database: one mistake reaches everything on the server"
        fix = "Make a role that owns this database only: CREATE ROLE audio_storage LOGIN; ALTER DATABASE … OWNER TO …"
        yield Weakness("superuser", Gravity.MODERATE, evidence, fix)
    version = connection.dialect.server_version_info
    major = int(version[0]) if version else 0
    if major and POSTGRESQL_ENDS.get(major, date.max if major > max(POSTGRESQL_ENDS) else date.min) < utc_now().date():
        evidence = f"PostgreSQL {major} gets no security fixes any more"
        yield Weakness("old PostgreSQL", Gravity.SERIOUS, evidence, "Upgrade the server: pg_upgrade")


def _versions() -> Iterator[Weakness]:
    version = sys.version_info[:2]
    if PYTHON_ENDS.get(version, date.max) < utc_now().date():
        evidence = f"Python {version[0]}.{version[1]} gets no security fixes any more"
        yield Weakness("old Python", Gravity.SERIOUS, evidence, "Install a newer Python.")
    if sqlite3.sqlite_version_info < SQLITE_MENDED:
        evidence = (
            f"SQLite {sqlite3.sqlite_version} is older than the fix of CVE-2025-6965, unless your system mended it"
        )
        yield Weakness("old SQLite", Gravity.NOTE, evidence, "Upgrade the system's SQLite, or take a newer Python.")
