"""Backups for the tests: what is in them, and what becomes of processes that die while they are at work."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import insert, select

from audio_storage_system import AudioStorageSystem, restore_backup
from audio_storage_system.archive.copies import open_original
from audio_storage_system.backup.format import TABLES
from audio_storage_system.database import tables
from audio_storage_system.database.tables import audit_log, backup_sets, removals, tombstones
from audio_storage_system.settings import locate_apart

Place = str | Path
# What making and restoring backups adds to by itself.
OWN = (backup_sets.name, audit_log.name)
NOW = datetime(2026, 11, 28, 15, 0, 0, 123456, tzinfo=UTC)
# Where a process can die: a function, and whether that is before or after it has run.
POINTS = {
    "claimed": ("backup.places:BackupPlace.claim", "after"),
    "packed": ("backup.places:BackupPlace.put", "after"),
    "brought": ("backup.sources:Source.bring", "after"),
    "made": ("backup.places:BackupPlace.write_manifest", "before"),
    "written": ("backup.places:BackupPlace.write_manifest", "after"),
    "marked": ("marker:write", "after"),
    "founded": ("archive.copies:identify", "after"),
    "rows": ("backup.restoring:_Restoring._put", "after"),
    "buried": ("backup.restoring:_Restoring._bury", "after"),
    "audio": ("backup.restoring:_Restoring._bring", "after"),
    "derived": ("backup.restoring:_Restoring._derive", "after"),
    "finished": ("backup.restoring:_know_sets", "after"),
    "removed": ("backup.pruning:_remove_set", "after"),
    "sweeping": ("blobs.local:LocalBlobStore.delete", "after"),
}


def rows(place: Place) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table of truth; tombstones and removals, which a restore may add to, by what is gone."""
    home, named = locate_apart(place)
    with closing(open_original(home, **named)) as archive, archive.database.read() as connection:
        found = {
            table.name: [tuple(row) for row in connection.execute(select(table).order_by(table.c.id))]
            for table in TABLES
            if table.name not in OWN
        }
        grave = tombstones.c
        buried = connection.execute(select(grave.audio_id, grave.file_hash).order_by(grave.audio_id))
        gone = connection.execute(select(removals.c.audio_id, removals.c.stage, removals.c.rule, removals.c.removed_at))
        removed = sorted((tuple(row) for row in gone), key=str)
        return found | {tombstones.name: [tuple(row) for row in buried], removals.name: removed}


def audio(place: Place) -> dict[str, str]:
    """The hash of each recording's file."""
    home, named = locate_apart(place)
    with closing(open_original(home, **named)) as archive:
        return {key: archive.blobs.describe(key).sha256 for key in archive.blobs.keys("audio_files")}


def back_up(place: Place, destination: Place) -> str:
    """A set of the archive; its id."""
    with AudioStorageSystem(place, create=False) as storage:
        report = storage.backups.create(destination)
    assert report.complete
    return report.set_id


def objects(destination: Path) -> dict[str, bytes]:
    """Every object of a backup in a folder."""
    return {
        path.relative_to(destination).as_posix(): path.read_bytes()
        for path in sorted(destination.rglob("*"))
        if path.is_file() and ".staging" not in path.parts
    }


def flip(path: Path) -> None:
    """One bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def protect(storage: AudioStorageSystem) -> None:
    """A row in every table that no pipeline fills, with values that are easily lost."""
    archive = storage._archive
    with archive.database.write() as connection:

        def add(table: Any, **values: Any) -> int:
            return int(connection.execute(insert(table).returning(table.c.id), values).scalar_one())

        group = add(tables.principals, name="Gruppe „ß“", kind="group")
        user = add(tables.principals, name="john\n", kind="user")
        add(tables.memberships, group_id=group, member_id=user)
        grant = add(tables.grants, principal_id=group, role="reader", reach="selection", created_by=1, expires_at=NOW)
        add(tables.grants, principal_id=user, role="editor", reach="recording", audio_file_id=1, created_by=1)
        add(tables.grant_conditions, grant_id=grant, key="team", value="")
        add(tables.api_tokens, principal_id=user, name="t", digest="d" * 64, scopes=["read", None], created_by=1)
        hook = {"url": "https://example.org/ß", "secret": b"\0\xff", "sealed": False, "events": ["recording.stored"]}
        add(tables.webhooks, principal_id=user, restricted=True, name="", failing_since=NOW, **hook)
        add(tables.metadata_schemas, owner_id=1, json_schema={"a": [1.5, {"b": None}]}, created_by=1)
        add(tables.metadata_history, audio_file_id=1, key="k", op="set", old_value=None, principal_id=1)
        add(tables.retention_rules, name="r", stage="audio", keep_days=0.1, conditions=[], created_by=1)
        add(tables.legal_holds, name="h", conditions={}, reason="court\u2028", placed_by=1, released_at=NOW)
        add(tables.trash, audio_file_id=2, trashed_by=1, purge_after=NOW)
        add(tables.annotations, audio_file_id=1, kind="tag", label="x", score=float("inf"))
        entry = {"at": NOW, "principal_id": 1, "principal": "owner", "action": "a", "origin": "o", "details": {}}
        add(tables.audit_log, chain="c", sequence=1, mac="m", **entry)


# In a process of its own


def carry_out(environment: dict[str, str], what: str, one: str, other: str, *death: str) -> None:
    """The main function of a process: `create ARCHIVE DEST`, `prune ARCHIVE DEST` or `restore DEST ARCHIVE`, then where
    and when to die."""
    os.environ.update(environment)
    if death:
        _die_at(death[0], int(death[1]))
    if what == "restore":
        sys.exit(not restore_backup(one, other).complete)
    with AudioStorageSystem(one, create=False) as storage:
        if what == "create":
            sys.exit(not storage.backups.create(other).complete)
        storage.backups.prune(other, keep_last=1)


def _die_at(point: str, times: int) -> None:
    target, when = POINTS[point]
    module, _, path = target.partition(":")
    owner: Any = importlib.import_module(f"audio_storage_system.{module}")
    *way, name = path.split(".")
    for step in way:
        owner = getattr(owner, step)
    setattr(owner, name, _dying(getattr(owner, name), when, times))


def _dying(function: Callable[..., Any], when: str, times: int) -> Callable[..., Any]:
    left = [times]

    def come() -> None:
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)

    def wrapped(*args: Any, **options: Any) -> Any:
        if when == "before":
            come()
        result = function(*args, **options)
        if when == "after":
            come()
        return result

    return wrapped
