"""Metadata of an open archive: changing it, what it was before, and the schema that it has to meet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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


def set_values(archive: Archive, audio_id: int, values: Metadata, remove: Iterable[str] = ()) -> None:
    """Set these keys and take those away. Raises `NotFound`, `Forbidden`, `InvalidMetadata`."""
    metadata.validate(values)
    gone = tuple(remove)
    if twice := values.keys() & gone:
        raise InvalidMetadata(key=repr(min(twice)), reason="it is to be set and to be taken away")
    _change(archive, audio_id, lambda present: (values, gone))


def patch(
    archive: Archive, audio_id: int, changes: Mapping[str, Any], append: Mapping[str, MetadataValue] | None = None
) -> None:
    """Merge into the metadata what a JSON merge patch (RFC 7396) says, then add these values to the ends of lists.
    Raises as `set_values`."""
    metadata.validate(changes)

    def patched(present: Metadata) -> tuple[Metadata, Sequence[str]]:
        wanted = {key: merged(present.get(key), value) for key, value in changes.items()}
        for key, value in (append or {}).items():
            wanted[key] = _longer(key, wanted.get(key, present.get(key)), value)
        gone = [key for key, value in wanted.items() if value is None]
        return {key: value for key, value in wanted.items() if value is not None}, gone

    _change(archive, audio_id, patched)


def remove(archive: Archive, audio_id: int, keys: tuple[str, ...]) -> None:
    """Take these keys away. Raises as `set_values`."""
    _change(archive, audio_id, lambda present: ({}, keys))


def _change(archive: Archive, audio_id: int, change: Callable[[Metadata], tuple[Metadata, Sequence[str]]]) -> None:
    """In one transaction: what is to be set, and which keys are to go, of the metadata that is there."""
    who = archive.access.principal_id
    with archive.database.write(locks.of_recording(audio_id)) as connection:
        archive.access.require(connection, audio_id, Role.EDITOR, "change")
        recordings.get(connection, audio_id)
        values, gone = change(metadata.get(connection, audio_id))
        put = metadata.put(connection, audio_id, values, who)
        removed = metadata.remove(connection, audio_id, gone, who)
        recordings.touch(connection, audio_id)
        if put or removed:
            schemas.require(connection, audio_id)
        for action, keys in (("metadata.set", put), ("metadata.removed", removed)):
            if keys:
                archive.audit.note(connection, action, audio_id, keys=keys)
    sidecars.refresh(archive, audio_id)


def _longer(key: str, present: Any, value: MetadataValue) -> list[Any]:
    """A list with one more at its end; where nothing is, a new one."""
    if not isinstance(present, list | None):
        raise InvalidMetadata(key=repr(key), reason="it is there, and is not a list")
    return [*(present or []), value]


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


def history(
    archive: Archive, audio_id: int, key: str | None, *, after: int = 0, limit: int | None = None
) -> list[MetadataChange]:
    """What the metadata was before, the oldest change first. Raises `NotFound`."""
    with archive.database.read() as connection:
        archive.access.require(connection, audio_id)
        recordings.get(connection, audio_id)
        found = metadata.changes(connection, audio_id, key, after=after, limit=limit)
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
