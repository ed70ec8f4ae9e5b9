"""The file `keys.json`: an archive's own keys, encrypted, beside its audio.

Slots as in LUKS: each holds the master key, wrapped with a key from outside (a key file, say) or one stretched from a
passphrase; the master key opens the bundle with the keys themselves. A key from outside can thus be replaced, or one
more be let in, without touching what is encrypted.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

from audio_storage_system.errors import ArchiveDamaged, KeyMissing, KeyRefused, NewerFormat
from audio_storage_system.keys.archive_keys import ArchiveKeys
from audio_storage_system.keys.sources import LARGEST_COST, NO_PASSPHRASE, PASSPHRASE, SCRYPT, KeySource, stretched
from audio_storage_system.keys.wrapping import new_key, unwrap, wrap

FORMAT = 1
FILE_NAME = "keys.json"
MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Slot:
    """One way in: the master key, wrapped. `stretching`: how a passphrase becomes the key, empty for a plain key."""

    id: str
    kind: str
    wrapped: bytes = field(repr=False)
    stretching: Mapping[str, Any] = field(default_factory=dict)

    def open(self, source: KeySource, archive_id: str, place: str) -> bytes | None:
        """The master key; `None` where this slot is another's. Raises `KeyMissing`."""
        if self.kind == PASSPHRASE:
            key = _stretched(source.passphrase, self.stretching) if source.is_passphrase else None
        else:
            key = None if source.is_passphrase else source.find(archive_id, place)
        return unwrap(key, self.wrapped, _about(archive_id, self.id)) if key else None


@dataclass(frozen=True, slots=True)
class Ring:
    """The content of `keys.json`."""

    archive_id: str
    encrypted: bool
    slots: tuple[Slot, ...]
    bundle: bytes = field(repr=False)

    @classmethod
    def read(cls, data: bytes, place: str) -> Ring:
        """The ring in this file. Raises `NewerFormat`, `ArchiveDamaged`."""
        try:
            found = json.loads(data)
            if found["format"] > FORMAT:
                raise NewerFormat(place=place, found=found["format"], known=FORMAT)
            slots = tuple(_slot(entry) for entry in found["slots"])
            return cls(str(found["archive_id"]), bool(found["encrypted"]), slots, base64.b64decode(found["bundle"]))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ArchiveDamaged(place=place, reason=f"{FILE_NAME} cannot be read; restore it from a backup") from error

    def written(self) -> bytes:
        """The file."""
        data = {
            "format": FORMAT,
            "archive_id": self.archive_id,
            "encrypted": self.encrypted,
            "slots": [
                {"id": slot.id, "kind": slot.kind, "kdf": dict(slot.stretching), "wrapped": _text(slot.wrapped)}
                for slot in self.slots
            ],
            "bundle": _text(self.bundle),
        }
        return json.dumps(data, indent=2).encode()

    def master(self, source: KeySource, place: str) -> bytes:
        """The master key. Raises `KeyMissing` where nothing was given that a slot takes, and `KeyRefused`."""
        if self.wants_passphrase and not source.is_passphrase:
            raise KeyMissing(place=place, reason=NO_PASSPHRASE, passphrase=True)
        for slot in self.slots:
            if (master := slot.open(source, self.archive_id, place)) is not None:
                return master
        wrong = (
            "it is not the passphrase" if source.is_passphrase else "it is the key of another archive, or an old one"
        )
        raise KeyRefused(place=place, reason=wrong)

    @property
    def wants_passphrase(self) -> bool:
        """Whether nothing but a passphrase opens it."""
        return all(slot.kind == PASSPHRASE for slot in self.slots)

    def opening_slot(self, source: KeySource, place: str) -> str | None:
        """The id of the slot that this source opens."""
        return next((slot.id for slot in self.slots if slot.open(source, self.archive_id, place) is not None), None)

    def opened(self, master: bytes, place: str) -> ArchiveKeys:
        """The archive's keys. Raises `KeyRefused`."""
        data = unwrap(master, self.bundle, f"{self.archive_id}/bundle/{self.encrypted}")
        if data is None:
            raise KeyRefused(place=place, reason=f"{FILE_NAME} was changed")
        found = json.loads(data)
        wrapping = {name: base64.b64decode(key) for name, key in found["wrapping"].items()}
        root, rotating = base64.b64decode(found["root"]), found.get("rotating", False)
        return ArchiveKeys(
            self.archive_id, root, self.encrypted, wrapping, found["current"], rotating, found.get("replaces", "")
        )

    def holding(self, keys: ArchiveKeys, master: bytes) -> Ring:
        """The same ring with these keys in it."""
        wrapping = {name: _text(key) for name, key in keys.wrapping.items()}
        data = {
            "root": _text(keys.root),
            "wrapping": wrapping,
            "current": keys.current,
            "rotating": keys.rotating,
            "replaces": keys.replaces,
        }
        about = f"{self.archive_id}/bundle/{self.encrypted}"
        return replace(self, bundle=wrap(master, json.dumps(data).encode(), about))

    def with_slot(self, key: KeySource | bytes, master: bytes, slot_id: str) -> Ring:
        """The same ring with one more way in: for a key of 32 bytes, or for the passphrase of a source."""
        return replace(self, slots=(*self.slots, make_slot(self.archive_id, key, master, slot_id)))

    def without_slot(self, slot_id: str) -> Ring:
        """The same ring without this way in."""
        return replace(self, slots=tuple(slot for slot in self.slots if slot.id != slot_id))


def founded(archive_id: str, key: KeySource | bytes, *, encrypted: bool) -> tuple[Ring, bytes]:
    """A ring for a new archive, with new keys, opened by this key or passphrase; and its master key."""
    master, generation = new_key(), uuid4().hex
    keys = ArchiveKeys(archive_id, new_key(), encrypted, {generation: new_key()}, generation)
    ring = Ring(archive_id, encrypted, (make_slot(archive_id, key, master, uuid4().hex),), b"")
    return ring.holding(keys, master), master


def make_slot(archive_id: str, key: KeySource | bytes, master: bytes, id_: str) -> Slot:
    """A way in for a key of 32 bytes, or for the passphrase of a source."""
    if isinstance(key, bytes):
        return Slot(id_, "key", wrap(key, master, _about(archive_id, id_)))
    stretching = {"name": "scrypt", **SCRYPT, "salt": _text(os.urandom(16))}
    stretched_key = _stretched(key.passphrase, stretching)
    return Slot(id_, PASSPHRASE, wrap(stretched_key, master, _about(archive_id, id_)), stretching)


def _stretched(passphrase: str, how: Mapping[str, Any]) -> bytes:
    return stretched(passphrase, base64.b64decode(how["salt"]), how["n"], how["r"], how["p"])


def _slot(entry: Mapping[str, Any]) -> Slot:
    how = entry["kdf"]
    if how and (how["name"] != "scrypt" or not 1 < how["n"] <= LARGEST_COST or not 0 < how["r"] * how["p"] <= 64):
        raise ValueError("no way of stretching that is used here")
    return Slot(str(entry["id"]), str(entry["kind"]), base64.b64decode(entry["wrapped"]), how)


def _about(archive_id: str, slot_id: str) -> str:
    return f"{archive_id}/slot/{slot_id}"


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
