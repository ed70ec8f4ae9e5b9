"""The keys of an archive, which are read before anything else of it is opened: `keys.json` beside the marker."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

from audio_storage_system.blobs import BlobStore
from audio_storage_system.errors import ArchiveDamaged, KeyMissing, NotFound
from audio_storage_system.keys import ArchiveKeys, KeySource, Ring, founded
from audio_storage_system.keys.ring import FILE_NAME, MAX_BYTES
from audio_storage_system.keys.wrapping import new_key
from audio_storage_system.locations import redacted


class Vault:
    """An archive's keys, unlocked. Other processes may change them meanwhile, see `reload`; the master key stays.
    `made`: the key file that was made with the archive."""

    def __init__(self, blobs: BlobStore, ring: Ring, master: bytes, source: KeySource) -> None:
        self.source = source
        self.ring = ring
        self.made: Path | None = None
        self._blobs, self._master = blobs, master
        self._keys = ring.opened(master, self.place)
        self._lock = threading.Lock()

    @property
    def place(self) -> str:
        """Where the keys are kept."""
        return redacted(self._blobs.url)

    @property
    def keys(self) -> ArchiveKeys:
        """The keys as they were read last."""
        return self._keys

    def reload(self) -> ArchiveKeys:
        """The keys as they are now. Raises `KeyMissing`, `KeyRefused`."""
        ring = read_ring(self._blobs)
        if ring is None:
            raise KeyMissing(place=self.place, reason=f"its {FILE_NAME} is gone; restore it from a backup")
        with self._lock:
            self._keys, self.ring = ring.opened(self._master, self.place), ring
        return self._keys

    def change(self, change: Callable[[Ring, ArchiveKeys], tuple[Ring, ArchiveKeys]]) -> None:
        """Put changed keys and ways in into the file, in one step. The caller has the lock of keys."""
        ring, keys = change(self.ring, self.reload())
        ring = ring.holding(keys, self._master)
        self._blobs.put(FILE_NAME, ring.written())
        self.reload()

    def slot_of(self, source: KeySource) -> str | None:
        """The id of the slot that this source opens."""
        return self.ring.opening_slot(source, self.place)

    def with_slot(self, ring: Ring, key: bytes | KeySource, slot_id: str) -> Ring:
        """The ring with one more way in."""
        return ring.with_slot(key, self._master, slot_id)


def read_text(blobs: BlobStore) -> str | None:
    """The text of `keys.json`, which holds no key in the clear; `None` where there is none. Raises `ArchiveDamaged`."""
    try:
        with blobs.open(FILE_NAME) as file:
            return file.read(MAX_BYTES).decode()
    except NotFound:
        return None
    except UnicodeDecodeError as error:
        reason = f"{FILE_NAME} cannot be read; restore it from a backup"
        raise ArchiveDamaged(place=redacted(blobs.url), reason=reason) from error


def read_ring(blobs: BlobStore) -> Ring | None:
    """What `keys.json` says; `None` where there is none. Raises `NewerFormat`, `ArchiveDamaged`."""
    try:
        with blobs.open(FILE_NAME) as file:
            data = file.read(MAX_BYTES)
    except NotFound:
        return None
    return Ring.read(data, redacted(blobs.url))


def unlock(blobs: BlobStore, source: KeySource) -> Vault | None:
    """The keys of the archive whose blobs these are; `None` where it has none. Raises `KeyMissing`, `KeyRefused`."""
    ring = read_ring(blobs)
    return None if ring is None else Vault(blobs, ring, ring.master(source, redacted(blobs.url)), source)


def found(blobs: BlobStore, source: KeySource, archive_id: str | None, *, encrypted: bool) -> Vault:
    """Make keys for an archive that has none, under a key from `source`, which is made where there is none. Where
    another process was faster, its keys. Raises `KeyMissing`, `KeyRefused`."""
    archive_id = archive_id or str(uuid4())
    key, made = (source, None) if source.is_passphrase else source.make(archive_id, redacted(blobs.url))
    ring, _ = founded(archive_id, key, encrypted=encrypted)
    given = blobs.publish(blobs.stage(io.BytesIO(ring.written())), FILE_NAME)
    if given != FILE_NAME:
        blobs.delete(given)
        if made:
            made.unlink(missing_ok=True)
    vault = unlock(blobs, source)
    if vault is None:
        raise KeyMissing(place=redacted(blobs.url), reason=f"its {FILE_NAME} is gone again")
    vault.made = made if given == FILE_NAME else None
    return vault


def next_generation(keys: ArchiveKeys, replaces: str = "") -> ArchiveKeys:
    """The keys with one more to wrap data keys with. Older ones stay: a process that has not heard of this may still
    use them for a while."""
    name = uuid4().hex
    return replace(keys, wrapping={**keys.wrapping, name: new_key()}, current=name, rotating=True, replaces=replaces)
