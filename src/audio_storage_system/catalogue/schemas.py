"""The schema that an owner wants the metadata of his recordings to meet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select

from audio_storage_system.catalogue import json_schema, metadata
from audio_storage_system.catalogue.json_schema import Violation
from audio_storage_system.database.tables import audio_files, metadata_schemas
from audio_storage_system.records import Metadata

_OF_OWNER = select(metadata_schemas.c.json_schema).where(metadata_schemas.c.owner_id == bindparam("owner"))
_OF_RECORDING = (
    select(metadata_schemas.c.json_schema)
    .join(audio_files, audio_files.c.owner_id == metadata_schemas.c.owner_id)
    .where(audio_files.c.id == bindparam("one"))
)


def get(connection: Connection, owner_id: int) -> dict[str, Any] | None:
    """An owner's schema; `None` where there is none."""
    found: dict[str, Any] | None = connection.execute(_OF_OWNER, {"owner": owner_id}).scalar()
    return found


def put(connection: Connection, owner_id: int, schema: Mapping[str, Any], by: int) -> None:
    """Have the metadata of this owner's recordings meet this schema from now on. Raises `InvalidInput`."""
    json_schema.check_schema(schema)
    remove(connection, owner_id)
    connection.execute(insert(metadata_schemas), {"owner_id": owner_id, "json_schema": dict(schema), "created_by": by})


def remove(connection: Connection, owner_id: int) -> bool:
    """Take the schema away; whether there was one."""
    gone = connection.execute(delete(metadata_schemas).where(metadata_schemas.c.owner_id == owner_id))
    return gone.rowcount > 0


def first_violation(connection: Connection, owner_id: int, values: Metadata) -> Violation | None:
    """What these values would break first, were they the metadata of a recording of this owner."""
    schema = get(connection, owner_id)
    return None if schema is None else next(json_schema.violations(schema, _as_kept(values)), None)


def require(connection: Connection, audio_id: int) -> None:
    """Raise `InvalidMetadata` unless a recording's metadata, as it is now, meets its owner's schema."""
    schema: dict[str, Any] | None = connection.execute(_OF_RECORDING, {"one": audio_id}).scalar()
    if schema is not None:
        for violation in json_schema.violations(schema, metadata.get(connection, audio_id)):
            raise violation.as_error()


def _as_kept(values: Metadata) -> dict[str, Any]:
    """The values as they come back from the catalogue."""
    return {key: metadata.decode(*metadata.encode(key, value)[:2]) for key, value in values.items()}
