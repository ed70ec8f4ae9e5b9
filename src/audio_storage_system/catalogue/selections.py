"""Which recordings a rule or a hold is about, as it is kept in the catalogue and asked of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, exists, select

from audio_storage_system.catalogue.filters import Filter
from audio_storage_system.database import tables
from audio_storage_system.database.tables import audio_files, principals
from audio_storage_system.errors import InvalidInput
from audio_storage_system.records import jsonable

TAG = "tag"
MOST_CHARACTERS = 100_000  # of a selection as JSON, ids and all


@dataclass(frozen=True, slots=True)
class Selection:
    """Recordings that meet all of it. where: as of `Filter`, `audio_id` for single ones. owner: a principal's name.
    tag: a label. Nothing given is every recording."""

    where: Mapping[str, Any] = field(default_factory=dict)
    owner: str | None = None
    tag: str | None = None

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Selection:
        """As `as_dict` wrote it."""
        return cls(data.get("where") or {}, data.get("owner"), data.get("tag"))

    @property
    def limits(self) -> bool:
        """Whether it leaves anything out."""
        return bool(self.where or self.owner is not None or self.tag is not None)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; what is not given is left out."""
        parts = {"where": jsonable(self.where), "owner": self.owner, "tag": self.tag}
        return {name: value for name, value in parts.items() if value not in (None, {})}

    def check(self) -> None:
        """Raise `InvalidFilter` or `InvalidInput` for what can never be asked."""
        self.conditions()
        if len(repr(self.as_dict())) > MOST_CHARACTERS:
            raise InvalidInput(
                reason=f"The selection is longer than {MOST_CHARACTERS:,} characters; select by metadata"
            )

    def conditions(self) -> list[ColumnElement[bool]]:
        """As conditions on `audio_files`, for asking whether given recordings meet it. Raises `InvalidFilter`."""
        wanted = Filter(self.where)
        found = wanted.on_listing() if wanted.on_transcripts() else wanted.on_recordings(probing=True)
        if self.owner is not None:
            found.append(audio_files.c.owner_id.in_(select(principals.c.id).where(principals.c.name == self.owner)))
        if self.tag is not None:
            mine = tables.annotations.c.audio_file_id == audio_files.c.id
            found.append(exists().where(mine, tables.annotations.c.kind == TAG, tables.annotations.c.label == self.tag))
        return found

    def __str__(self) -> str:
        parts = [f"{key} {_told(value)}" for key, value in self.where.items()]
        parts += [f"owner {self.owner}"] if self.owner is not None else []
        parts += [f"tag {self.tag}"] if self.tag is not None else []
        return ", ".join(parts) or "every recording"


def _told(wanted: Any) -> str:
    if isinstance(wanted, Mapping) and set(wanted) == {"in"}:
        return "= " + " or ".join(map(str, jsonable(wanted["in"])))
    return str(jsonable(wanted)) if isinstance(wanted, Mapping | list | tuple | set) else f"= {wanted}"
