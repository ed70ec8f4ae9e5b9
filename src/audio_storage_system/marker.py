"""The marker: `metadata.json` beside the blobs says which archive they belong to and how it is laid out."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, insert, select, update

from audio_storage_system.blobs import BlobStore
from audio_storage_system.clock import utc_now
from audio_storage_system.database import Database
from audio_storage_system.database.sequences import advance
from audio_storage_system.database.tables import archive, principals
from audio_storage_system.errors import ArchiveDamaged, ArchiveMismatch, NewerFormat, NotFound, RestoreUnfinished
from audio_storage_system.locations import redacted
from audio_storage_system.records import OWNER_ID, Space, jsonable

FORMAT_VERSION = 1
FILE_NAME = "metadata.json"
# Lies among the blobs while a copy fills the archive: until then blobs without a row are the copy's, nobody's orphans.
FILLING = "filling.json"
MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Marker:
    """Which archive this is. `spaces` are the embedding spaces in use, for whoever looks at the folder. `bound`: the
    place of the blobs has been told. `restoring`: the backup set that it is being restored from; nobody opens it before
    that is done."""

    archive_id: str
    format_version: int
    created_at: datetime
    spaces: tuple[Space, ...] = ()
    bound: bool = False
    restoring: str = ""


def create(connection: Connection, archive_id: str | None = None) -> Marker:
    """Found a new archive in an empty catalogue: its identity, new where none is given, and its own owner, principal
    1."""
    marker = identify(connection, Marker(archive_id or str(uuid4()), FORMAT_VERSION, utc_now()))
    connection.execute(insert(principals), {"id": OWNER_ID, "name": "owner", "kind": "user"})
    advance(connection, principals)
    return marker


def identify(connection: Connection, marker: Marker) -> Marker:
    """Give an empty catalogue this identity, with no principals yet: that of a new archive, or of the one it is to be a
    copy of."""
    marker = replace(marker, spaces=(), bound=False, restoring="")
    row = {"id": 1, "archive_id": marker.archive_id, "format_version": FORMAT_VERSION, "created_at": marker.created_at}
    connection.execute(insert(archive), row)
    return marker


def of_catalogue(connection: Connection) -> Marker | None:
    """What the catalogue says of itself; `None` before `create`. Raises `NewerFormat`."""
    row = connection.execute(select(archive)).mappings().first()
    if row is None:
        return None
    _check_format(row["format_version"], "the catalogue")
    return Marker(row["archive_id"], row["format_version"], row["created_at"], bound=row["bound"])


def read(blobs: BlobStore) -> Marker | None:
    """The marker among the blobs; `None` where there is none. Raises `NewerFormat`, `ArchiveDamaged`."""
    try:
        with blobs.open(FILE_NAME) as file:
            data = json.loads(file.read(MAX_BYTES))
        _check_format(data["format_version"], redacted(blobs.url))
        created_at = datetime.fromisoformat(data["created_at"])
        return Marker(data["archive_id"], data["format_version"], created_at, restoring=data.get("restoring", ""))
    except NotFound:
        return None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArchiveDamaged(place=redacted(blobs.url), reason=f"{FILE_NAME} cannot be read ({error})") from error


def write(blobs: BlobStore, marker: Marker) -> None:
    """Put the marker among the blobs, replacing an older one in one step."""
    data = json.dumps(_as_json(marker), indent=2).encode()
    blobs.put(FILE_NAME, data)


def check(blobs: BlobStore, catalogue: Marker, found: Marker | None, *, together: bool = False) -> None:
    """Raise `ArchiveMismatch` unless the place of the blobs belongs to the catalogue: it says so, nobody has told it
    yet, or the catalogue lies in the same folder (`together`) and only the marker was lost. Raises `RestoreUnfinished`.
    """
    if found is None and (together or not catalogue.bound):
        return
    found = found or read(blobs)  # another process may have put it there since the caller looked, before it bound them
    if found is None:
        reason = f"archive {catalogue.archive_id} keeps its audio elsewhere; set AUDIO_STORAGE_BLOBS_URL to that place"
        raise ArchiveMismatch(place=redacted(blobs.url), reason=reason)
    if found.archive_id != catalogue.archive_id:
        reason = f"its files belong to archive {found.archive_id}, its catalogue to {catalogue.archive_id}"
        raise ArchiveMismatch(place=redacted(blobs.url), reason=reason)
    if found.restoring:
        raise RestoreUnfinished(place=redacted(blobs.url), set=found.restoring)


def begin_filling(blobs: BlobStore) -> None:
    """Note among the blobs that a copy is filling the archive."""
    data = json.dumps({"begun": utc_now().isoformat()}).encode()
    blobs.put(FILLING, data)


def is_filling(blobs: BlobStore) -> bool:
    """Whether a copy that fills the archive has begun and not come to its end."""
    return blobs.has(FILLING)


def end_filling(blobs: BlobStore) -> None:
    """Note that the copy is done."""
    blobs.delete(FILLING)


def bind(database: Database) -> None:
    """Note that the place of the blobs has the marker: from now on one without it is refused."""
    with database.write() as connection:
        connection.execute(update(archive).values(bound=True))


def _as_json(marker: Marker) -> dict[str, Any]:
    spaces = [
        {"kind": s.kind.value, "model": s.model, "dimension": s.dimension, "active": s.active} for s in marker.spaces
    ]
    data: dict[str, Any] = jsonable({**asdict(marker), "spaces": spaces})
    del data["bound"]  # that it lies here says so
    if not marker.restoring:
        del data["restoring"]
    return data


def _check_format(found: Any, place: str) -> None:
    if not isinstance(found, int):
        raise ValueError(f"format_version is {found!r}")
    if found > FORMAT_VERSION:
        raise NewerFormat(place=place, found=found, known=FORMAT_VERSION)
