"""Metadata of an open archive: changing it, what it was before, and the schema that it has to meet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, select

from audio_storage_system.access import Role
from audio_storage_system.archive import sidecars
from audio_storage_system.archive.opening import Archive
from audio_storage_system.catalogue import json_schema, locks, metadata, principals, recordings, schemas
from audio_storage_system.catalogue.history import MetadataChange
from audio_storage_system.catalogue.json_schema import Violation
from audio_storage_system.database.tables import audio_files
from audio_storage_system.errors import InvalidMetadata
from audio_storage_system.records import Metadata, MetadataValue

# Recordings whose metadata is read at a time.
BATCH = 500


@dataclass(frozen=True, slots=True)
class Nonconforming:
    """A recording whose metadata does not meet its owner's schema."""

    audio_id: int
    original_name: str
    violations: tuple[Violation, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**asdict(self), "violations": [violation.as_dict() for violation in self.violations]}


def set_values(archive: Archive, audio_id: int, values: Metadata) -> None:
    """Set these keys. Raises `NotFound`, `Forbidden`, `InvalidMetadata`."""
    with archive.database.write(locks.of_recording(audio_id)) as connection:
        _check(archive, connection, audio_id)
        changed = metadata.put(connection, audio_id, values, archive.access.principal_id)
        _end(archive, connection, audio_id, "metadata.set", changed)
    sidecars.refresh(archive, audio_id)


def append(archive: Archive, audio_id: int, key: str, value: MetadataValue) -> None:
    """Add this to the end of the list under `key`. Raises as `set_values`."""
    with archive.database.write(locks.of_recording(audio_id)) as connection:
        _check(archive, connection, audio_id)
        present = metadata.get(connection, audio_id).get(key, [])
        if not isinstance(present, list):
            raise InvalidMetadata(key=repr(key), reason="it is there, and is not a list")
        changed = metadata.put(connection, audio_id, {key: [*present, value]}, archive.access.principal_id)
        _end(archive, connection, audio_id, "metadata.set", changed)
    sidecars.refresh(archive, audio_id)


def remove(archive: Archive, audio_id: int, keys: tuple[str, ...]) -> None:
    """Take these keys away. Raises as `set_values`."""
    with archive.database.write(locks.of_recording(audio_id)) as connection:
        _check(archive, connection, audio_id)
        removed = metadata.remove(connection, audio_id, keys, archive.access.principal_id)
        _end(archive, connection, audio_id, "metadata.removed", removed)
    sidecars.refresh(archive, audio_id)


def patch(archive: Archive, audio_id: int, changes: Mapping[str, Any]) -> None:
    """Merge into the metadata what a JSON merge patch (RFC 7396) says. Raises as `set_values`."""
    metadata.validate(changes)
    with archive.database.write(locks.of_recording(audio_id)) as connection:
        _check(archive, connection, audio_id)
        present = metadata.get(connection, audio_id)
        wanted = {key: merged(present.get(key), value) for key, value in changes.items() if value is not None}
        gone = [key for key, value in changes.items() if value is None]
        who = archive.access.principal_id
        changed = metadata.put(connection, audio_id, wanted, who) + metadata.remove(connection, audio_id, gone, who)
        _end(archive, connection, audio_id, "metadata.set", changed)
    sidecars.refresh(archive, audio_id)


def merged(present: Any, change: Any) -> Any:
    """A value after a merge patch of it: objects key by key, where null removes; anything else takes its place."""
    if not isinstance(change, Mapping):
        return change
    kept = dict(present) if isinstance(present, Mapping) else {}
    for key, value in change.items():
        if value is None:
            kept.pop(key, None)
        else:
            kept[key] = merged(kept.get(key), value)
    return kept


def _check(archive: Archive, connection: Connection, audio_id: int) -> None:
    archive.access.require(connection, audio_id, Role.EDITOR, "change")
    recordings.get(connection, audio_id)


def _end(archive: Archive, connection: Connection, audio_id: int, action: str, changed: list[str]) -> None:
    recordings.touch(connection, audio_id)
    if changed:
        schemas.require(connection, audio_id)
        archive.audit.note(connection, action, audio_id, keys=changed)


def history(archive: Archive, audio_id: int, key: str | None) -> list[MetadataChange]:
    """What the metadata was before, the oldest change first. Raises `NotFound`."""
    with archive.database.read() as connection:
        archive.access.require(connection, audio_id)
        recordings.get(connection, audio_id)
        found = metadata.changes(connection, audio_id, key)
    archive.audit.read("metadata.history_read", audio_id)
    return found


# The schema of an owner


def schema(archive: Archive, owner: str | None) -> dict[str, Any] | None:
    """The schema that the metadata of this owner's recordings has to meet. Raises `NotFound`, `Forbidden`."""
    with archive.database.read() as connection:
        return schemas.get(connection, _owner(archive, connection, owner, "see the schema of"))


def set_schema(archive: Archive, wanted: Mapping[str, Any], owner: str | None) -> None:
    """Have it meet this one. Raises `InvalidInput`, `NotFound`, `Forbidden`."""
    archive.access.require_scope(Role.OWNER, "set a schema")
    json_schema.check_schema(wanted)
    with archive.database.write() as connection:
        owner_id = _owner(archive, connection, owner, "set a schema for")
        schemas.put(connection, owner_id, wanted, archive.access.principal_id)
        archive.audit.note(connection, "schema.set", owner_id=owner_id)


def remove_schema(archive: Archive, owner: str | None) -> bool:
    """Have it meet none; whether there was one. Raises `NotFound`, `Forbidden`."""
    archive.access.require_scope(Role.OWNER, "remove a schema")
    with archive.database.write() as connection:
        owner_id = _owner(archive, connection, owner, "remove the schema of")
        if gone := schemas.remove(connection, owner_id):
            archive.audit.note(connection, "schema.removed", owner_id=owner_id)
        return gone


def nonconforming(archive: Archive, owner: str | None) -> Iterator[Nonconforming]:
    """The recordings of this owner whose metadata does not meet the schema, by id. Raises `NotFound`, `Forbidden`."""
    with archive.database.read() as connection:
        owner_id = _owner(archive, connection, owner, "check the metadata of")
        wanted = schemas.get(connection, owner_id)
    after = 0
    while wanted is not None:
        with archive.database.read() as connection:
            page = select(audio_files.c.id, audio_files.c.original_name).where(
                audio_files.c.owner_id == owner_id, audio_files.c.id > after
            )
            found = connection.execute(page.order_by(audio_files.c.id).limit(BATCH)).all()
            values = metadata.get_many(connection, [row.id for row in found])
        if not found:
            return
        after = found[-1].id
        for row in found:
            if broken := tuple(json_schema.violations(wanted, values[row.id])):
                yield Nonconforming(row.id, row.original_name, broken)


def _owner(archive: Archive, connection: Connection, name: str | None, action: str) -> int:
    """Whose schema is meant: one's own, or, for who may do what concerns the whole archive, anybody's."""
    if name is None or name == archive.access.name:
        return archive.owner_id
    archive.access.require_admin(f"{action} others")
    return principals.get(connection, name).id
