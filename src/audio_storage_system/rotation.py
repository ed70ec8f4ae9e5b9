"""The board of an archive's keys: what they are, new ones in place of old ones, and copies to keep elsewhere."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from audio_storage_system.archive import Archive
from audio_storage_system.archive.vault import Vault, next_generation
from audio_storage_system.catalogue import data_keys, locks
from audio_storage_system.durable import sync_folder
from audio_storage_system.errors import Conflict, InvalidInput, KeyMissing, NotFound
from audio_storage_system.keys import ArchiveKeys, KeySource, Ring, read_key_file, write_key_file
from audio_storage_system.keys.sources import encoded
from audio_storage_system.keys.wrapping import new_key

# Data keys wrapped anew in one transaction, for which other writers wait.
BATCH = 500


@dataclass(frozen=True, slots=True)
class Rotated:
    """What a rotation did. `resumed`: it finished one that had been cut short. rewrapped: how many data keys were
    wrapped anew by this call. key_file: what holds the key from now on, where that is a new one."""

    generation: str
    rewrapped: int
    resumed: bool = False
    key_file: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {name: getattr(self, name) for name in self.__slots__}


class KeyBoard:
    """The keys of an archive. Every method raises `NotFound` for one that has none."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    @property
    def made(self) -> Path | None:
        """The key file that was made when this object made the archive."""
        return self._archive.vault.made if self._archive.vault else None

    def show(self) -> dict[str, Any]:
        """What there is, without any secret: the ways in, and what the data keys of blobs are wrapped with."""
        vault = self._vault("see its keys")
        keys = vault.reload()
        with self._archive.database.read() as connection:
            wrapped = data_keys.by_wrapping(connection)
        own = vault.slot_of(vault.source)
        return {
            "archive_id": keys.archive_id,
            "encrypted": keys.encrypted,
            "slots": [{"id": slot.id, "kind": slot.kind, "in_use": slot.id == own} for slot in vault.ring.slots],
            "generations": [
                {"id": name, "current": name == keys.current, "data_keys": wrapped.get(name, 0)}
                for name in keys.wrapping
            ],
            "rotating": keys.rotating,
        }

    def rotate(self, *, new_key: bool = False) -> Rotated:
        """Wrap the data key of every blob with a new key; the blobs themselves stay as they are, and are read and
        added to meanwhile. new_key: also put a new key into the key file; the old one does not open the archive
        from then on, only a copy of `keys.json` from before.

        Cut short, the next call finishes it. Raises `InvalidInput` where a new key is wanted and the old one is not in
        a file, `SealBroken` for a data key that was tampered with, `KeyMissing` where a new key was begun elsewhere.
        """
        vault = self._vault("rotate keys")
        resumed = vault.reload().rotating
        if resumed:
            done = self._finish(vault, resumed=True)
            if done.key_file or not new_key:
                return done
        self._begin(vault, new_key=new_key)
        return self._finish(vault, resumed=False)

    def export(self, path: str | os.PathLike[str]) -> Path:
        """Write a key that opens the archive into a new file, for its owner only, to be kept elsewhere: the key in use,
        or where that is a passphrase another one. Raises `KeyRefused` where there is a file already."""
        vault, file = self._vault("export keys"), Path(path).expanduser().absolute()
        if not vault.source.is_passphrase:
            write_key_file(file, vault.source.find(vault.keys.archive_id, vault.place))
            return file
        key = new_key()
        write_key_file(file, key)
        self._change(vault, lambda ring, keys: (vault.with_slot(ring, key, uuid4().hex), keys))
        return file

    def _vault(self, action: str) -> Vault:
        self._archive.access.require_admin(action)
        if self._archive.vault is None:
            raise NotFound(f"The archive at {self._archive.database.place} has no keys: it is not encrypted.")
        return self._archive.vault

    def _change(self, vault: Vault, change: Any) -> None:
        """Change the file of keys while no other process does."""
        with self._archive.database.write(locks.KEYS):
            vault.change(change)

    def _begin(self, vault: Vault, *, new_key: bool) -> None:
        key = _key_to_come(vault) if new_key else None

        def begin(ring: Ring, keys: ArchiveKeys) -> tuple[Ring, ArchiveKeys]:
            if keys.rotating:  # another process was faster
                return ring, keys
            if key is None:
                return ring, next_generation(keys)
            replaced = ring.opening_slot(vault.source, vault.place) or ""
            return vault.with_slot(ring, key, uuid4().hex), next_generation(keys, replaces=replaced)

        self._change(vault, begin)

    def _finish(self, vault: Vault, *, resumed: bool) -> Rotated:
        keys, count = vault.keys, 0
        while done := self._rewrap(keys):
            count += done
        file = _put_in_place(vault) if keys.replaces else None
        self._change(vault, lambda ring, now: _ended(vault, ring, now))
        with self._archive.database.write() as connection:
            self._archive.audit.note(
                connection, "keys.rotated", generation=keys.current, rewrapped=count, new_key=bool(file)
            )
        return Rotated(keys.current, count, resumed, str(file) if file else None)

    def _rewrap(self, keys: ArchiveKeys) -> int:
        with self._archive.database.write(locks.KEYS) as connection:
            return data_keys.rewrap(connection, keys, BATCH)


def _ended(vault: Vault, ring: Ring, keys: ArchiveKeys) -> tuple[Ring, ArchiveKeys]:
    if keys.replaces:
        ring = ring.without_slot(keys.replaces)
        if not ring.slots or ring.opening_slot(vault.source, vault.place) is None:
            raise KeyMissing(place=vault.place, reason="a new key was begun, and it is not here: finish where it is")
    return ring, keys.settled()


def _new_file(vault: Vault) -> tuple[Path, Path]:
    """The key file, and the one with the key to come."""
    file = vault.source.file_of(vault.keys.archive_id)
    return file, file.with_name(f"{file.name}.new")


def _key_to_come(vault: Vault) -> bytes:
    """The new key, durable beside the old one before anything needs it."""
    if not vault.source.is_file:
        reason = "A new key can only be put into a key file, and the one in use is not in a file. "
        raise InvalidInput(reason=f"{reason}For another key, copy the archive: audio-storage copy FROM TO --encrypt")
    file, new = _new_file(vault)
    if file.is_symlink():
        raise Conflict(reason=f"{file} is a link; name the key file itself in AUDIO_STORAGE_KEY_FILE")
    if not new.exists():
        write_key_file(new, new_key())
    return read_key_file(new, vault.place)


def _put_in_place(vault: Vault) -> Path:
    file, new = _new_file(vault)
    if new.exists():
        # One begun here while another process was faster opens nothing: the old key must not go for it.
        if vault.slot_of(KeySource(encoded(read_key_file(new, vault.place)))) is None:
            reason = f"{new} is not the new key that was begun: finish where that is"
            raise KeyMissing(place=vault.place, reason=reason)
        new.replace(file)
        sync_folder(file.parent)
    return file
