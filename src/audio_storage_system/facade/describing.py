"""Metadata: what users attach to recordings, its history, and the schema that an owner wants it to meet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from audio_storage_system.archive import Archive, describing
from audio_storage_system.archive.describing import Nonconforming
from audio_storage_system.catalogue.history import MetadataChange
from audio_storage_system.records import Metadata, MetadataValue


class Describing:
    """What is said about recordings."""

    _archive: Archive

    def set_metadata(self, audio_id: int, values: Metadata, *, remove: Iterable[str] = ()) -> None:
        """Set these keys and take those of `remove` away, in one step, leaving the others. Raises `InvalidMetadata`,
        also for what the owner's schema refuses, and for a key that is in both."""
        describing.set_values(self._archive, int(audio_id), values, remove)

    def append_metadata(self, audio_id: int, key: str, value: MetadataValue) -> None:
        """Add `value` to the end of the list under `key`, which is made where it is not there; nothing that others add
        at the same time is lost. Raises as `set_metadata`, and `InvalidMetadata` where there is something else."""
        describing.patch(self._archive, int(audio_id), {}, {key: value})

    def patch_metadata(
        self, audio_id: int, changes: Mapping[str, Any], *, append: Mapping[str, MetadataValue] | None = None
    ) -> None:
        """Merge these changes into the metadata, as a JSON merge patch (RFC 7396) does: `None` takes a key away, an
        object is merged key by key, any other value takes the place of what was there. Then add each value of `append`
        as `append_metadata` does. All of it is one step. Raises `InvalidMetadata`."""
        describing.patch(self._archive, int(audio_id), changes, append)

    def remove_metadata(self, audio_id: int, *keys: str) -> None:
        """Take these keys away. Raises `InvalidMetadata` where the owner's schema wants one of them."""
        describing.remove(self._archive, int(audio_id), keys)

    def metadata_history(
        self, audio_id: int, key: str | None = None, *, after: int = 0, limit: int | None = None
    ) -> list[MetadataChange]:
        """What the metadata of a recording (or one `key` of it) was before it was changed, when and by whom; the oldest
        change first. What a recording was stored with is no change. after: only changes with a higher id; limit: at
        most so many. Raises `NotFound`."""
        return describing.history(self._archive, int(audio_id), key, after=after, limit=limit)

    def set_metadata_schema(self, schema: Mapping[str, Any], owner: str | None = None) -> None:
        """Have the metadata of an owner's recordings (default: of one's own) meet a JSON Schema (Draft 2020-12) from
        now on: whatever would break it raises `InvalidMetadata`. What is stored stays as it is, see `check_metadata`;
        captures are never lost for it. The schema sees all keys of a recording as one object, times as ISO 8601 text.

        Raises `InvalidInput` for what is no schema, or one that could make a check slow: a reference to anything but
        its own `$defs`, or in a circle; more than 64 KiB, 32 levels, or 10,000 rules.
        """
        describing.set_schema(self._archive, schema, owner)

    def metadata_schema(self, owner: str | None = None) -> dict[str, Any] | None:
        """The schema for the metadata of an owner's recordings; `None` where there is none."""
        return describing.schema(self._archive, owner)

    def remove_metadata_schema(self, owner: str | None = None) -> bool:
        """Take the schema away; whether there was one."""
        return describing.remove_schema(self._archive, owner)

    def check_metadata(self, owner: str | None = None) -> list[Nonconforming]:
        """The recordings whose metadata does not meet the schema, with the rules that they break."""
        return list(describing.nonconforming(self._archive, owner))
