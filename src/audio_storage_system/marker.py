"""The marker: `metadata.json` in an archive's folder says which archive it is and how it is laid out."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, insert, select

from audio_storage_system.clock import utc_now
from audio_storage_system.database.tables import archive, principals
from audio_storage_system.errors import ArchiveDamaged, ArchiveMismatch, InvalidInput, NewerFormat
from audio_storage_system.records import Space, jsonable

FORMAT_VERSION = 1
FILE_NAME = "metadata.json"
OWNER_ID = 1


@dataclass(frozen=True, slots=True)
class Marker:
    """Which archive this is. `spaces` are the embedding spaces in use, for whoever looks at the folder."""

    archive_id: str
    format_version: int
    created_at: datetime
    spaces: tuple[Space, ...] = ()


def create(connection: Connection) -> Marker:
    """Found a new archive in an empty catalogue: its identity and its own owner, principal 1."""
    marker = Marker(str(uuid4()), FORMAT_VERSION, utc_now())
    row = {"id": 1, "archive_id": marker.archive_id, "format_version": FORMAT_VERSION, "created_at": marker.created_at}
    connection.execute(insert(archive), row)
    connection.execute(insert(principals), {"id": OWNER_ID, "name": "owner", "kind": "user"})
    return marker


def of_catalogue(connection: Connection) -> Marker | None:
    """What the catalogue says of itself; `None` before `create`. Raises `NewerFormat`."""
    row = connection.execute(select(archive)).mappings().first()
    if row is None:
        return None
    _check_format(row["format_version"], "the catalogue")
    return Marker(row["archive_id"], row["format_version"], row["created_at"])


def read(folder: Path) -> Marker | None:
    """The marker in `folder`; `None` where there is none. Raises `NewerFormat`, `ArchiveDamaged`."""
    path = folder / FILE_NAME
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        _check_format(data["format_version"], str(folder))
        return Marker(data["archive_id"], data["format_version"], datetime.fromisoformat(data["created_at"]))
    except FileNotFoundError:
        return None
    except NotADirectoryError as error:
        raise InvalidInput(reason=f"{folder} is a file, not the folder of an archive") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ArchiveDamaged(place=str(folder), reason=f"{FILE_NAME} cannot be read ({error})") from error


def write(folder: Path, marker: Marker) -> None:
    """Put the marker into `folder`, replacing an older one in one step."""
    temporary = folder / f".{FILE_NAME}.{os.getpid()}"
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(_as_json(marker), file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / FILE_NAME)


def check(folder: Path, catalogue: Marker, found: Marker | None) -> None:
    """Raise `ArchiveMismatch` unless the folder belongs to the catalogue."""
    if found is not None and found.archive_id != catalogue.archive_id:
        reason = f"its folder belongs to archive {found.archive_id}, its catalogue to {catalogue.archive_id}"
        raise ArchiveMismatch(place=str(folder), reason=reason)


def _as_json(marker: Marker) -> dict[str, Any]:
    spaces = [
        {"kind": s.kind.value, "model": s.model, "dimension": s.dimension, "active": s.active} for s in marker.spaces
    ]
    data: dict[str, Any] = jsonable({**asdict(marker), "spaces": spaces})
    return data


def _check_format(found: Any, place: str) -> None:
    if not isinstance(found, int):
        raise ValueError(f"format_version is {found!r}")
    if found > FORMAT_VERSION:
        raise NewerFormat(place=place, found=found, known=FORMAT_VERSION)
